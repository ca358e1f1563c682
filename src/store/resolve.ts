import type { AuditEvent } from "../domain/access.ts";
import { type CredentialError, fail } from "../domain/errors.ts";
import type { Log } from "../log.ts";
import { askedEvents, type EventRow, eventRow, recordEvents } from "./audit.ts";
import type { ConnectionFields } from "./connection.ts";
import { known } from "./db.ts";
import { translate } from "./errors.ts";
import { Lane } from "./lane.ts";
import { credentialColumns, storedCredential } from "./rows.ts";
import type { StoredCredential } from "./store.ts";
import type { Session, Statement } from "./transaction.ts";

/** What the resolve path needs. */
export interface ResolverOptions {
  readonly fields: ConnectionFields;
  readonly session: Session;
  readonly log: Log;
  /** Calls that may wait; more are refused. */
  readonly queue: number;
  /** Calls that share one transaction at most. */
  readonly batch: number;
}

/** One call that waits. */
interface Waiting {
  readonly event: EventRow;
  readonly resolve: (found: StoredCredential | undefined) => void;
  readonly reject: (error: CredentialError) => void;
}

/** Transactions under way at once: while one commits, the next is read. More would only make batches smaller. */
const IN_FLIGHT = 2;

/**
 * Reads every credential that is asked for and records every one that is found. Each is looked up by organization and
 * id together, as a pair, so that a batch of several organizations gives each its own; `limit 1` keeps the planner at
 * one look-up in the primary key per pair.
 */
const RESOLVE: Statement = {
  name: "credential_resolve",
  text: `with ${askedEvents("$1")}, found as materialized (
  select a.place, f.* from asked a cross join lateral (
    select ${credentialColumns("c")}, c.sealed from credential c
    where c.organization_id = a.organization_id and c.id = a.credential_id and c.deleted_at is null limit 1) f
), happened as (
  select a.* from asked a where a.place in (select place from found)
), ${recordEvents("happened")}
select * from found`,
};

/**
 * The resolve path: calls that wait are read and recorded together. An idle path sends at the end of the event loop's
 * turn, so a lone call waits for nobody, and under load the batches grow by themselves.
 */
export class Resolver {
  readonly #options: ResolverOptions;
  readonly #lane: Lane;
  #waiting: Waiting[] = [];
  #inFlight = 0;
  #scheduled = false;
  #closing: (() => void) | undefined;

  constructor(options: ResolverOptions) {
    this.#options = options;
    this.#lane = new Lane({ fields: options.fields, session: options.session, log: options.log, onChange: () => this.#schedule() });
  }

  /** Connects. Rejects with the driver's error. */
  open(): Promise<void> {
    return this.#lane.open();
  }

  /** See `CredentialStore.resolve`. */
  async resolve(organizationId: string, id: string, event: AuditEvent): Promise<StoredCredential | undefined> {
    const row = eventRow(event);
    if (row.organization_id !== organizationId || row.credential_id !== known(id)) {
      throw fail("INTERNAL", { cause: new TypeError("the event is of another credential") });
    }
    if (this.#closing !== undefined) throw fail("SHUTTING_DOWN");
    if (this.#waiting.length >= this.#options.queue) throw fail("OVERLOADED");
    return new Promise((resolve, reject) => {
      this.#waiting.push({ event: row, resolve, reject });
      this.#schedule();
    });
  }

  /** Waits for the calls that were taken, then disconnects. */
  async close(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#closing = resolve;
      this.#schedule();
    });
    await this.#lane.close();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#flush();
    });
  }

  #flush(): void {
    if (this.#lane.state === "down" || this.#lane.state === "closed") {
      for (const { reject } of this.#waiting.splice(0)) reject(fail("AUDIT_UNAVAILABLE"));
    }
    while (this.#waiting.length > 0 && this.#inFlight < IN_FLIGHT && this.#lane.state === "up") {
      void this.#send(this.#waiting.splice(0, this.#options.batch));
    }
    if (this.#waiting.length === 0 && this.#inFlight === 0) this.#closing?.();
  }

  async #send(batch: readonly Waiting[]): Promise<void> {
    this.#inFlight++;
    try {
      const organizations = [...new Set(batch.map(({ event }) => event.organization_id))];
      const rows = await this.#lane.run(organizations, RESOLVE, [JSON.stringify(batch.map(({ event }) => event))]);
      const found = new Map(rows.map((row) => [Number(row["place"]), storedCredential(row)]));
      batch.forEach((call, index) => call.resolve(found.get(index + 1)));
    } catch (error) {
      // The batch may have been committed although the answer was lost: a record without a release, never the reverse.
      const failure = translate(error, "AUDIT_UNAVAILABLE");
      for (const { reject } of batch) reject(failure);
    } finally {
      this.#inFlight--;
      this.#flush();
    }
  }
}
