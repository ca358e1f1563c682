import { readFileSync } from "node:fs";
import type { Command } from "commander";
import type { ClientTls } from "../client/channel.ts";
import type { AdminClient } from "../client/admin.ts";
import type { ServiceAccountClient, ServiceAccountClientOptions } from "../client/service-accounts.ts";
import type { Context } from "./context.ts";
import { developmentConfig, developmentToken, OPERATOR } from "./development.ts";
import { CliError, usage } from "./failure.ts";

/** Options of every command that calls the service. */
export interface ConnectionOptions {
  readonly target?: string;
  readonly tokenFile?: string;
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
}

/** Adds those options to a command. There is none for the token itself: command lines are visible to everyone. */
export function addConnection(command: Command): Command {
  return command
    .option("--target <host:port>", "the gRPC service; else FLOW_CREDENTIALS_TARGET, else CREDENTIALS_GRPC_LISTEN")
    .option("--token-file <file>", "operator token; else FLOW_CREDENTIALS_TOKEN(_FILE), else one is made in the development profile")
    .option("--ca <file>", "authority of the service's certificate, PEM; else FLOW_CREDENTIALS_CA_FILE, else the system's")
    .option("--cert <file>", "client certificate, PEM, where the service asks for one")
    .option("--key <file>", "key of the client certificate, PEM");
}

/** Longest time of one call, ms. */
const TIMEOUT_MS = 15_000;

/** How long a token that is made here works, s. */
const TOKEN_SECONDS = 60;

/** How long a token is used before it is read or made again, ms: work that takes long goes on while whoever renews the file does so. */
const TOKEN_AGE_MS = 15_000;

/** Makes one call as an operator. Throws CliError for whatever goes wrong with it. */
export function callService<T>(context: Context, options: ConnectionOptions, call: (client: ServiceAccountClient) => Promise<T>): Promise<T> {
  return connected(context, options, async (how) => (await import("../client/service-accounts.ts")).createServiceAccountClient(how), call);
}

/** Calls AdminService as an operator, as often as the work asks for. Throws CliError for whatever goes wrong with it. */
export function callAdmin<T>(context: Context, options: ConnectionOptions, call: (client: AdminClient) => Promise<T>): Promise<T> {
  return connected(context, options, async (how) => (await import("../client/admin.ts")).createAdminClient(how), call);
}

async function connected<C extends Disposable, T>(
  { env }: Context,
  options: ConnectionOptions,
  open: (how: ServiceAccountClientOptions) => Promise<C>,
  call: (client: C) => Promise<T>,
): Promise<T> {
  const target = options.target ?? env["FLOW_CREDENTIALS_TARGET"] ?? ownTarget(env);
  const tls = tlsOf(env, options);
  const token = currentToken(async () => givenToken(env, options) ?? (await madeToken(env)));
  // Whatever is wrong with it is told before anything is called.
  await token();
  // Loaded here alone: gRPC is most of the time a command takes to start.
  const { CredentialClientError } = await import("../client/error.ts");
  using client = await open({ target, token, tls, deadlineMs: TIMEOUT_MS });
  try {
    return await call(client);
  } catch (error) {
    if (!(error instanceof CredentialClientError)) throw error;
    // Without a reason it was not the service that refused: it was not reached.
    throw new CliError(error.reason === undefined ? `calling ${target} failed: ${error.message}` : error.message);
  }
}

/** The token of each call, read again where it was read a while ago. */
export function currentToken(read: () => Promise<string>, now: () => number = () => performance.now()): () => Promise<string> {
  let reading: Promise<string> | undefined;
  let readAt = 0;
  return () => {
    if (reading === undefined || now() - readAt >= TOKEN_AGE_MS) [reading, readAt] = [read(), now()];
    return reading;
  };
}

type Env = Context["env"];

/** The service of the same environment. */
function ownTarget(env: Env): string {
  const { host, port } = developmentConfig(env, "--target or FLOW_CREDENTIALS_TARGET is required: a default exists").settings.grpcListen;
  if (port === 0) throw usage("--target is required where CREDENTIALS_GRPC_LISTEN lets the system pick the port");
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}

function givenToken(env: Env, { tokenFile }: ConnectionOptions): string | undefined {
  if (tokenFile !== undefined) return oneToken("--token-file", readGiven("--token-file", tokenFile).toString("utf8"));
  const [text, file] = [env["FLOW_CREDENTIALS_TOKEN"], env["FLOW_CREDENTIALS_TOKEN_FILE"]];
  if (text !== undefined && file !== undefined) throw usage("FLOW_CREDENTIALS_TOKEN and FLOW_CREDENTIALS_TOKEN_FILE are both set; give one");
  if (file !== undefined) return oneToken("FLOW_CREDENTIALS_TOKEN_FILE", readGiven("FLOW_CREDENTIALS_TOKEN_FILE", file).toString("utf8"));
  return text === undefined ? undefined : oneToken("FLOW_CREDENTIALS_TOKEN", text);
}

function oneToken(source: string, text: string): string {
  const token = text.trim();
  if (!/^[\x21-\x7e]+$/.test(token)) throw usage(`${source} does not hold one token`);
  return token;
}

async function madeToken(env: Env): Promise<string> {
  const config = developmentConfig(env, "--token-file, FLOW_CREDENTIALS_TOKEN or FLOW_CREDENTIALS_TOKEN_FILE is required: tokens are made");
  return developmentToken(config, OPERATOR, TOKEN_SECONDS);
}

/** What was given about TLS; undefined leaves it to the target: plaintext only to this machine, so that nobody reads the token on the way. */
function tlsOf(env: Env, { ca, cert, key }: ConnectionOptions): ClientTls | undefined {
  if ((cert === undefined) !== (key === undefined)) throw usage("--cert and --key go together");
  const authority = ca ?? env["FLOW_CREDENTIALS_CA_FILE"];
  if (authority === undefined && cert === undefined) return undefined;
  return {
    ...(authority === undefined ? {} : { ca: readGiven(ca === undefined ? "FLOW_CREDENTIALS_CA_FILE" : "--ca", authority) }),
    ...(cert === undefined || key === undefined ? {} : { certificate: readGiven("--cert", cert), key: readGiven("--key", key) }),
  };
}

function readGiven(source: string, path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new CliError(`the file of ${source} cannot be read (${error instanceof Error && "code" in error ? String(error.code) : "error"})`);
  }
}
