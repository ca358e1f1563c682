import { Client, type ClientUnaryCall, Metadata } from "@grpc/grpc-js";
import { setTimeout as sleep } from "node:timers/promises";
import { CredentialServiceService } from "../../gen/flow/credentials/v1/credential_service.ts";
import { channelCredentials, type ClientTls } from "./channel.ts";
import { CredentialClientError, fromFailedCall } from "./error.ts";
import { redacted } from "./redact.ts";

/** Where the service is, and who asks. */
export interface CredentialClientOptions {
  /** `host:port`, or anything grpc-js resolves: `dns:///host:port`, `unix:/path`. */
  readonly target: string;
  /** A JWT or an API key (`saf_…`), or a function that gives a current one; it is asked once a call. */
  readonly token: string | (() => string | Promise<string>);
  /** TLS; where absent, TLS with the system's authorities, or plaintext to a loopback address. "insecure" is plaintext anywhere. */
  readonly tls?: ClientTls | "insecure";
  /** Longest time of one call with its retries, ms; 15000 unless told otherwise. */
  readonly deadlineMs?: number;
  /** How often a call that may be repeated is tried again; 3 unless told otherwise. */
  readonly retries?: number;
}

/** What may be said about a single call. */
export interface CallOptions {
  /** Longest time of this call with its retries, ms. */
  readonly deadlineMs?: number;
  /** Cancels the call when it aborts. */
  readonly signal?: AbortSignal;
  /** The flow this is for, in the audit record: at most 128 printable ASCII characters. */
  readonly flowId?: string;
  /** The run of the flow this is for; as `flowId`. */
  readonly runId?: string;
  /** Whether repeating the call does no harm. True for Get, List and Resolve unless told otherwise, false for the rest. */
  readonly idempotent?: boolean;
}

type Methods = typeof CredentialServiceService;
type Request<M extends keyof Methods> = Parameters<Methods[M]["requestSerialize"]>[0];
type Response<M extends keyof Methods> = ReturnType<Methods[M]["responseDeserialize"]>;

/**
 * CredentialService as promises, a method for each RPC. Every rejection is a CredentialClientError. The secrets in a
 * response print as `[secret]` until they are copied out of it.
 */
export type CredentialClient = AsyncDisposable & {
  readonly [M in keyof Methods]: (request: Request<M>, options?: CallOptions) => Promise<Response<M>>;
} & {
  /** Closes the connection; calls in flight still end. */
  close(): void;
};

/** Longest pauses before a retry, ms: the first, and the most they double up to (full jitter below that). */
const PAUSE_MS = { first: 100, most: 2_000 };
/** Pings keep dead connections from being found only by a call's deadline; reconnects start as fast as retries do. */
const CHANNEL = { "grpc.keepalive_time_ms": 60_000, "grpc.initial_reconnect_backoff_ms": PAUSE_MS.first, "grpc.max_reconnect_backoff_ms": 10_000 };
const DEFAULT_DEADLINE_MS = 15_000;
const DEFAULT_RETRIES = 3;
const READS = /\/(Get|List|Resolve)[A-Z]\w*$/;
/** What a header may carry of ours: visible ASCII (RFC 9110 section 5.5), and not too much of it. */
const TOKEN = /^[\x21-\x7e]{1,16384}$/;
const ID = /^[\x20-\x7e]{1,128}$/;

/** A client of the service. It connects with the first call, and again whenever the connection is lost. */
export function createCredentialClient(options: CredentialClientOptions): CredentialClient {
  let closed = false;
  const channel = new Client(options.target, channelCredentials(options.target, options.tls), CHANNEL);
  const close = () => {
    closed = true;
    channel.close();
  };
  const open = () => {
    if (closed) throw new CredentialClientError("CANCELLED", "the client is closed");
    return channel;
  };
  const client: Record<string | symbol, unknown> = { close, [Symbol.asyncDispose]: async () => close() };
  for (const [name, method] of Object.entries(CredentialServiceService)) {
    client[name] = (request: never, call: CallOptions = {}) => invoke(open, method as UnaryMethod, request, options, call);
  }
  return client as unknown as CredentialClient;
}

/** A method of the generated definition, its types laid aside. */
interface UnaryMethod {
  readonly path: string;
  readonly requestSerialize: (request: unknown) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => unknown;
}

