import { setTimeout as sleep } from "node:timers/promises";
import type { Call } from "../domain/access.ts";
import { fail } from "../domain/errors.ts";
import type { StoredCredential } from "../store/store.ts";
import type { Lease } from "../store/refresh.ts";
import { traced } from "../trace.ts";
import { attempt, type AttemptDeps, nameOf, NotBegun } from "./refresh-attempt.ts";
import { persistently } from "./refresh-io.ts";

/** Which credential. */
export interface CredentialPlace {
  readonly organizationId: string;
  readonly credentialId: string;
}

/** Renews access tokens. */
export interface TokenRenewal {
  /**
   * The credential once it was renewed, by whichever process of the fleet, or as it stands where it is not due or cannot be
   * renewed now. Undefined where it is gone. Waits no longer than the call; the renewal goes on without it.
   */
  renewed(place: CredentialPlace, call: Pick<Call, "requestId" | "signal">): Promise<StoredCredential | undefined>;
}

/** How long it may take to say in the database what was given up, ms. */
const ENDING_MS = 2_000;

/** One renewal for all who wait for it. */
interface Flight {
  readonly outcome: Promise<StoredCredential | undefined>;
  /** How many wait. */
  waiting: number;
  /** Tells that nobody does. */
  leave(): void;
}

/** Pause until somebody else's renewal is looked at again, ms; shortened at random. */
const LOOK_MS = 80;

/**
 * Renews each credential once in the fleet: callers in this process share one flight, and flights of several processes meet
 * at the lease, where one renews and the others wait and read again.
 */
export class Refresher implements TokenRenewal {
  readonly #deps: Omit<AttemptDeps, "ended">;
  readonly #ended = new AbortController();
  readonly #flights = new Map<string, Flight>();
  readonly #running = new Set<Promise<unknown>>();

  constructor(deps: Omit<AttemptDeps, "ended">) {
    this.#deps = deps;
  }

  async renewed(place: CredentialPlace, { requestId, signal }: Pick<Call, "requestId" | "signal">): Promise<StoredCredential | undefined> {
    signal.throwIfAborted();
    const given = Promise.withResolvers<never>();
    const giveUp = () => given.reject(signal.reason);
    signal.addEventListener("abort", giveUp, { once: true });
    const flight = this.#flight(place, requestId);
    flight.waiting++;
    try {
      return await Promise.race([flight.outcome, given.promise]);
    } finally {
      signal.removeEventListener("abort", giveUp);
      if (--flight.waiting === 0) flight.leave();
    }
  }

  /** Renews under a lease that was taken before. Resolves however that ends, with whether it was begun. */
  async renew(lease: Lease, requestId: string): Promise<boolean> {
    return this.#tracked(this.#attempt(lease, requestId)).then(() => true, (error: unknown) => !(error instanceof NotBegun));
  }

  /** Waits for what is under way, for so long, ms; what then has no answer yet is given up, and its journal says so. */
  async close(graceMs: number): Promise<void> {
    const over = new AbortController();
    const timer = sleep(graceMs, undefined, { signal: over.signal }).catch(() => {});
    const idle = async () => {
      while (this.#running.size > 0) await Promise.allSettled(this.#running);
    };
    await Promise.race([idle(), timer]);
    over.abort();
    this.#ended.abort(fail("SHUTTING_DOWN"));
    await Promise.race([idle(), sleep(ENDING_MS, undefined, { ref: false })]);
  }

  #flight(place: CredentialPlace, requestId: string): Flight {
    const name = nameOf(place);
    const running = this.#flights.get(name);
    if (running !== undefined) return running;
    const unwanted = new AbortController();
    const forget = () => {
      if (this.#flights.get(name) === flight) this.#flights.delete(name);
    };
    const leave = () => {
      // Whoever comes now must not wait for what may not be done any more.
      forget();
      unwanted.abort(fail("CANCELLED"));
    };
    const flight: Flight = { waiting: 0, leave, outcome: this.#tracked(this.#fly(place, requestId, unwanted.signal)).finally(forget) };
    // Everyone who waits may have left before it fails.
    flight.outcome.catch(() => {});
    this.#flights.set(name, flight);
    return flight;
  }

  /** `unwanted` aborts when nobody waits any longer: what has not begun by then need not begin. */
  async #fly({ organizationId, credentialId }: CredentialPlace, requestId: string, unwanted: AbortSignal): Promise<StoredCredential | undefined> {
    const { store, breaker, leaseMs } = this.#deps;
    let tried = false;
    for (;;) {
      this.#ended.signal.throwIfAborted();
      const mayTake = !tried && breaker.mayTry(nameOf({ organizationId, credentialId }));
      const look = () => store.refresh.claim(organizationId, credentialId, leaseMs, mayTake, unwanted);
      // Where nothing is taken it does no harm to look again; a lease whose answer was lost would be held by nobody.
      const claim = mayTake ? await look() : await persistently(this.#ended.signal, look);
      if (claim?.lease !== undefined) {
        await this.#attempt(claim.lease, requestId).catch((error: unknown) => {
          throw error instanceof NotBegun ? error.cause : error;
        });
        tried = true;
      } else if (claim?.held && mayTake) {
        unwanted.throwIfAborted();
        await sleep(LOOK_MS * (0.5 + Math.random() / 2), undefined, { signal: this.#ended.signal }).catch(() => {});
      } else {
        return claim?.stored;
      }
    }
  }

  #attempt(lease: Lease, requestId: string): Promise<void> {
    return traced("renewal", "internal", () => attempt({ ...this.#deps, ended: this.#ended.signal }, lease, requestId), () => ({ "flow.request_id": requestId }));
  }

  #tracked<T>(work: Promise<T>): Promise<T> {
    const entry: Promise<T> = work.finally(() => this.#running.delete(entry));
    entry.catch(() => {});
    this.#running.add(entry);
    return entry;
  }
}
