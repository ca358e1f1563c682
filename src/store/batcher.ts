import { type CredentialError, fail, type Reason } from "../domain/errors.ts";
import { currentSpan, outside, type Span } from "../trace.ts";
import type { LaneState } from "./lane.ts";

/** One item that waits for its answer. */
export interface Waiting<Item, Answer> {
  readonly item: Item;
  /** When it came, on the clock of `performance.now()`, ms. */
  readonly since: number;
  /** The span that it waits in. */
  readonly span: Span | undefined;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: CredentialError) => void;
}

/** How items are gathered and sent. */
export interface BatcherOptions<Item, Answer> {
  /** Items that may wait; more are refused. */
  readonly queue: number;
  /** Items that are sent together at most. */
  readonly batch: number;
  /** Batches under way at once. More would only make them smaller. */
  readonly inFlight: number;
  /** Why an item is refused that the queue has no room for. */
  readonly full: Reason;
  /** Why the items that wait are refused while nothing can be sent. */
  readonly down: Reason;
  /** Whether a batch may be sent now. */
  readonly state: () => LaneState;
  /** Settles every item of a batch; never rejects. */
  readonly send: (batch: readonly Waiting<Item, Answer>[]) => Promise<void>;
}

/** Items that do not wait for more: PostgreSQL works on them while this process reads the requests that came with theirs. */
const ENOUGH = 32;

/**
 * Sends items that wait together. An idle one sends at the end of the event loop's turn, or where enough of them wait, so a
 * lone item waits for nobody, and under load the batches grow by themselves.
 */
export class Batcher<Item, Answer> {
  readonly #options: BatcherOptions<Item, Answer>;
  #waiting: Waiting<Item, Answer>[] = [];
  readonly #sending = new Set<readonly Waiting<Item, Answer>[]>();
  #scheduled = false;
  #closing: (() => void) | undefined;

  constructor(options: BatcherOptions<Item, Answer>) {
    this.#options = options;
  }

  /** The answer to an item. Rejects with CredentialError only: SHUTTING_DOWN, the reasons of the options, or what `send` says. */
  submit(item: Item): Promise<Answer> {
    if (this.#closing !== undefined) return Promise.reject(fail("SHUTTING_DOWN"));
    if (this.#waiting.length >= this.#options.queue) return Promise.reject(fail(this.#options.full));
    return new Promise((resolve, reject) => {
      this.#waiting.push({ item, since: performance.now(), span: currentSpan(), resolve, reject });
      if (this.#waiting.length < ENOUGH) this.schedule();
      else outside(() => this.#flush());
    });
  }

  /** How many items have not been sent yet. */
  get queued(): number {
    return this.#waiting.length;
  }

  /** How many items have no answer yet, and how long the oldest of them has waited, ms. */
  get load(): { readonly waiting: number; readonly oldestMs: number } {
    let [waiting, since] = [this.#waiting.length, this.#waiting[0]?.since ?? Number.POSITIVE_INFINITY];
    for (const batch of this.#sending) {
      waiting += batch.length;
      since = Math.min(since, batch[0]?.since ?? since);
    }
    return { waiting, oldestMs: waiting === 0 ? 0 : performance.now() - since };
  }

  /** Looks again, at the end of this turn, whether something can be sent. */
  schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    // What is sent is everyone's, and no part of the trace of whoever came first.
    outside(() =>
      setImmediate(() => {
        this.#scheduled = false;
        this.#flush();
      }),
    );
  }

  /** Takes nothing more, and waits for what was taken. */
  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#closing = resolve;
      this.schedule();
    });
  }

  #flush(): void {
    const { batch, inFlight, down, state } = this.#options;
    if (state() === "down" || state() === "closed") {
      for (const { reject } of this.#waiting.splice(0)) reject(fail(down));
    }
    while (this.#waiting.length > 0 && this.#sending.size < inFlight && state() === "up") {
      void this.#send(this.#waiting.splice(0, batch));
    }
    if (this.#waiting.length === 0 && this.#sending.size === 0) this.#closing?.();
  }

  async #send(batch: readonly Waiting<Item, Answer>[]): Promise<void> {
    this.#sending.add(batch);
    await this.#options.send(batch);
    this.#sending.delete(batch);
    this.#flush();
  }
}
