import { Client } from "@grpc/grpc-js";
import { setTimeout as sleep } from "node:timers/promises";
import {
  CredentialServiceService, type ReportCredentialUsesResponse, type ResolveCredentialRequest, type ResolveCredentialResponse, type WatchCredentialsRequest, type WatchCredentialsResponse,
} from "../../gen/flow/credentials/v1/credential_service.ts";
import { CachedResolver, type CacheOptions, type CredentialCache, limitsOf } from "./cached-resolver.ts";
import { type ClientMethod, DEFAULT_DEADLINE_MS, follow, invoke, PAUSE_MS } from "./calls.ts";
import { channelCredentials, type ClientTls } from "./channel.ts";
import { CredentialClientError } from "./error.ts";
import { Follower } from "./follower.ts";
import { SecretCache } from "./secret-cache.ts";
import { UseCounter } from "./use-counter.ts";

/** Where the service is, and who asks. */
export interface CredentialClientOptions {
  /**
   * `host:port`, or anything grpc-js resolves: `dns:///host:port`, `unix:/path`. Of several addresses, as in `ipv4:10.0.0.1:50051,10.0.0.2:50051`
   * or behind one name, it uses one that answers, and goes over to another where that is lost.
   */
  readonly target: string;
  /** A JWT or an API key (`saf_…`), or a function that gives a current one; it is asked once a call. */
  readonly token: string | (() => string | Promise<string>);
  /** TLS; where absent, TLS with the system's authorities, or plaintext to a loopback address. "insecure" is plaintext anywhere. */
  readonly tls?: ClientTls | "insecure";
  /** Longest time of one call with its retries, ms; 15000 unless told otherwise. */
  readonly deadlineMs?: number;
  /** How often a call that may be repeated is tried again; 3 unless told otherwise. */
  readonly retries?: number;
  /**
   * Present for a client that keeps secrets for a while: ResolveCredential then answers from memory, for as long as the service
   * allows and it is known by WatchCredentials that nothing has happened to them. `{}` takes every limit as it is.
   */
  readonly cache?: CacheOptions;
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
  /** With a cache: asks the service in any case, as where a system has refused the secret that was kept. */
  readonly fresh?: boolean;
  /** With a cache whose `failStaticMs` allows it: while the service is away, is answered with what was known last. */
  readonly failStatic?: boolean;
}

type Methods = typeof CredentialServiceService;
type Request<M extends keyof Methods> = Parameters<Methods[M]["requestSerialize"]>[0];
type Response<M extends keyof Methods> = ReturnType<Methods[M]["responseDeserialize"]>;

/**
 * CredentialService as promises, a method for each RPC. Every rejection is a CredentialClientError. The secrets in a
 * response print as `[secret]` until they are copied out of it.
 */
export type CredentialClient = AsyncDisposable & {
  readonly [M in Exclude<keyof Methods, "watchCredentials">]: (request: Request<M>, options?: CallOptions) => Promise<Response<M>>;
} & {
  /** The messages of WatchCredentials; throws a CredentialClientError where they end. Nothing is tried twice. */
  watchCredentials(request: WatchCredentialsRequest, options?: Pick<CallOptions, "signal">): AsyncIterable<WatchCredentialsResponse>;
  /** Present where the options ask for one. */
  readonly cache?: CredentialCache;
  /** Closes the connection; calls in flight still end. */
  close(): void;
};

/** Pings keep dead connections from being found only by a call's deadline; reconnects start as fast as retries do. */
const CHANNEL = { "grpc.keepalive_time_ms": 60_000, "grpc.initial_reconnect_backoff_ms": PAUSE_MS.first, "grpc.max_reconnect_backoff_ms": 10_000 };

/** Longest time in which a client that is disposed of still reports uses, ms. */
const LAST_REPORT_MS = 2_000;

/** How often secrets are looked at whose time may be over, ms. */
const SWEEP_MS = 1_000;

/** Time between two reports of uses, ms. */
const REPORT_MS = 30_000;

