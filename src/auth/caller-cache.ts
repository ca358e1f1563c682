import type { Caller } from "../domain/access.ts";

/** A caller, and until when the proof of it holds, ms since the epoch. */
export interface Proven {
  readonly caller: Caller;
  readonly untilMs: number;
}

/**
 * Callers by the digest of the token that proved them, so that a token is verified once. Bounded: the entry that was
 * not used for longest goes first. Refusals are not kept, or a flood of bad tokens would push the good ones out.
 */
export class CallerCache {
  readonly #maxEntries: number;
  readonly #now: () => number;
  readonly #proven = new Map<string, Proven>();
  readonly #flights = new Map<string, Promise<Proven>>();

  constructor(options: { readonly maxEntries: number; readonly now: () => number }) {
    this.#maxEntries = options.maxEntries;
    this.#now = options.now;
  }

  /** Entries held now. */
  get size(): number {
    return this.#proven.size;
  }

  /** The caller that a digest is known to stand for; undefined where it is not known, or no longer. */
  get(digest: string): Caller | undefined {
    return this.proven(digest)?.caller;
  }

  /** The same with the end of its proof. */
  proven(digest: string): Proven | undefined {
    const known = this.#proven.get(digest);
    if (!known) return undefined;
    const holds = known.untilMs > this.#now();
    // Where there is room nothing is about to go, and the order need not be kept.
    if (holds && this.#proven.size * 2 <= this.#maxEntries) return known;
    this.#proven.delete(digest);
    if (!holds) return undefined;
    this.#proven.set(digest, known);
    return known;
  }

  /**
   * Verifies and remembers; whoever asks for the same digest meanwhile shares the one verification and its outcome. The
   * proof holds from when it was asked for, so whoever comes after its end asks anew, even where it is still under way.
   */
  async prove(digest: string, verify: () => Promise<Proven>): Promise<Proven> {
    const running = this.#flights.get(digest);
    if (!running) return this.#fly(digest, verify);
    const cameAtMs = this.#now();
    const proven = await running;
    return proven.untilMs > cameAtMs ? proven : this.prove(digest, verify);
  }

  #fly(digest: string, verify: () => Promise<Proven>): Promise<Proven> {
    const flight = verify()
      .then((proven) => {
        this.#keep(digest, proven);
        return proven;
      })
      .finally(() => this.#flights.delete(digest));
    this.#flights.set(digest, flight);
    return flight;
  }

  #keep(digest: string, proven: Proven): void {
    if (proven.untilMs <= this.#now()) return;
    this.#proven.set(digest, { caller: Object.freeze(proven.caller), untilMs: proven.untilMs });
    if (this.#proven.size <= this.#maxEntries) return;
    for (const oldest of this.#proven.keys()) {
      this.#proven.delete(oldest);
      return;
    }
  }
}
