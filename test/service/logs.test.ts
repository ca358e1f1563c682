import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createCredentialClient } from "../../src/client/index.ts";
import { isRequestId } from "../../src/log.ts";
import { canary, leaks } from "../support/canary.ts";
import { type Fleet, NO_SWEEP, startFleet } from "../support/fleet.ts";
import { operatorToken, rest, type Service } from "../support/service.ts";
import { startTokenEndpoint, type TokenEndpoint } from "../support/token-endpoint.ts";
import { startWebhookEndpoint, webhookSecret } from "../support/webhook-endpoint.ts";

/** Every field that a line may have, besides level, time and message. What is added here was thought about. */
const FIELDS = [
  "request_id", "trace_id", "method", "code", "reason", "duration_ms", "caller_kind", "caller_id", "organization_id", "credential_id", "incident", "error_name", "error_code",
  "address", "count", "key_id", "table", "migration", "signal", "state", "pid", "path", "status", "attempt", "link", "hash",
];
/** Lines about the process itself, and not about a piece of work. */
const OF_THE_PROCESS = ["migrated"];

type Line = Record<string, unknown> & { readonly level: string; readonly message: string; readonly request_id?: string };

let fleet: Fleet;
let service: Service;
let provider: TokenEndpoint;
let hook: Awaited<ReturnType<typeof startWebhookEndpoint>>;
const planted = [canary("password"), canary("token"), canary("name"), canary("path")] as const;
const [password, made, name, path] = planted;
/** Request ids of the calls that were made, by what was asked. */
const asked = new Map<string, string>();
let lines: Line[];

beforeAll(async () => {
  provider = await startTokenEndpoint("strict");
  hook = await startWebhookEndpoint(() => 500);
  fleet = await startFleet(1, {
    ...NO_SWEEP,
    CREDENTIALS_LOG_LEVEL: "debug", CREDENTIALS_GOOGLE_ISSUER: provider.issuer, CREDENTIALS_AUDIT_SIGN_INTERVAL_MS: "100", CREDENTIALS_TALLY_INTERVAL_MS: "100",
    CREDENTIALS_WEBHOOK_URL: hook.url, CREDENTIALS_WEBHOOK_SECRET: webhookSecret(), CREDENTIALS_WEBHOOK_ATTEMPTS: "1", CREDENTIALS_GRPC_REFLECTION: "on",
  });
  service = fleet.replicas[0] as Service;
  const ask = async (what: string, ...args: Parameters<typeof rest> extends [unknown, ...infer R] ? R : never) => {
    const answer = await rest(service, ...args);
    asked.set(what, answer.headers.get("x-request-id") as string);
    return answer;
  };
  const { user, machine } = fleet;
  const created = await ask("create", "POST", "/integrations/credentials", { token: user, body: { provider: "sftp", credential_type: "user_password", name, credentials: { host: "sftp.example", username: "u", password } } });
  expect(created.status).toBe(201);
  const id = created.json.id as string;
  await ask("get", "GET", `/integrations/credentials/${id}`, { token: user });
  await ask("invalid", "POST", "/integrations/credentials", { token: user, body: { provider: password } });
  await ask("missing", "GET", `/integrations/credentials/${randomUUID()}`, { token: user });
  await ask("not a uuid", "GET", `/integrations/credentials/${path}`, { token: user });
  await ask("nowhere", "GET", `/${path}`);
  await ask("made up", "GET", "/integrations/credentials", { token: made });
  await ask("nobody", "GET", "/integrations/credentials");
  await ask("operator", "GET", "/integrations/credentials", { token: await operatorToken() });
  await ask("test", "POST", "/integrations/sftp/test-connection", { token: user, body: { host: "169.254.1.1", username: "u", auth_type: "password", password } });
  await using client = createCredentialClient({ target: service.grpc, token: machine, tls: "insecure", retries: 0 });
  await client.resolveCredential({ credentialId: id });
  // A renewal whose client is refused: a line of a background job.
  const grant = await fleet.post({ ...provider.grant(), client_secret: "wrong" });
  await fleet.expire([grant]);
  await fleet.resolve(service, grant);
  service.process.kill("SIGHUP");
  // It stops when all of this has been said.
  const said = () => service.output();
  for (const message of ["audit head signed", "a webhook was given up", "the master keys were loaded again"]) while (!said().includes(message)) await new Promise((resolve) => setTimeout(resolve, 20));
  await service.stop();
  lines = said().split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line) as Line);
}, 60_000);
afterAll(async () => {
  await fleet[Symbol.asyncDispose]();
  await provider[Symbol.asyncDispose]();
  await hook[Symbol.asyncDispose]();
});

test("everything on standard error is JSON, one line for each entry, with the allowed fields only", () => {
  const strangers = service.output().split("\n").filter((line) => line !== "" && !line.startsWith("{"));
  expect(strangers.filter((line) => !/^(ready |Create a credential:|List the gRPC|\s+(curl|-H|-d|npx))/.test(line))).toEqual([]);
  expect(lines.length).toBeGreaterThan(asked.size);
  for (const line of lines) expect(Object.keys(line).filter((field) => !["level", "time", "message", ...FIELDS].includes(field)), JSON.stringify(line)).toEqual([]);
});

test("each call is one line, under the id that its caller was told", () => {
  for (const [what, id] of asked) {
    const mine = lines.filter((line) => line.request_id === id);
    const closing = mine.filter(({ message }) => message === "call" || message === "rest request answered without a call");
    expect(closing, what).toHaveLength(1);
    // A connection test says in a second line where it went.
    expect(mine, what).toHaveLength(what === "test" ? 2 : 1);
  }
  const create = lines.find((line) => line.request_id === asked.get("create"));
  expect(create).toMatchObject({ level: "info", message: "call", method: "/flow.credentials.v1.CredentialService/CreateCredential", code: "OK", caller_kind: "user", organization_id: fleet.organization });
  expect(create?.["duration_ms"]).toBeGreaterThan(0);
  expect(lines.find((line) => line.request_id === asked.get("made up"))).toMatchObject({ code: "UNAUTHENTICATED", reason: "INVALID_TOKEN" });
  expect(lines.find((line) => line.request_id === asked.get("nowhere"))).toMatchObject({ status: 404, path: "-" });
  expect(lines.filter(({ method, message }) => message === "call" && method === "/flow.credentials.v1.CredentialService/ResolveCredential")).toHaveLength(2);
});

test("every line about a piece of work has a ULID, those of background jobs too", () => {
  const bare = lines.filter(({ request_id: id, message }) => !OF_THE_PROCESS.includes(message) && !(typeof id === "string" && isRequestId(id)));
  expect(bare).toEqual([]);
  const background = ["audit head signed", "a webhook was given up", "the master keys were loaded again"];
  expect(background.filter((message) => !lines.some((line) => line.message === message))).toEqual([]);
});

test("no line holds what was secret, or what a stranger sent", () => {
  expect(leaks([...planted, fleet.user, fleet.machine, ...provider.issued], "the log", Buffer.from(service.output()))).toEqual([]);
});
