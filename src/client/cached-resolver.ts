import type { ResolveCredentialRequest, ResolveCredentialResponse } from "../../gen/flow/credentials/v1/credential_service.ts";
import type { CallOptions } from "./credentials.ts";
import { CredentialClientError } from "./error.ts";
import type { Follower } from "./follower.ts";
import type { CacheLimits, Flight, SecretCache } from "./secret-cache.ts";
import type { UseCounter } from "./use-counter.ts";

/** How a client keeps secrets. */
export interface CacheOptions {
  /** Secrets kept at most, 1000 unless told otherwise; the one that was not used for longest goes first. */
  readonly entries?: number;
  /** Longest time a secret is used again without asking, ms; 300000 unless told otherwise, and at most an hour. The service may allow less. */
  readonly maxAgeMs?: number;
  /** How long secrets are trusted after the last sign that nothing has happened to them, ms; 15000 unless told otherwise, 1000 to 60000. */
  readonly maxSilenceMs?: number;
  /** How old the last such sign may be for calls with `failStatic`, while the service is away, ms; 0 (never) unless told otherwise, and at most an hour. */
  readonly failStaticMs?: number;
  /** Time between two reports of uses, ms; 30000 unless told otherwise. */
  readonly reportMs?: number;
}

/** What is known of a client's cache. */
export interface CacheStatus {
  /** Secrets kept now. */
  readonly entries: number;
  /** Calls that were answered from here, and those that had to ask. */
  readonly hits: number;
  readonly misses: number;
  /** Calls that were answered with what may have been out of date, because the service was away. */
  readonly stale: number;
  /** Uses that are still to be reported, and those that could not be. */
  readonly unreported: number;
  readonly lostReports: number;
  /** Whether it is being told what happens to credentials. */
  readonly following: boolean;
  /** How long ago everything was known that had happened, ms; infinite before the first sign. */
  readonly ageMs: number;
}

/** A client's cache. */
export interface CredentialCache {
  /** Resolves once it is told what happens to credentials, from when on secrets are kept. Begins it where no call has yet. */
  ready(): Promise<void>;
  /** Drops every secret. */
  clear(): void;
  /** Reports uses now, and not only when it is time. */
  report(): Promise<void>;
  status(): CacheStatus;
}

const bounded = (value: number | undefined, fallback: number, least: number, most: number): number => Math.min(most, Math.max(least, value ?? fallback));

/** The limits that options mean. */
export function limitsOf({ entries, maxAgeMs, maxSilenceMs, failStaticMs }: CacheOptions): CacheLimits {
  return {
    entries: bounded(entries, 1_000, 1, 100_000),
    maxAgeMs: bounded(maxAgeMs, 300_000, 0, 3_600_000),
    maxSilenceMs: bounded(maxSilenceMs, 15_000, 1_000, 60_000),
    failStaticMs: bounded(failStaticMs, 0, 0, 3_600_000),
  };
}

/** Reasons of a service that answers and yet is away. */
const AWAY: ReadonlySet<string> = new Set(["DATABASE_UNAVAILABLE", "AUDIT_UNAVAILABLE", "KEYS_UNAVAILABLE", "SHUTTING_DOWN", "DEADLINE_EXCEEDED", "OVERLOADED"]);

/** Whether the service was not there to say anything of the credential. */
const isAway = (error: unknown): boolean =>
  error instanceof CredentialClientError && (error.reason === undefined ? error.code === "UNAVAILABLE" || error.code === "DEADLINE_EXCEEDED" : AWAY.has(error.reason));

/** Statuses by which the service says that a secret is not to be had any more. */
const REFUSED: ReadonlySet<string> = new Set(["NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED", "FAILED_PRECONDITION", "DATA_LOSS"]);

/** How long the service is waited for where something older could be given, ms. */
const STALE_WAIT_MS = 2_000;

interface Shared {
  readonly flight: Flight;
  readonly answer: Promise<ResolveCredentialResponse>;
}

/** Makes the real call. */
type Ask = (request: ResolveCredentialRequest, call: CallOptions) => Promise<ResolveCredentialResponse>;

/** Resolves from a cache, or by one call for everyone who asks for the same at the same time. */
export class CachedResolver {
  readonly #cache: SecretCache;
  readonly #follower: Follower;
  readonly #uses: UseCounter;
  readonly #ask: Ask;
  readonly #deadlineMs: number;
  readonly #shared = new Map<string, Shared>();
  #hits = 0;
  #misses = 0;
  #stale = 0;

