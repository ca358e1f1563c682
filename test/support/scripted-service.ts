import { connect } from "node:net";
import { PassThrough } from "node:stream";
import { type Metadata, Server, type ServerUnaryCall, ServerCredentials, type UntypedHandleCall } from "@grpc/grpc-js";
import { CredentialServiceService } from "../../gen/flow/credentials/v1/credential_service.ts";
import { CredentialError } from "../../src/domain/errors.ts";
import { toStatus } from "../../src/grpc/status.ts";
import { createLog } from "../../src/log.ts";
import { type RestOptions, serveRest } from "../../src/rest/server.ts";
import { dial } from "../../src/rest/transport.ts";

/** One call as it reached the gRPC service. */
export interface Seen {
  readonly method: string;
  readonly request: Record<string, unknown>;
  readonly metadata: Metadata;
  /** Settles when the caller cancelled the call. */
  readonly cancelled: Promise<void>;
}

/** What the service answers: a response message, or an error to throw. */
export type Script = (seen: Seen) => unknown;

/** The faults that REST reported beside a call. */
export function reportedFaults(seen: Seen | undefined): { in: string; path: string[]; type: string; message: string }[] {
  const [bytes] = seen?.metadata.get("x-rest-faults-bin") ?? [];
  return bytes === undefined ? [] : JSON.parse(bytes.toString());
}

/** The REST listener in front of a gRPC server whose answers a test scripts. */
export interface RestUnderTest extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly seen: Seen[];
  /** Answers calls of an RPC from now on; a thrown CredentialError leaves as the service renders it. */
  script(method: keyof typeof CredentialServiceService, script: Script): void;
  /** Writes bytes on a socket of their own, and gives everything that came back until the server closed it. */
  raw(text: string | Buffer): Promise<string>;
  /** Everything logged so far. */
  log(): string;
  stop(): Promise<void>;
}

/** Starts both on free ports. */
export async function restUnderTest(options: Partial<RestOptions> = {}): Promise<RestUnderTest> {
  const scripts = new Map<string, Script>();
  const seen: Seen[] = [];
  const server = new Server();
  const handler = (name: string): UntypedHandleCall => async (call: ServerUnaryCall<Record<string, unknown>, unknown>, callback: (error: object | null, value?: unknown) => void) => {
    const arrived: Seen = { method: name, request: call.request, metadata: call.metadata, cancelled: new Promise((resolve) => call.once("cancelled", () => resolve())) };
    seen.push(arrived);
    try {
      callback(null, await scripts.get(name)?.(arrived) ?? {});
    } catch (error) {
      callback(error instanceof CredentialError ? toStatus(error) : (error as object));
    }
  };
  server.addService(CredentialServiceService, Object.fromEntries(Object.keys(CredentialServiceService).map((name) => [name, handler(name)])));
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) => (error ? reject(error) : resolve(bound)));
  });
  const lines: Buffer[] = [];
  const stream = new PassThrough().on("data", (chunk: Buffer) => lines.push(chunk));
  const rest = await serveRest({
    listen: { host: "127.0.0.1", port: 0 },
    transport: dial({ target: `127.0.0.1:${port}`, deadlineMs: options.deadlineMs ?? 10_000 }),
    corsOrigins: [],
    maxBodyBytes: 8_192,
    maxJsonDepth: 16,
    maxJsonKeys: 100,
    deadlineMs: 10_000,
    docs: false,
    resolve: false,
    log: createLog("debug", stream),
    ready: async () => true,
    metrics: async () => ({ contentType: "text/plain; version=0.0.4", body: "up 1\n" }),
    ...options,
  });
  return {
    url: `http://127.0.0.1:${rest.address.port}`,
    port: rest.address.port,
    seen,
    script: (method, script) => void scripts.set(method, script),
    raw: (text) =>
      new Promise((resolve, reject) => {
        let answer = "";
        const socket = connect(rest.address.port, "127.0.0.1", () => socket.write(text));
        socket.on("data", (chunk) => (answer += chunk.toString("latin1"))).on("close", () => resolve(answer));
        socket.on("error", (error: NodeJS.ErrnoException) => (error.code === "ECONNRESET" || error.code === "EPIPE" ? resolve(answer) : reject(error)));
      }),
    log: () => Buffer.concat(lines).toString(),
    stop: () => rest.stop(),
    async [Symbol.asyncDispose]() {
      await rest.stop();
      server.forceShutdown();
    },
  };
}
