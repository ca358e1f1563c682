import { UnreadableError } from "../unreadable.ts";

/** Failures in a row after which a service is left alone. */
const FAILURES = 5;

/** How long it is left alone, ms. */
const OPEN_MS = 5_000;

/** The service has failed so often that it is not asked now. */
export class BreakerOpen extends Error {
  override readonly name = "BreakerOpen";
}

/**
 * Leaves a service alone that does not answer, so that calls fail at once and do not queue up behind its timeout. After a
 * while one call is let through to try it. That bytes are not authentic is an answer, and no failure of the service.
 */
export class Breaker {
  readonly #now: () => number;
  #failures = 0;
  #closedFrom = 0;
  #trying = false;

  /** @param now milliseconds on a clock that never goes back */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Runs a call. Throws BreakerOpen without running it while the service is left alone. */
  async run<T>(call: () => Promise<T>): Promise<T> {
    const tries = this.#failures >= FAILURES;
    if (tries && (this.#trying || this.#now() < this.#closedFrom)) throw new BreakerOpen();
    this.#trying ||= tries;
    try {
      const result = await call();
      this.#failures = 0;
      return result;
    } catch (error) {
      if (error instanceof UnreadableError) this.#failures = 0;
      else if (++this.#failures >= FAILURES) this.#closedFrom = this.#now() + OPEN_MS;
      throw error;
    } finally {
      if (tries) this.#trying = false;
    }
  }
}
