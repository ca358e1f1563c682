import type { Reason } from "../domain/errors.ts";
import type { Log } from "../log.ts";
import type { EventRow } from "./audit.ts";
import { traced } from "../trace.ts";
import { Batcher, type Waiting } from "./batcher.ts";
import type { ConnectionFields } from "./connection.ts";
import { isRolledBack, isUndone, translate } from "./errors.ts";
import { Lane } from "./lane.ts";
import type { EventLaneLoad, Recorded } from "./load.ts";
import { sqlFacts } from "./statement-spans.ts";
import type { Row, Session, Statement } from "./transaction.ts";

/** What every lane of events is opened with. */
export interface LaneSetup {
  readonly fields: ConnectionFields;
  readonly session: Session;
  readonly log: Log;
  /** Is told of every transaction. */
  readonly recorded?: Recorded | undefined;
  /** Calls that may wait; more are refused. */
  readonly queue: number;
  /** Calls that share one transaction at most. */
  readonly batch: number;
}

/** What one lane of events does. */
export interface EventLaneOptions<Answer> extends LaneSetup {
  /** What the lane is for, as the log names it. */
  readonly name: string;
  /** Whether a second connection stands by. */
  readonly reserve: boolean;
  /** Records the events of its one JSON parameter; a row answers the event at its `place`, counted from 1. */
  readonly statement: Statement;
  /** The answer to one event, from its row if it has one. May throw. */
  readonly answer: (row: Row | undefined, event: EventRow) => Answer;
  /** Why a call is refused that the queue has no room for. */
  readonly full: Reason;
}

/** Times a batch is sent in all, where nothing of it took effect because of others. */
const ATTEMPTS = 3;

/** Transactions under way at once: while one commits, the next is read. */
const IN_FLIGHT = 2;

/**
 * Calls that record one event each, on a connection of their own: those that wait share one transaction. Where a batch is
 * rolled back because of others, it is sent again; because of something that one organization's rows may have caused, for each
 * organization by itself, so that nobody suffers from another one's lock. Failures are AUDIT_UNAVAILABLE.
 */
export class EventLane<Answer> {
  readonly #options: EventLaneOptions<Answer>;
  readonly #lane: Lane;
  readonly #batcher: Batcher<EventRow, Answer>;

  constructor(options: EventLaneOptions<Answer>) {
    this.#options = options;
    const { fields, session, log, name, reserve, queue, batch, full } = options;
    this.#lane = new Lane({ fields, session, log, name, reserve, onChange: () => this.#batcher.schedule() });
    this.#batcher = new Batcher({
      queue, batch, full,
      inFlight: IN_FLIGHT,
      down: "AUDIT_UNAVAILABLE",
      state: () => this.#lane.state,
      send: (calls) => this.#send(calls),
    });
  }

  /** How busy it is. */
  get load(): EventLaneLoad {
    return { name: this.#options.name, up: this.#lane.state === "up", most: this.#options.queue, ...this.#batcher.load };
  }

  /** Connects. Rejects with the driver's error. */
  open(): Promise<void> {
    return this.#lane.open();
  }

  /** Commits an event and gives the answer to it. Its span is its own, although the statement is shared. */
  submit(event: EventRow): Promise<Answer> {
    return traced(this.#options.statement.name, "client", () => this.#batcher.submit(event), sqlFacts);
  }

  /** Waits for the calls that were taken, then disconnects. */
  async close(): Promise<void> {
    await this.#batcher.close();
    await this.#lane.close();
  }

  async #send(calls: readonly Waiting<EventRow, Answer>[], attempt = 1): Promise<void> {
    const organizations = [...new Set(calls.map(({ item }) => item.organization_id))];
    let rows: Row[];
    try {
      rows = await this.#lane.run(organizations, this.#options.statement, [JSON.stringify(calls.map(({ item }) => item))]);
    } catch (error) {
      if (attempt < ATTEMPTS && isUndone(error)) return this.#send(calls, attempt + 1);
      if (organizations.length > 1 && isRolledBack(error)) {
        // One after the other: the driver's clock for a silent connection starts when a transaction is sent.
        for (const organization of organizations) await this.#send(calls.filter(({ item }) => item.organization_id === organization));
        return;
      }
      // The batch may have been committed although the answer was lost: a record without a release, never the reverse.
      const failure = translate(error, "AUDIT_UNAVAILABLE");
      this.#tell(calls, false);
      for (const { reject } of calls) reject(failure);
      return;
    }
    this.#tell(calls, true);
    const byPlace = new Map(rows.map((row) => [Number(row["place"]), row]));
    calls.forEach((call, index) => {
      try {
        call.resolve(this.#options.answer(byPlace.get(index + 1), call.item));
      } catch (error) {
        call.reject(translate(error));
      }
    });
  }

  #tell(calls: readonly Waiting<EventRow, Answer>[], stands: boolean): void {
    const { recorded, name } = this.#options;
    recorded?.(name, { events: calls.length, seconds: (performance.now() - (calls[0]?.since ?? 0)) / 1000, stands });
  }
}