/** One attempt: which bytes to which method, and until when. */
interface Attempt {
  readonly method: UnaryMethod;
  readonly message: Buffer;
  readonly metadata: Metadata;
  /** Milliseconds since the epoch. */
  readonly deadline: number;
  readonly signal: AbortSignal | undefined;
}

async function invoke(open: () => Client, method: UnaryMethod, request: unknown, options: CredentialClientOptions, call: CallOptions): Promise<unknown> {
  const deadline = Date.now() + (call.deadlineMs ?? options.deadlineMs ?? DEFAULT_DEADLINE_MS);
  const message = encode(method, request);
  const metadata = await metadataFor(options.token, call, deadline);
  const mayRepeat = call.idempotent ?? READS.test(method.path);
  const retries = mayRepeat ? (options.retries ?? DEFAULT_RETRIES) : 0;
  for (let attempt = 0; ; attempt += 1) {
    try {
      return redacted(await once(open(), { method, message, metadata, deadline, signal: call.signal }));
    } catch (error) {
      const pause = Math.random() * Math.min(PAUSE_MS.most, PAUSE_MS.first * 2 ** attempt);
      const worthIt = error instanceof CredentialClientError && error.retryable && attempt < retries && Date.now() + pause < deadline;
      if (!worthIt) throw error;
      await sleep(pause, undefined, call.signal ? { signal: call.signal } : {}).catch(() => undefined);
    }
  }
}

function encode(method: UnaryMethod, request: unknown): Buffer {
  try {
    return method.requestSerialize(request);
  } catch {
    // The encoder's own words may quote the value it stumbled over.
    throw new CredentialClientError("INVALID_ARGUMENT", "the request cannot be encoded: a field has the wrong type");
  }
}

async function metadataFor(token: CredentialClientOptions["token"], { flowId, runId, signal }: CallOptions, deadline: number): Promise<Metadata> {
  const text = typeof token === "string" ? token : await provided(token, deadline, signal);
  // Metadata's own complaint about a malformed value quotes the value.
  if (!TOKEN.test(text)) throw new CredentialClientError("UNAUTHENTICATED", "the token is empty or holds characters that a header cannot carry");
  const metadata = new Metadata();
  metadata.set("authorization", `Bearer ${text}`);
  for (const [name, id] of [["x-flow-id", flowId], ["x-run-id", runId]] as const) {
    if (id === undefined) continue;
    if (!ID.test(id)) throw new CredentialClientError("INVALID_ARGUMENT", `${name} must be 1 to 128 printable ASCII characters`);
    metadata.set(name, id);
  }
  return metadata;
}

/** The token a provider gives, if it does before the deadline. */
async function provided(provider: () => string | Promise<string>, deadline: number, signal: AbortSignal | undefined): Promise<string> {
  const timer = new AbortController();
  const stop = AbortSignal.any(signal ? [timer.signal, signal] : [timer.signal]);
  const late = sleep(Math.max(0, deadline - Date.now()), undefined, { signal: stop }).then(
    () => Promise.reject(new CredentialClientError("DEADLINE_EXCEEDED", "the deadline passed before the token provider answered")),
    () => Promise.reject(new CredentialClientError("CANCELLED", "the call was cancelled")),
  );
  const asked = Promise.resolve().then(provider).catch((cause: unknown) => {
    throw new CredentialClientError("UNAUTHENTICATED", "the token provider failed", { cause });
  });
  return Promise.race([asked, late]).finally(() => timer.abort());
}

function once(channel: Client, { method, message, metadata, deadline, signal }: Attempt): Promise<unknown> {
  if (signal?.aborted) return Promise.reject(new CredentialClientError("CANCELLED", "the call was cancelled"));
  return new Promise((resolve, reject) => {
    let headers: Metadata | undefined;
    const call: ClientUnaryCall = channel.makeUnaryRequest(method.path, (bytes: Buffer) => bytes, method.responseDeserialize, message, metadata, { deadline }, (error, response) => {
      signal?.removeEventListener("abort", cancel);
      if (error) reject(fromFailedCall(error, headers));
      else resolve(response);
    });
    const cancel = () => call.cancel();
    signal?.addEventListener("abort", cancel, { once: true });
    call.on("metadata", (received: Metadata) => (headers = received));
  });
}
