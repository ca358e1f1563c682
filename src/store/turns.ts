/** How many may work at a time. */
export interface TurnLimits {
  readonly total: number;
  /** Of them, those of one organization. */
  readonly perOrganization: number;
}

/** How a turn is waited for. */
export interface TurnOptions {
  /** Goes before the others of its organization: something is lost if it does not get through. */
  readonly urgent?: boolean;
  /** Ends the wait; what has begun is not ended by it. */
  readonly signal?: AbortSignal | undefined;
}

interface Line {
  running: number;
  readonly urgent: (() => void)[];
  readonly others: (() => void)[];
}

/**
 * Lets a few work at a time, and the others wait for as long as they like. Organizations take turns: one whose rows are locked
 * keeps its share of the connections waiting and no more.
 */
export class Turns {
  readonly #limits: TurnLimits;
  /** By organization, the one that had its turn longest ago first. */
  readonly #lines = new Map<string, Line>();
  #running = 0;

  constructor(limits: TurnLimits) {
    this.#limits = limits;
  }

  /** Works when it is its turn. Rejects with the signal's reason where that comes first. */
  async run<T>(organizationId: string, work: () => Promise<T>, { urgent = false, signal }: TurnOptions = {}): Promise<T> {
    await this.#turn(organizationId, urgent, signal);
    try {
      return await work();
    } finally {
      this.#end(organizationId);
    }
  }

  #turn(organizationId: string, urgent: boolean, signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted();
    const line = this.#lines.get(organizationId) ?? { running: 0, urgent: [], others: [] };
    this.#lines.set(organizationId, line);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const queue = urgent ? line.urgent : line.others;
    const begin = () => {
      signal?.removeEventListener("abort", leave);
      resolve();
    };
    const leave = () => {
      queue.splice(queue.indexOf(begin), 1);
      this.#forget(organizationId, line);
      reject(signal?.reason);
    };
    signal?.addEventListener("abort", leave, { once: true });
    queue.push(begin);
    this.#next();
    return promise;
  }

  #end(organizationId: string): void {
    this.#running--;
    const line = this.#lines.get(organizationId);
    if (line !== undefined) {
      line.running--;
      this.#forget(organizationId, line);
    }
    this.#next();
  }

  #forget(organizationId: string, { running, urgent, others }: Line): void {
    if (running + urgent.length + others.length === 0) this.#lines.delete(organizationId);
  }

  #next(): void {
    // No more than `total / perOrganization` of them have their share already and are passed over.
    for (const [organizationId, line] of this.#lines) {
      if (this.#running >= this.#limits.total) return;
      if (line.running >= this.#limits.perOrganization) continue;
      const begin = line.urgent.shift() ?? line.others.shift();
      if (begin === undefined) continue;
      line.running++;
      this.#running++;
      // To the end, where this loop comes by again.
      this.#lines.delete(organizationId);
      this.#lines.set(organizationId, line);
      begin();
    }
  }
}
