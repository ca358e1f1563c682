import { type Client, type ClientReadableStream, type ClientUnaryCall, Metadata, type ServiceError } from "@grpc/grpc-js";
import { setTimeout as sleep } from "node:timers/promises";
import type { CallOptions, CredentialClientOptions } from "./credentials.ts";
import { CredentialClientError, fromFailedCall } from "./error.ts";
import { redacted } from "./redact.ts";

/** Longest pauses before a retry, ms: the first, and the most they double up to (full jitter below that). */
export const PAUSE_MS = { first: 100, most: 2_000 };
/** Longest time of one call with its retries where nothing else is said, ms. */
export const DEFAULT_DEADLINE_MS = 15_000;
const DEFAULT_RETRIES = 3;
const READS = /\/(Get|List|Resolve)[A-Z]\w*$/;
/** What a header may carry of ours: visible ASCII (RFC 9110 section 5.5), and not too much of it. */
const TOKEN = /^[\x21-\x7e]{1,16384}$/;
const ID = /^[\x20-\x7e]{1,128}$/;

/** A method of the generated definition, its types laid aside. */
export interface ClientMethod {
  readonly path: string;
  readonly requestSerialize: (request: unknown) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => unknown;
}

/** One attempt: which bytes to which method, and until when. */
interface Attempt {
  readonly method: ClientMethod;
  readonly message: Buffer;
  readonly metadata: Metadata;
  /** Milliseconds since the epoch. */
  readonly deadline: number;
  readonly signal: AbortSignal | undefined;
}

/** Makes a call, again where that does no harm and may help. Rejects with CredentialClientError. */
export async function invoke(open: () => Client, method: ClientMethod, request: unknown, options: CredentialClientOptions, call: CallOptions): Promise<unknown> {
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

function encode(method: ClientMethod, request: unknown): Buffer {
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
  for (const [name, id] of [["x-flow-id", flowId], ["x-run-id", runId]] as const) if (id !== undefined) metadata.set(name, named(name, id));
  return metadata;
}

/** The id of a flow or a run, if it can be one. */
export function named(name: string, id: string): string {
  if (!ID.test(id)) throw new CredentialClientError("INVALID_ARGUMENT", `${name} must be 1 to 128 printable ASCII characters`);
  return id;
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

/** A stream of answers under way. */
export interface Following {
  cancel(): void;
}

/** What becomes of a stream: its messages, and once why it ended. */
export interface Followed<T> {
  readonly message: (message: T) => void;
  readonly end: (error: CredentialClientError) => void;
}

/** Begins a stream of answers, which has no deadline; nothing is tried twice. Whatever goes wrong is told as its end. */
export function follow<T>(open: () => Client, method: ClientMethod, request: unknown, options: CredentialClientOptions, { message, end }: Followed<T>): Following {
  let [stream, cancelled, ended]: [ClientReadableStream<T> | undefined, boolean, boolean] = [undefined, false, false];
  const finish = (error: unknown) => {
    if (ended) return;
    ended = true;
    end(error instanceof CredentialClientError ? error : new CredentialClientError("UNKNOWN", "the stream failed", { cause: error }));
  };
  const begin = async () => {
    const metadata = await metadataFor(options.token, {}, Date.now() + (options.deadlineMs ?? DEFAULT_DEADLINE_MS));
    if (cancelled) throw new CredentialClientError("CANCELLED", "the call was cancelled");
    let headers: Metadata | undefined;
    stream = open().makeServerStreamRequest(method.path, (bytes: Buffer) => bytes, method.responseDeserialize as (bytes: Buffer) => T, encode(method, request), metadata);
    stream.on("metadata", (received: Metadata) => (headers = received));
    stream.on("data", (told: T) => void (ended || message(told)));
    stream.on("error", (error: ServiceError) => finish(fromFailedCall(error, headers)));
    stream.on("end", () => setImmediate(finish, new CredentialClientError("UNAVAILABLE", "the stream ended")));
  };
  begin().catch(finish);
  return {
    cancel() {
      cancelled = true;
      stream?.cancel();
      finish(new CredentialClientError("CANCELLED", "the call was cancelled"));
    },
  };
}
