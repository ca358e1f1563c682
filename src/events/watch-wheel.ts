/** Parts of a turn; what is in one comes up together. */
const SLOTS = 32;

/**
 * Things that each come up once in a period, spread over it, so that what is done for all of them is done for a few at a
 * time and costs the same whenever it is looked at.
 */
export class Wheel<T> {
  readonly #slots: readonly Set<T>[] = Array.from({ length: SLOTS }, () => new Set<T>());
  readonly #slotMs: number;
  readonly #places = new Map<T, Set<T>>();
  #next = 0;
  #at = 0;
  #turnedAt: number;

  constructor(periodMs: number, nowMs: number) {
    this.#slotMs = periodMs / SLOTS;
    this.#turnedAt = nowMs;
  }

  /** Adds one; it comes up within a period. */
  add(item: T): void {
    const slot = this.#slots[this.#next++ % SLOTS] as Set<T>;
    slot.add(item);
    this.#places.set(item, slot);
  }

  delete(item: T): void {
    this.#places.get(item)?.delete(item);
    this.#places.delete(item);
  }

  /** What has come up since this was last asked. */
  *due(nowMs: number): Generator<T> {
    const passed = Math.floor((nowMs - this.#turnedAt) / this.#slotMs);
    if (passed <= 0) return;
    this.#turnedAt += passed * this.#slotMs;
    for (let n = 0; n < Math.min(passed, SLOTS); n++) {
      this.#at = (this.#at + 1) % SLOTS;
      yield* this.#slots[this.#at] as Set<T>;
    }
  }
}
