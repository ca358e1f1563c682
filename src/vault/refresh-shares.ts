/** What an organization may have of the sweep. */
export interface ShareOptions {
  /** Renewals at a time. */
  readonly most: number;
  /** Pause after one that could not be begun, ms; doubled each time. */
  readonly restMs: number;
  /** Longest such pause, ms. */
  readonly maxRestMs: number;
  /** Milliseconds on a clock that never goes back. */
  readonly now: () => number;
}

interface Share {
  running: number;
  /** Renewals in a row that could not be begun. */
  failures: number;
  restUntil: number;
}

/**
 * Keeps one organization from taking up the sweep. Where the database does not take what belongs to it, because its rows are
 * locked or its audit trail is broken, it is passed over for a while; nobody else has to wait for it.
 */
export class Shares {
  readonly #options: ShareOptions;
  readonly #shares = new Map<string, Share>();

  constructor(options: ShareOptions) {
    this.#options = options;
  }

  /** Organizations of which nothing is to be begun now. */
  passedOver(): string[] {
    const now = this.#options.now();
    return [...this.#shares].filter(([, { running, restUntil }]) => running >= this.#options.most || now < restUntil).map(([organizationId]) => organizationId);
  }

  /** Notes that a renewal is under way. */
  started(organizationId: string): void {
    const share = this.#shares.get(organizationId) ?? { running: 0, failures: 0, restUntil: 0 };
    share.running++;
    this.#shares.set(organizationId, share);
  }

  /** Notes that one is over, and whether it was begun at all. */
  ended(organizationId: string, begun: boolean): void {
    const share = this.#shares.get(organizationId);
    if (share === undefined) return;
    const { restMs, maxRestMs, now } = this.#options;
    share.running--;
    if (begun) [share.failures, share.restUntil] = [0, 0];
    // Several that were under way together are one failure.
    else if (now() >= share.restUntil) share.restUntil = now() + Math.min(maxRestMs, restMs * 2 ** Math.min(share.failures++, 20));
    if (share.running === 0 && share.failures === 0) this.#shares.delete(organizationId);
  }
}
