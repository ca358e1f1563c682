import { setTimeout as sleep } from "node:timers/promises";
import type { ProviderName } from "../domain/credential.ts";
import { errorFields, identified, type Log, newRequestId } from "../log.ts";
import type { DueLease, Quota } from "../store/refresh.ts";
import type { Store } from "../store/store.ts";
import type { Refresher } from "./refresh.ts";
import { Shares } from "./refresh-shares.ts";

/** What the sweep needs. */
export interface SweepDeps {
  readonly store: Pick<Store, "refresh">;
  readonly refresher: Pick<Refresher, "renew">;
  readonly log: Log;
  /** Providers whose grants can be renewed. */
  readonly providers: readonly ProviderName[];
  /** Pause between two looks where nothing is due, ms. */
  readonly idleMs: number;
  /** Renewals of one provider at a time. */
  readonly concurrency: number;
  /** Renewals of one provider that are begun in a second. */
  readonly perSecond: number;
  readonly leaseMs: number;
}

/** The part of a provider's renewals at a time that one organization may have. */
const SHARE = 0.5;

/** Pauses after an organization's renewals could not be begun, ms. */
const REST = { restMs: 2_000, maxRestMs: 60_000 } as const;

/** Looks in a second while something is due; each takes its part of what a second allows. */
const LOOKS_PER_SECOND = 5;

/**
 * Looks after whatever is due: tokens that end soon, grants that nobody uses, renewals that were cut off. Takes no more than it
 * can begin at once, at an even pace, so that thousands that are due together reach a provider as a steady trickle. What does
 * not open, is refused or cannot even be begun is put off, and keeps nobody else waiting.
 */
export class Sweep {
  readonly #deps: SweepDeps;
  readonly #stopping = new AbortController();
  readonly #running = new Map<ProviderName, number>();
  readonly #shares: Shares;
  readonly #loop: Promise<void>;

  constructor(deps: SweepDeps) {
    this.#deps = deps;
    this.#shares = new Shares({ most: Math.ceil(deps.concurrency * SHARE), ...REST, now: () => performance.now() });
    this.#loop = this.#run();
  }

  /** Takes nothing more; what was taken is the refresher's to finish. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#loop;
  }

  async #run(): Promise<void> {
    const { idleMs, log } = this.#deps;
    let failing = false;
    // Replicas that start together do not look together.
    await sleep(idleMs * Math.random(), undefined, { signal: this.#stopping.signal }).catch(() => {});
    for (let turn = 0; !this.#stopping.signal.aborted; turn++) {
      const started = performance.now();
      let pause = idleMs * (0.75 + Math.random() / 2);
      try {
        const taken = await this.#look(turn);
        failing = false;
        if (taken) pause = Math.max(0, 1000 / LOOKS_PER_SECOND - (performance.now() - started));
      } catch (error) {
        if (!failing) identified(log).warn(errorFields(error), "what is due for renewal cannot be read");
        failing = true;
      }
      await sleep(pause, undefined, { signal: this.#stopping.signal }).catch(() => {});
    }
  }

  /** Begins what may be begun now; whether there may be more. */
  async #look(turn: number): Promise<boolean> {
    const quotas = this.#quotas(turn).filter(({ limit }) => limit > 0);
    const leases = quotas.length > 0 ? await this.#deps.store.refresh.claimDue(quotas, this.#deps.leaseMs, this.#shares.passedOver()) : [];
    for (const lease of leases) void this.#begin(lease);
    return leases.length > 0 || this.#running.size > 0;
  }

  #quotas(turn: number): Quota[] {
    const { providers, concurrency, perSecond } = this.#deps;
    // The part of a second's renewals that this look may begin: whole numbers that add up to it.
    const share = Math.floor(((turn + 1) * perSecond) / LOOKS_PER_SECOND) - Math.floor((turn * perSecond) / LOOKS_PER_SECOND);
    return providers.map((provider) => ({ provider, limit: Math.min(share, concurrency - (this.#running.get(provider) ?? 0)) }));
  }

  async #begin(lease: DueLease): Promise<void> {
    const { provider, organizationId } = lease;
    this.#shares.started(organizationId);
    this.#running.set(provider, (this.#running.get(provider) ?? 0) + 1);
    this.#shares.ended(organizationId, await this.#deps.refresher.renew(lease, newRequestId()));
    const left = (this.#running.get(provider) ?? 1) - 1;
    if (left > 0) this.#running.set(provider, left);
    else this.#running.delete(provider);
  }
}
