import type { AuditEvent } from "../domain/access.ts";
import { fail } from "../domain/errors.ts";
import { askedEvents, type EventRow, eventRow, recordEvents } from "./audit.ts";
import { known } from "./db.ts";
import { EventLane, type LaneSetup } from "./event-lane.ts";
import type { EventLaneLoad } from "./load.ts";
import { STORED_FACTS, storedColumns, storedCredential } from "./rows.ts";
import type { StoredCredential } from "./store.ts";
import type { Row, Statement } from "./transaction.ts";

/**
 * Reads every credential that is asked for and records every one that is handed out. Each is looked up by organization and
 * id together, as a pair, so that a batch of several organizations gives each its own; `limit 1` keeps the planner at
 * one look-up per pair, and that nothing is asked of the row before it is found keeps it at the primary key: while it has no statistics,
 * an index of the organization's credentials that are not deleted would do as well. Whether the caller may have it is asked here as well and not before: a key that
 * was revoked, an account that was disabled or narrowed is refused with the next call of any replica. An account that
 * only its token tells of, and that is not kept here, is the token's issuer's to stop.
 */
const RESOLVE: Statement = {
  name: "credential_resolve",
  text: `with ${askedEvents("$1")}, found as materialized (
  select a.place, case
      when a.key_id is not null and (k.id is null or s.id is null) then 'INVALID_TOKEN'
      when s.id is not null and not s.active then 'INVALID_TOKEN'
      when s.granted_providers is not null and f.id is not null
        and not (f.provider = any(s.granted_providers) or f.id = any(s.granted_credentials)) then 'NOT_GRANTED'
    end as refusal, f.*
  from asked a left join lateral (
    select t.id from service_account_key t
    where t.organization_id = a.organization_id and t.id = a.key_id and t.service_account_id = a.account_id
      and t.revoked_at is null and (t.expires_at is null or t.expires_at > clock_timestamp()) limit 1) k on true
  left join lateral (
    select u.id, u.status = 'active' and u.deleted_at is null as active, u.granted_providers, u.granted_credentials from service_account u
    where u.organization_id = a.organization_id and u.id = a.account_id limit 1) s on true
  left join lateral (
    select ${storedColumns("c")}, c.deleted_at from credential c
    where c.organization_id = a.organization_id and c.id = a.credential_id limit 1) f on f.deleted_at is null
), happened as (
  select a.* from asked a where a.place in (select place from found where refusal is null and id is not null)
), ${recordEvents("happened")}
select place, refusal, ${STORED_FACTS.join(", ")}, case when refusal is null then sealed end as sealed from found
where refusal is not null or id is not null`,
};

/** What refuses a call that the statement has looked at. */
function refused(row: Row): void {
  const refusal = row["refusal"] as "INVALID_TOKEN" | "NOT_GRANTED" | null;
  if (refusal !== null) throw fail(refusal);
}

/** The credential that a row holds, if it is the one that the event names: a secret never leaves on the word of its place in a batch alone. */
export function credentialAsked(row: Row | undefined, event: EventRow): StoredCredential | undefined {
  if (row === undefined) return undefined;
  refused(row);
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

  /** How busy it is. */
  get load(): EventLaneLoad {
    return this.#lane.load;
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