  constructor(parts: { readonly cache: SecretCache; readonly follower: Follower; readonly uses: UseCounter; readonly ask: Ask; readonly deadlineMs: number }) {
    this.#cache = parts.cache;
    this.#follower = parts.follower;
    this.#uses = parts.uses;
    this.#ask = parts.ask;
    this.#deadlineMs = parts.deadlineMs;
  }

  /** As the RPC; what is answered from here is shared and cannot be changed. */
  resolve(request: ResolveCredentialRequest, call: CallOptions): Promise<ResolveCredentialResponse> {
    // What is no text is refused where it is encoded.
    if (typeof request.credentialId !== "string") return this.#ask(request, call);
    const id = request.credentialId.toLowerCase();
    const kept = call.fresh === true ? undefined : this.#cache.lookup(id, performance.now());
    if (kept === undefined) return this.#miss(id, call);
    try {
      this.#uses.count(id, call.flowId, call.runId);
    } catch (error) {
      return Promise.reject(error);
    }
    this.#hits += 1;
    return Promise.resolve(kept);
  }

  status(): CacheStatus {
    return {
      entries: this.#cache.size, hits: this.#hits, misses: this.#misses, stale: this.#stale,
      unreported: this.#uses.waiting, lostReports: this.#uses.lost, following: this.#follower.connected, ageMs: performance.now() - this.#cache.asOf,
    };
  }

  async #miss(id: string, call: CallOptions): Promise<ResolveCredentialResponse> {
    this.#follower.start();
    this.#misses += 1;
    const under = this.#shared.get(id);
    const joined = under !== undefined && this.#cache.joinable(under.flight, performance.now()) && call.fresh !== true;
    const held = call.failStatic === true ? this.#cache.stale(id, performance.now()) : undefined;
    const waitMs = Math.min(call.deadlineMs ?? this.#deadlineMs, held === undefined ? Infinity : STALE_WAIT_MS);
    try {
      const answer = await waited(joined ? under.answer : this.#begin(id, call), waitMs, call.signal);
      // Whoever began it is in the audit trail already.
      if (joined) this.#uses.count(id, call.flowId, call.runId);
      return answer;
    } catch (error) {
      const stale = call.failStatic === true && isAway(error) ? this.#cache.stale(id, performance.now()) : undefined;
      if (stale === undefined) throw error;
      this.#uses.count(id, call.flowId, call.runId);
      this.#stale += 1;
      return stale;
    }
  }

  #begin(id: string, { flowId, runId, deadlineMs = 0, idempotent }: CallOptions): Promise<ResolveCredentialResponse> {
    const flight = this.#cache.begin(id, performance.now());
    // It is everybody's: one who goes away, or is in a hurry, must not end it for the others.
    const call: CallOptions = { deadlineMs: Math.max(deadlineMs, this.#deadlineMs), ...(flowId === undefined ? {} : { flowId }), ...(runId === undefined ? {} : { runId }), ...(idempotent === undefined ? {} : { idempotent }) };
    const answer = this.#ask({ credentialId: id }, call).then(
      (response) => this.#cache.end(id, flight, response, Date.now()) as ResolveCredentialResponse,
      (error: unknown) => {
        this.#cache.end(id, flight, undefined, Date.now());
        if (error instanceof CredentialClientError && error.reason !== undefined && REFUSED.has(error.code)) this.#cache.drop(id);
        throw error;
      },
    );
    const shared = { flight, answer };
    this.#shared.set(id, shared);
    const gone = () => {
      if (this.#shared.get(id) === shared) this.#shared.delete(id);
    };
    answer.then(gone, gone);
    return answer;
  }
}

/** An answer that is under way, for one of those who wait for it. */
async function waited<T>(answer: Promise<T>, deadlineMs: number, signal: AbortSignal | undefined): Promise<T> {
  const { promise: over, reject } = Promise.withResolvers<never>();
  const cancel = () => reject(new CredentialClientError("CANCELLED", "the call was cancelled"));
  const timer = setTimeout(() => reject(new CredentialClientError("DEADLINE_EXCEEDED", "the deadline passed")), deadlineMs);
  signal?.addEventListener("abort", cancel, { once: true });
  if (signal?.aborted) cancel();
  try {
    return await Promise.race([answer, over]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", cancel);
  }
}
