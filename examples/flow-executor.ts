/** A flow executor in small: resolves an SFTP credential, downloads a CSV with it, and says how many rows it has. */
import { createHash } from "node:crypto";
import { createReadStream, createWriteStream, readFileSync } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { parseArgs } from "node:util";
import { type CallOptions, createCredentialClient, CredentialClientError, type SftpKey, type SftpPassword, sshPrivateKey } from "flow-credentials/client";
import ssh2 from "ssh2";

/** What went wrong, in a sentence that may be printed. */
class ExecutorError extends Error {}

/** How to log in to the SFTP server. */
type Login = { readonly $case: "sftpPassword"; readonly value: SftpPassword } | { readonly $case: "sftpKey"; readonly value: SftpKey };

/** Longest time until the SSH connection is ready, ms. */
const CONNECT_MS = 15_000;

const USAGE = `Downloads a CSV over SFTP with a stored credential, and says how many rows it has.

  FLOW_CREDENTIALS_TOKEN=<API key or JWT of a service account> npm run -s example -- \\
    --target 127.0.0.1:50051 --credential <id> --remote /path/report.csv --output report.csv

  --target <host:port>   the gRPC listener of flow-credentials (127.0.0.1:50051)
  --ca-file <file>       certificate authority of the service, PEM; the system's otherwise. Loopback targets need none
  --credential <id>      the credential; its provider is sftp
  --remote <path>        the file on the SFTP server
  --output <file>        where it goes; appears only when it is whole
  --accept-unpinned      go on where the credential pins no host key; its fingerprint is printed in any case
  --flow-id, --run-id    who this is for, in the audit record

Exits with 1 and one line on standard error where something fails.
`;

const OPTIONS = {
  target: { type: "string", default: "127.0.0.1:50051" },
  credential: { type: "string" },
  remote: { type: "string" },
  output: { type: "string" },
  "flow-id": { type: "string" },
  "run-id": { type: "string" },
  "ca-file": { type: "string" },
  "accept-unpinned": { type: "boolean", default: false },
  help: { type: "boolean", default: false },
} as const;

const readArguments = () => parseArgs({ options: OPTIONS }).values;
type Arguments = ReturnType<typeof readArguments>;

function required(args: Arguments, name: "credential" | "remote" | "output"): string {
  const value = args[name];
  if (!value) throw new ExecutorError(`--${name} is required`);
  return value;
}

async function resolveLogin(args: Arguments, credentialId: string): Promise<Login> {
  const token = process.env["FLOW_CREDENTIALS_TOKEN"];
  if (!token) throw new ExecutorError("FLOW_CREDENTIALS_TOKEN is not set");
  const tls = args["ca-file"] === undefined ? {} : { tls: { ca: readFileSync(args["ca-file"]) } };
  const call: CallOptions = {
    ...(args["flow-id"] === undefined ? {} : { flowId: args["flow-id"] }),
    ...(args["run-id"] === undefined ? {} : { runId: args["run-id"] }),
  };
  await using client = createCredentialClient({ target: args.target, token, ...tls });
  const { credentials } = await client.resolveCredential({ credentialId }, call);
  if (credentials?.$case !== "sftpPassword" && credentials?.$case !== "sftpKey") throw new ExecutorError("the credential is not for SFTP");
  return credentials;
}

/** SHA-256 fingerprint of a host key, as OpenSSH prints it. */
const fingerprint = (key: Buffer): string => `SHA256:${createHash("sha256").update(key).digest("base64").replace(/=+$/, "")}`;

/** Connects and logs in; the server is who the credential says before anything secret is sent. */
function connect({ $case, value }: Login, acceptUnpinned: boolean): Promise<ssh2.Client> {
  const pinned = value.hostKeyFingerprint;
  let refused: string | undefined;
  // Synchronous on purpose: ssh2 takes any truthy answer, a promise too, as consent.
  const hostVerifier = (key: Buffer): boolean => {
    const seen = fingerprint(key);
    if (pinned === "") process.stderr.write(`host key of ${value.host}: ${seen} (the credential pins none)\n`);
    if (pinned === "" ? acceptUnpinned : seen === pinned) return true;
    refused = pinned === "" ? "no host key is pinned; pin the fingerprint above, or give --accept-unpinned" : `the host key is ${seen}, and the credential pins ${pinned}`;
    return false;
  };
  const login = $case === "sftpPassword" ? { password: value.password } : sshPrivateKey(value);
  return new Promise((resolve, reject) => {
    const client = new ssh2.Client();
    client.once("ready", () => resolve(client));
    client.on("error", ({ level, message }: Error & { level?: string }) => reject(new ExecutorError(refused ?? `SFTP ${level ?? "error"}: ${message}`)));
    client.once("close", () => reject(new ExecutorError("the SFTP server closed the connection")));
    client.connect({ host: value.host, port: value.port, username: value.username, readyTimeout: CONNECT_MS, hostVerifier, ...login });
  });
}

/** Downloads a file beside its destination and renames it when it is whole, so that nobody reads half of one. */
async function download(client: ssh2.Client, remote: string, output: string): Promise<void> {
  const temporary = `${output}.${process.pid}.part`;
  const sftp = await new Promise<ssh2.SFTPWrapper>((resolve, reject) => client.sftp((error, channel) => (error ? reject(error) : resolve(channel))));
  const lost = new Promise<never>((_, reject) => {
    client.once("close", () => reject(new ExecutorError("the connection was lost during the download")));
  });
  try {
    await Promise.race([pipeline(sftp.createReadStream(remote), createWriteStream(temporary, { flags: "wx", mode: 0o600 })), lost]);
    await rename(temporary, output);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** Records of a CSV file besides its header (RFC 4180): line breaks inside quotes end none. */
async function countRows(path: string): Promise<number> {
  let [records, quoted, pending] = [0, false, false];
  for await (const chunk of createReadStream(path, "utf8")) {
    for (const character of String(chunk)) {
      if (character === '"') quoted = !quoted;
      if (character === "\n" && !quoted) [records, pending] = [records + 1, false];
      else pending = true;
    }
  }
  return Math.max(0, records + (pending ? 1 : 0) - 1);
}

async function main(): Promise<void> {
  const args = readArguments();
  if (args.help) return void process.stdout.write(USAGE);
  const [credential, remote, output] = [required(args, "credential"), required(args, "remote"), required(args, "output")];
  const client = await connect(await resolveLogin(args, credential), args["accept-unpinned"]);
  try {
    await download(client, remote, output);
  } finally {
    client.end();
  }
  process.stdout.write(`${output}: ${await countRows(output)} rows\n`);
}

try {
  await main();
} catch (error) {
  const said = error instanceof CredentialClientError ? `${error.code}${error.reason ? ` ${error.reason}` : ""}: ${error.message}` : (error as Error).message;
  process.stderr.write(`flow-executor: ${said}\n`);
  process.exitCode = 1;
}
