import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { signDevelopmentToken } from "../../src/auth/development.ts";
import { secret } from "../../src/domain/secret.ts";
import { type FreshDatabase, freshDatabase } from "./postgres.ts";

/** Issuer side of every test: the secret all started services verify tokens with. */
export const JWT_SECRET = "test-only-jwt-secret-0123456789abcdef0123456789abcdef";

/** A fresh master key setting for a test, and its parts. */
export function testMasterKey(id = "test-1"): { id: string; setting: string } {
  return { id, setting: `${id}:${randomBytes(32).toString("base64")}` };
}

/** A token as the platform's issuer would make it. */
export function token(kind: "user" | "service_account", organizationId: string, subject: string = randomUUID(), expiresInSeconds = 600, role?: string): Promise<string> {
  return signDevelopmentToken({
    secret: secret(JWT_SECRET),
    issuer: "flow-credentials-dev",
    audience: "flow-credentials",
    subject,
    organizationId,
    kind,
    role,
    claims: { organization: "organization_id", kind: "account_type" },
    expiresInSeconds,
  });
}

/** A token of a user who administers an organization. */
export const administratorToken = (organizationId: string, subject: string = randomUUID()): Promise<string> => token("user", organizationId, subject, 600, "org_admin");

/** A token of an operator. */
export const operatorToken = (): Promise<string> =>
  signDevelopmentToken({ secret: secret(JWT_SECRET), issuer: "flow-credentials-dev", audience: "flow-credentials-operator", subject: "operator-1", organizationId: null, kind: "operator", expiresInSeconds: 600 });

/** A service process as a user would run it, on free ports. */
export interface Service extends AsyncDisposable {
  readonly grpc: string;
  readonly rest: string;
  /** Where probes and metrics are: a listener of their own, or REST's. */
  readonly ops: string;
  readonly process: ChildProcess;
  /** Everything it has printed so far, both streams. */
  output(): string;
  /** Sends a signal and waits for the end; gives the exit code, or the signal's name. */
  stop(signal?: NodeJS.Signals): Promise<number | string>;
}

/** Settings every started service gets unless told otherwise. */
export function serviceEnv(database: FreshDatabase | undefined, extra: Record<string, string> = {}): Record<string, string> {
  const key = testMasterKey();
  return {
    PATH: process.env["PATH"] ?? "",
    CREDENTIALS_GRPC_LISTEN: "127.0.0.1:0",
    CREDENTIALS_REST_LISTEN: "127.0.0.1:0",
    CREDENTIALS_JWT_SECRET: JWT_SECRET,
    CREDENTIALS_MASTER_KEYS: key.setting,
    CREDENTIALS_PRIMARY_KEY_ID: key.id,
    ...(database ? { CREDENTIALS_DATABASE_URL: database.applicationUrl, CREDENTIALS_DATABASE_MIGRATION_URL: database.ownerUrl } : {}),
    ...extra,
  };
}

/** Runs `src/main.ts` with exactly this environment, until it exits or is disposed. */
export function spawnService(env: Record<string, string>, main = "src/main.ts"): { process: ChildProcess; output: () => string; ended: Promise<number | string> } {
  const child = spawn(process.execPath, [main], { env, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream?.setEncoding("utf8").on("data", (text: string) => (output += text));
  const ended = new Promise<number | string>((resolve) => child.once("close", (code, signal) => resolve(code ?? signal ?? "")));
  return { process: child, output: () => output, ended };
}

/** Longest time until a service is ready, ms; generous, for a loaded machine. */
const START_MS = 25_000;

const READY = /^ready grpc=(\S+) rest=(\S+?)(?: ops=(\S+))?$/m;

/** Starts a service and waits until it is ready; throws what it printed if it ends before. */
export async function startService(env: Record<string, string>, main?: string): Promise<Service> {
  const { process: child, output, ended } = spawnService(env, main);
  const ready = new Promise<RegExpExecArray>((resolve) => {
    child.stdout?.on("data", () => {
      const match = READY.exec(output());
      if (match) resolve(match);
    });
  });
  // A process that hangs must not outlive the test that started it.
  const limit = setTimeout(() => child.kill("SIGKILL"), START_MS);
  const first = await Promise.race([ready, ended]);
  clearTimeout(limit);
  if (!Array.isArray(first)) throw new Error(`the service ended with ${String(first)}:\n${output()}`);
  const [, grpc = "", rest = "", ops] = first;
  const stop = async (signal: NodeJS.Signals = "SIGTERM") => {
    child.kill(signal);
    return ended;
  };
  const scheme = env["CREDENTIALS_TLS_CERT_FILE"] === undefined ? "http" : "https";
  const url = `${scheme}://${rest}`;
  return { grpc, rest: url, ops: ops === undefined ? url : `http://${ops}`, process: child, output, stop, [Symbol.asyncDispose]: async () => void (await stop()) };
}

/** A service on a database of its own; both end with the scope. */
export async function startFresh(extra: Record<string, string> = {}): Promise<Service & { readonly database: FreshDatabase; readonly env: Record<string, string> }> {
  const database = await freshDatabase();
  const env = serviceEnv(database, extra);
  const service = await startService(env);
  const dispose = async () => {
    await service.stop();
    await database[Symbol.asyncDispose]();
  };
  return Object.assign(service, { database, env, [Symbol.asyncDispose]: dispose });
}

/** A folder that is removed with the scope. Others may walk through it, as the embedded database's user has to. */
export function temporaryFolder(): Disposable & { readonly path: string } {
  const path = mkdtempSync(join(tmpdir(), "flow-credentials-test-"));
  chmodSync(path, 0o711);
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

/** One REST call: status, headers, and the body as JSON where it is JSON. */
export async function rest(
  service: Pick<Service, "rest">,
  method: string,
  path: string,
  options: { token?: string; body?: unknown; headers?: Record<string, string>; raw?: string } = {},
): Promise<{ status: number; headers: Headers; text: string; json: any }> {
  const payload = options.raw ?? (options.body === undefined ? undefined : JSON.stringify(options.body));
  const response = await fetch(service.rest + path, {
    method,
    headers: {
      ...(options.token === undefined ? {} : { authorization: `Bearer ${options.token}` }),
      ...(payload === undefined ? {} : { "content-type": "application/json" }),
      ...options.headers,
    },
    ...(payload === undefined ? {} : { body: payload }),
  });
  const text = await response.text();
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    json = undefined;
  }
  return { status: response.status, headers: response.headers, text, json };
}
