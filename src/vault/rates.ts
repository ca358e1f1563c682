import type { Action, Caller } from "../domain/access.ts";
import { fail } from "../domain/errors.ts";

/** What is limited together. */
export type RateClass = "resolve" | "test" | "write";

/** Calls in a second that one caller and one organization may make, by what they do; ten seconds' worth at once. */
export type Rates = Readonly<Record<RateClass, { readonly perCaller: number; readonly perOrganization: number }>>;

const TESTS = ["test_sftp_connection", "test_postgres_connection", "test_postgres_credential", "test_credential"] as const;
const WRITES = [
  "create_credential", "begin_authorization", "update_credential", "delete_credential", "rollback_credential",
  "create_service_account", "update_service_account", "delete_service_account", "set_service_account_access",
  "create_service_account_key", "update_service_account_key", "revoke_service_account_key",
] as const;

const CLASSES: ReadonlyMap<Action, RateClass> = new Map<Action, RateClass>([
  ["resolve_credential", "resolve"],
  ["watch_credentials", "resolve"],
  ["report_credential_uses", "resolve"],
  ...TESTS.map((action) => [action, "test"] as const),
  ...WRITES.map((action) => [action, "write"] as const),
]);

/** What a call is counted as; undefined where it is not counted. */
export const rateClassOf = (action: Action): RateClass | undefined => CLASSES.get(action);

/** How many seconds' worth of calls may come at once. */
const BURST_SECONDS = 10;

/** Callers and organizations that are counted at a time; the one that was quiet for longest is forgotten, and starts anew. */
const MAX_BUCKETS = 100_000;

interface Bucket {
  tokens: number;
  /** When they were counted, ms. */
  at: number;
}

/** Buckets of one rate, by name. */
class Buckets {
  readonly #perSecond: number;
  readonly #buckets = new Map<string, Bucket>();

  constructor(perSecond: number) {
    this.#perSecond = perSecond;
  }

  /** Time until there is a token, ms; 0 where there is one. */
  wait(name: string, now: number): number {
    const most = this.#perSecond * BURST_SECONDS;
    const bucket = this.#bucket(name, most, now);
    bucket.tokens = Math.min(most, bucket.tokens + ((now - bucket.at) * this.#perSecond) / 1000);
    bucket.at = now;
    return bucket.tokens >= 1 ? 0 : ((1 - bucket.tokens) * 1000) / this.#perSecond;
  }

  /** Takes a token that `wait` has found. */
  take(name: string): void {
    const bucket = this.#buckets.get(name);
    if (bucket) bucket.tokens -= 1;
  }

  #bucket(name: string, tokens: number, at: number): Bucket {
    const known = this.#buckets.get(name);
    // Where there is room nothing is about to be forgotten, and the order need not be kept.
    if (known && this.#buckets.size * 2 <= MAX_BUCKETS) return known;
    const bucket = known ?? { tokens, at };
    this.#buckets.delete(name);
    this.#buckets.set(name, bucket);
    if (this.#buckets.size > MAX_BUCKETS) this.#buckets.delete(this.#buckets.keys().next().value as string);
    return bucket;
  }
}

/**
 * Counts calls in this process: n replicas let n times as many pass, and a call costs no round trip. Reading what is known
 * of credentials is not counted, nor are operators' own tools.
 */
export class RateLimiter {
  readonly #callers: Readonly<Record<RateClass, Buckets>>;
  readonly #organizations: Readonly<Record<RateClass, Buckets>>;
  readonly #now: () => number;

  constructor(rates: Rates, now: () => number = () => performance.now()) {
    const of = (which: "perCaller" | "perOrganization") =>
      ({ resolve: new Buckets(rates.resolve[which]), test: new Buckets(rates.test[which]), write: new Buckets(rates.write[which]) }) as const;
    this.#callers = of("perCaller");
    this.#organizations = of("perOrganization");
    this.#now = now;
  }

  /** Counts a call. Throws RATE_LIMITED, with the time after which there is room, and then counts nothing. */
  count(caller: Caller, action: Action): void {
    const limited = rateClassOf(action);
    if (limited === undefined) return;
    const now = this.#now();
    const organization = caller.kind === "operator" ? "" : caller.organizationId;
    const name = `${organization}/${caller.kind}/${caller.id}`;
    const [own, shared] = [this.#callers[limited], this.#organizations[limited]];
    const waitMs = Math.max(own.wait(name, now), organization === "" ? 0 : shared.wait(organization, now));
    if (waitMs > 0) throw fail("RATE_LIMITED", { retryAfterMs: Math.ceil(waitMs) });
    own.take(name);
    if (organization !== "") shared.take(organization);
  }
}
