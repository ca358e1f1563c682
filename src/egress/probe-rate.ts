/** How often each of many may do something: so often at once, and then one more per so many milliseconds. */
export interface Rates {
  /** Takes one turn; false where there is none left. */
  take(who: string): boolean;
  /** Gives back a turn that was taken and not used. */
  giveBack(who: string): void;
  /** Of how many something is remembered. */
  readonly size: number;
}

/** Bounds of one, and the clock. */
export interface RateOptions {
  /** Turns that can be saved up. */
  readonly burst: number;
  /** Time in which one turn comes back, ms. */
  readonly refillMs: number;
  /** A monotonic clock, ms. */
  readonly now: () => number;
}

/** Token buckets, of which only those that are not full are kept. */
export function createRates({ burst, refillMs, now }: RateOptions): Rates {
  // When each bucket is full again, least recently used first. A bucket is forgotten no later than it takes to fill an empty one.
  const fullAt = new Map<string, number>();
  return {
    take(who) {
      const time = now();
      for (const [each, full] of fullAt) {
        if (full > time) break;
        fullAt.delete(each);
      }
      const full = Math.max(fullAt.get(who) ?? time, time) + refillMs;
      if (full - time > burst * refillMs) return false;
      fullAt.delete(who);
      fullAt.set(who, full);
      return true;
    },
    giveBack(who) {
      const full = fullAt.get(who);
      if (full !== undefined) fullAt.set(who, full - refillMs);
    },
    get size() {
      return fullAt.size;
    },
  };
}
