/** Limits of a cache. */
export interface CacheLimits {
  /** Most entries; the one that was not used for longest goes first. */
  readonly maxEntries: number;
  /** Longest time an entry is given out, in ms. */
  readonly maxAgeMs: number;
  /** Milliseconds on a clock that never goes back. */
  readonly now: () => number;
}

/** A cache that is bounded in size and in age. Using an entry keeps it from being displaced, and never makes it younger. */
export class AgedCache<T> {
  readonly #limits: CacheLimits;
  /** Least recently used first. */
  readonly #entries = new Map<string, { readonly value: T; readonly readAt: number }>();

  constructor(limits: CacheLimits) {
    this.#limits = limits;
  }

  /** The value under a name, unless it is too old. */
  get(name: string): T | undefined {
    const entry = this.#entries.get(name);
    if (!entry) return undefined;
    const young = this.#limits.now() - entry.readAt < this.#limits.maxAgeMs;
    // Where there is room nothing is about to be displaced, and the order need not be kept.
    if (young && this.#entries.size * 2 <= this.#limits.maxEntries) return entry.value;
    this.#entries.delete(name);
    if (!young) return undefined;
    this.#entries.set(name, entry);
    return entry.value;
  }

  /** Keeps a value whose age counts from `readAt`. */
  set(name: string, value: T, readAt: number): void {
    this.#entries.delete(name);
    this.#entries.set(name, { value, readAt });
    if (this.#entries.size <= this.#limits.maxEntries) return;
    for (const oldest of this.#entries.keys()) {
      this.#entries.delete(oldest);
      return;
    }
  }

  /** Forgets every name that starts with a prefix, which may be empty. */
  deletePrefix(prefix: string): void {
    for (const name of this.#entries.keys()) if (name.startsWith(prefix)) this.#entries.delete(name);
  }
}
