import { type CredentialEvent, CredentialEventKind, type ResolveCredentialResponse } from "../../gen/flow/credentials/v1/credential_service.ts";
import { CredentialStatus } from "../../gen/flow/credentials/v1/resources.ts";

/** Limits of the cache, all times in ms. */
export interface CacheLimits {
  readonly entries: number;
  readonly maxAgeMs: number;
  readonly maxSilenceMs: number;
  readonly failStaticMs: number;
}

/** A resolve under way, and what was told of its credential meanwhile. */
export interface Flight {
  /** When it was asked for. */
  readonly askedAt: number;
  /** Whether something was told since it began, so that nobody else may wait for it. */
  touched: boolean;
  /** The lowest version of the secret that may be kept; undefined where nothing may. */
  needs: bigint | undefined;
}

interface Entry {
  readonly response: ResolveCredentialResponse;
  readonly askedAt: number;
  /** Until when it is used, while the watch is up to date. */
  readonly freshUntil: number;
  /** Until when it is there at all. */
  readonly keptUntil: number;
}

/** How long before its end an access token is not used any more, ms. */
const TOKEN_MARGIN_MS = 60_000;

/** Events after which a secret of the same version is still good; others end it whatever its version. */
const HARMLESS: ReadonlySet<number> = new Set([
  CredentialEventKind.CREDENTIAL_EVENT_KIND_CREATED, CredentialEventKind.CREDENTIAL_EVENT_KIND_UPDATED, CredentialEventKind.CREDENTIAL_EVENT_KIND_ROTATED,
]);

/** The version of its secret that an event leaves good; undefined where it leaves none. */
function goodAfter({ kind, status, secretVersion }: CredentialEvent): bigint | undefined {
  if (HARMLESS.has(kind)) return secretVersion;
  const usable = status !== CredentialStatus.CREDENTIAL_STATUS_REAUTH_REQUIRED;
  return kind === CredentialEventKind.CREDENTIAL_EVENT_KIND_STATUS_CHANGED && usable ? secretVersion : undefined;
}

/** Makes an answer that several callers share unchangeable. */
function frozen<T>(value: T): T {
  if (typeof value !== "object" || value === null || value instanceof Date || ArrayBuffer.isView(value)) return value;
  for (const member of Object.values(value)) frozen(member);
  return Object.freeze(value);
}

/**
 * Secrets by their credentials' ids, by the monotonic clock of this process. One is given out while its time lasts and
 * while it is known that nothing has happened to it: everything that was committed before `asOf` has been told. Holds
 * nothing before it is told what happens.
 */
export class SecretCache {
  readonly #limits: CacheLimits;
  readonly #entries = new Map<string, Entry>();
  readonly #flights = new Map<string, Set<Flight>>();
  #followed = false;
  #asOf = -Infinity;

  constructor(limits: CacheLimits) {
    this.#limits = limits;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Until when everything is known that happened, on the clock of `performance.now()`. */
  get asOf(): number {
    return this.#asOf;
  }

  /** A secret that may be used; undefined where there is none. */
  lookup(id: string, now: number): ResolveCredentialResponse | undefined {
    const entry = this.#entries.get(id);
    if (entry === undefined || now >= entry.freshUntil || now - Math.max(entry.askedAt, this.#asOf) > this.#limits.maxSilenceMs) return undefined;
    this.#entries.delete(id);
    this.#entries.set(id, entry);
    return entry.response;
  }

  /** A secret that may be used although nothing is known since a while, where the service is away. */
  stale(id: string, now: number): ResolveCredentialResponse | undefined {
    const entry = this.#entries.get(id);
    if (entry === undefined || now >= entry.keptUntil || now - Math.max(entry.askedAt, this.#asOf) > this.#limits.failStaticMs) return undefined;
    return entry.response;
  }

  /** Notes that a secret is being asked for. */
  begin(id: string, now: number): Flight {
    const flight: Flight = { askedAt: now, touched: false, needs: this.#followed ? 0n : undefined };
    const flights = this.#flights.get(id) ?? new Set<Flight>();
    this.#flights.set(id, flights.add(flight));
    return flight;
  }

  /** Whether what somebody else asked for is as good as asking now. */
  joinable({ touched, askedAt }: Flight, now: number): boolean {
    return !touched && now - askedAt <= this.#limits.maxSilenceMs;
  }

  /**
   * Ends what was begun, and keeps its answer, unless something was told meanwhile that it may be from before of. `wallNow` is the
   * clock that the end of an access token is told by.
   */
  end(id: string, flight: Flight, response: ResolveCredentialResponse | undefined, wallNow: number): ResolveCredentialResponse | undefined {
    const flights = this.#flights.get(id);
    flights?.delete(flight);
    if (flights?.size === 0) this.#flights.delete(id);
    if (response === undefined || flight.needs === undefined || response.secretVersion < flight.needs) return response;
    const { maxAgeMs, failStaticMs, entries } = this.#limits;
    const endsAt = response.expiresAt === undefined ? Infinity : flight.askedAt + response.expiresAt.getTime() - wallNow;
    const freshUntil = Math.min(flight.askedAt + Math.min(response.cacheSeconds * 1000, maxAgeMs), endsAt - TOKEN_MARGIN_MS);
    const known = this.#entries.get(id);
    if (freshUntil <= flight.askedAt || (known && known.response.secretVersion > response.secretVersion)) return response;
    this.#entries.delete(id);
    this.#entries.set(id, { response: frozen(response), askedAt: flight.askedAt, freshUntil, keptUntil: Math.min(endsAt, freshUntil + failStaticMs) });
    if (this.#entries.size > entries) this.#entries.delete(this.#entries.keys().next().value as string);
    return response;
  }

  /** From now on everything is told that happens. */
  follow(): void {
    this.#followed = true;
  }

  /** Everything before that time has been told. */
  progress(asOf: number): void {
    this.#asOf = Math.max(this.#asOf, asOf);
  }

  /** Something happened to a credential. */
  told(event: CredentialEvent): void {
    const { credentialId: id } = event;
    const good = goodAfter(event);
    const entry = this.#entries.get(id);
    if (entry && (good === undefined || entry.response.secretVersion < good)) this.#entries.delete(id);
    for (const flight of this.#flights.get(id) ?? []) {
      flight.touched = true;
      if (flight.needs !== undefined) flight.needs = good === undefined ? undefined : good > flight.needs ? good : flight.needs;
    }
  }

  /** Drops one secret. */
  drop(id: string): void {
    this.#entries.delete(id);
  }

  /** Drops everything, what is under way too. `lost` where it is not told any more what happens. */
  reset(lost: boolean): void {
    if (lost) this.#followed = false;
    this.#entries.clear();
    for (const flight of [...this.#flights.values()].flatMap((flights) => [...flights])) Object.assign(flight, { touched: true, needs: undefined });
  }

  /** Drops what has had its time. */
  sweep(now: number): void {
    for (const [id, { keptUntil }] of this.#entries) if (now >= keptUntil) this.#entries.delete(id);
  }
}
