import { setTimeout as sleep } from "node:timers/promises";
import type { Rotation, UnreadableRow } from "../domain/rotation.ts";
import type { AuditEvent } from "../domain/access.ts";
import type { Ending, RotationStore } from "../store/rotations.ts";

/** A rotation is no longer this replica's: it was halted, taken back, ended, or another replica has taken it over. */
export class HoldLost extends Error {
  override readonly name = "HoldLost";
}

/** Most rows in a batch. */
const MAX_BATCH = 1_000;

/** Batches in a second under a throttle, so that the load is even. */
const THROTTLED_BATCHES = 10;

/** Longest pause without asking whether the rotation is still held, ms. */
const LONGEST_PAUSE_MS = 500;

/**
 * A rotation while this replica works on it: reports what was done, learns what the operator wants, and keeps the pace.
 * Every function but `release` throws HoldLost where the rotation is no longer this replica's.
 */
export class Hold {
  readonly rotation: Rotation;
  readonly holder: string;
  readonly #store: RotationStore;
  readonly #leaseMs: number;
  readonly #stop: AbortSignal;
  #rate: number | null;
  #moved = 0;
  #verified = 0;
  #failures: UnreadableRow[] = [];
  #reportedAt = performance.now();
  #freeAt = performance.now();

  constructor(store: RotationStore, rotation: Rotation, options: { readonly holder: string; readonly leaseMs: number; readonly stop: AbortSignal }) {
    this.#store = store;
    this.rotation = rotation;
    this.holder = options.holder;
    this.#leaseMs = options.leaseMs;
    this.#stop = options.stop;
    this.#rate = rotation.rowsPerSecond;
  }

  /** Rows that a batch may have now. */
  get batch(): number {
    return this.#rate === null ? MAX_BATCH : Math.min(MAX_BATCH, Math.max(1, Math.ceil(this.#rate / THROTTLED_BATCHES)));
  }

  /** Rows that did not open since the pass began. */
  get failures(): readonly UnreadableRow[] {
    return this.#failures;
  }

  /** Rows that were read back since the pass began. */
  get verified(): number {
    return this.#verified;
  }

  /** Begins to count anew. */
  beginPass(): void {
    this.#failures = [];
    this.#verified = 0;
  }

  moved(rows: number): void {
    this.#moved += rows;
  }

  read(rows: number): void {
    this.#verified += rows;
  }

  failed(row: UnreadableRow): void {
    this.#failures.push(row);
  }

  /** Waits as long as the limit asks for after so many rows, and reports in between. */
  async pace(rows: number): Promise<void> {
    const now = performance.now();
    if (this.#rate !== null) this.#freeAt = Math.max(now, this.#freeAt) + (rows / this.#rate) * 1000;
    if (this.#reportIsDue) await this.report();
    else if (this.#stop.aborted) throw new HoldLost();
    while (this.#rate !== null && performance.now() < this.#freeAt) {
      await this.wait(Math.min(LONGEST_PAUSE_MS, this.#freeAt - performance.now()));
    }
  }

  /** Waits, reports, and goes on holding. */
  async wait(ms: number): Promise<void> {
    await sleep(Math.max(0, ms), undefined, { signal: this.#stop }).catch(() => {});
    if (this.#stop.aborted || this.#reportIsDue) await this.report();
  }

  /** Reports what was done. */
  async report(): Promise<void> {
    const progress = this.#takeProgress();
    const orders = await this.#store.report(this.rotation.id, this.holder, progress, this.#leaseMs);
    if (orders === undefined || this.#stop.aborted) throw new HoldLost();
    this.#rate = orders.rowsPerSecond;
  }

  /** Ends a piece of work. */
  async conclude(state: Ending["state"], proof: { readonly digest: Buffer; readonly event: AuditEvent } | null = null): Promise<void> {
    const ending = { state, failures: this.#failures, proof: proof?.digest ?? null, progress: this.#takeProgress() };
    if (!(await this.#store.conclude(this.rotation.id, this.holder, ending, proof?.event ?? null))) throw new HoldLost();
  }

  /** Lets go, with what was done by then. */
  async release(): Promise<void> {
    if (this.#moved > 0) await this.#store.report(this.rotation.id, this.holder, this.#takeProgress(), this.#leaseMs);
    await this.#store.release(this.rotation.id, this.holder);
  }

  get #reportIsDue(): boolean {
    return performance.now() - this.#reportedAt >= Math.min(this.#leaseMs / 3, LONGEST_PAUSE_MS);
  }

  #takeProgress(): Ending["progress"] {
    const moved = this.#moved;
    this.#moved = 0;
    this.#reportedAt = performance.now();
    return { moved, verified: this.#verified, failed: this.#failures.length };
  }
}
