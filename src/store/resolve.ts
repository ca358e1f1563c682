import type { AuditEvent } from "../domain/access.ts";
import { fail } from "../domain/errors.ts";
import { askedEvents, type EventRow, eventRow, recordEvents } from "./audit.ts";
import { known } from "./db.ts";
import { EventLane, type LaneSetup } from "./event-lane.ts";
import { storedColumns, storedCredential } from "./rows.ts";
import type { StoredCredential } from "./store.ts";
import type { Row, Statement } from "./transaction.ts";

/**
 * Reads every credential that is asked for and records every one that is found. Each is looked up by organization and
 * id together, as a pair, so that a batch of several organizations gives each its own; `limit 1` keeps the planner at
 * one look-up in the primary key per pair.
 */
const RESOLVE: Statement = {
  name: "credential_resolve",
  text: `with ${askedEvents("$1")}, found as materialized (
  select a.place, f.* from asked a cross join lateral (
    select ${storedColumns("c")} from credential c
    where c.organization_id = a.organization_id and c.id = a.credential_id and c.deleted_at is null limit 1) f
), happened as (
  select a.* from asked a where a.place in (select place from found)
), ${recordEvents("happened")}
select * from found`,
};

/** The credential that a row holds, if it is the one that the event names: a secret never leaves on the word of its place in a batch alone. */
export function credentialAsked(row: Row | undefined, event: EventRow): StoredCredential | undefined {
  if (row === undefined) return undefined;
  const found = storedCredential(row);
  if (found.organizationId === event.organization_id && found.id === event.credential_id) return found;
  throw fail("INTERNAL", { cause: new Error("a batch answered with another credential") });
}

/** The resolve path: calls that wait are read and recorded together. */
export class Resolver {
  readonly #lane: EventLane<StoredCredential | undefined>;

  constructor(setup: LaneSetup) {
    this.#lane = new EventLane({ ...setup, name: "resolve", reserve: true, statement: RESOLVE, answer: credentialAsked, full: "OVERLOADED" });
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
    return this.#lane.submit(row);
  }

  /** Waits for the calls that were taken, then disconnects. */
  close(): Promise<void> {
    return this.#lane.close();
  }
}