/** A client of the service. It connects with the first call, and again whenever the connection is lost. */
export function createCredentialClient(options: CredentialClientOptions): CredentialClient {
  let closed = false;
  const channel = new Client(options.target, channelCredentials(options.target, options.tls), CHANNEL);
  const open = () => {
    if (closed) throw new CredentialClientError("CANCELLED", "the client is closed");
    return channel;
  };
  const call = (method: unknown) => (request: unknown, how: CallOptions = {}) => invoke(open, method as ClientMethod, request, options, how);
  const keeping = options.cache === undefined ? undefined : keep(options, options.cache, open);
  const close = () => {
    closed = true;
    keeping?.close();
    channel.close();
  };
  const client: Record<string | symbol, unknown> = Object.fromEntries(Object.entries(CredentialServiceService).map(([name, method]) => [name, call(method)]));
  client["watchCredentials"] = (request: WatchCredentialsRequest, { signal }: Pick<CallOptions, "signal"> = {}) => messages(open, request, options, signal);
  if (keeping) Object.assign(client, { resolveCredential: keeping.resolve, cache: keeping.cache });
  const dispose = async () => {
    if (keeping) await Promise.race([keeping.uses.flush(LAST_REPORT_MS), sleep(LAST_REPORT_MS, undefined, { ref: false })]);
    close();
  };
  return Object.assign(client, { close, [Symbol.asyncDispose]: dispose }) as unknown as CredentialClient;
}

/** What a client with a cache has besides. */
function keep(options: CredentialClientOptions, cacheOptions: CacheOptions, open: () => Client) {
  const { resolveCredential, watchCredentials, reportCredentialUses } = CredentialServiceService;
  const limits = limitsOf(cacheOptions);
  const cache = new SecretCache(limits);
  const follower = new Follower((position, followed) => follow(open, watchCredentials as ClientMethod, { position }, options, followed), cache, limits.maxSilenceMs);
  const uses = new UseCounter(async (reports, deadlineMs) => {
    const how = deadlineMs === undefined ? {} : { deadlineMs };
    return (await invoke(open, reportCredentialUses as ClientMethod, { reports }, options, how)) as ReportCredentialUsesResponse;
  });
  const ask = async (request: ResolveCredentialRequest, how: CallOptions) => (await invoke(open, resolveCredential as ClientMethod, request, options, how)) as ResolveCredentialResponse;
  const resolver = new CachedResolver({ cache, follower, uses, ask, deadlineMs: options.deadlineMs ?? DEFAULT_DEADLINE_MS });
  const timers = [setInterval(() => cache.sweep(performance.now()), SWEEP_MS), setInterval(() => void uses.flush(), cacheOptions.reportMs ?? REPORT_MS)].map((timer) => timer.unref());
  const shown: CredentialCache = {
    ready() {
      follower.start();
      return follower.ready();
    },
    clear: () => cache.reset(false),
    report: () => uses.flush(),
    status: () => resolver.status(),
  };
  return {
    cache: shown,
    uses,
    resolve: (request: ResolveCredentialRequest, how: CallOptions = {}) => resolver.resolve(request, how),
    close() {
      for (const timer of timers) clearInterval(timer);
      follower.close(new CredentialClientError("CANCELLED", "the client is closed"));
      cache.reset(true);
    },
  };
}

/** The messages of a stream, one after the other; the stream ends with whoever stops reading them. */
async function* messages(open: () => Client, request: WatchCredentialsRequest, options: CredentialClientOptions, signal: AbortSignal | undefined): AsyncGenerator<WatchCredentialsResponse> {
  const told: WatchCredentialsResponse[] = [];
  let [failure, wake]: [CredentialClientError | undefined, () => void] = [undefined, () => {}];
  const stream = follow<WatchCredentialsResponse>(open, CredentialServiceService.watchCredentials as ClientMethod, request, options, {
    message: (message) => void (told.push(message), wake()),
    end: (error) => void ((failure = error), wake()),
  });
  const cancel = () => stream.cancel();
  signal?.addEventListener("abort", cancel, { once: true });
  if (signal?.aborted) cancel();
  try {
    for (;;) {
      yield* told.splice(0);
      if (told.length > 0) continue;
      if (failure) throw failure;
      await new Promise<void>((resolve) => (wake = resolve));
    }
  } finally {
    signal?.removeEventListener("abort", cancel);
    cancel();
  }
}
