import type { Knex } from "knex";
import type { AuditEvent } from "../domain/access.ts";
import { fail } from "../domain/errors.ts";
import { askedEvents, eventColumns, type EventRow, eventRow, recordAnswer } from "./audit.ts";
import { known } from "./db.ts";
import { announce, eventOf } from "./events.ts";
import { flowColumns, flowValue } from "./flow-columns.ts";
import { NOW } from "./now.ts";
import { credentialColumns } from "./rows.ts";
import { scheduleNew } from "./schedule.ts";
import type { CredentialLimits, NewCredential } from "./store.ts";
import type { Statement } from "./transaction.ts";

/** What a creation has besides its event. */
const COLUMNS = ["provider text", "credential_type text", "user_id uuid", "name text", "account_email text", "token_expires_at timestamptz", "modified_by text", "sealed text",
  "renewal text", "flow json", "per_provider integer", "per_user integer"];

/**
 * Creates every credential of its one JSON parameter, or none: each is counted in both of its counters, in the order of
 * their names, which every writer keeps, and a counter without room for all that are wanted refuses the whole statement. A
 * count of the rows instead would race.
 */
export const CREATE: Statement = {
  name: "credential_create",
  text: `with ${askedEvents("$1", ...COLUMNS)}, wanted as materialized (
  select a.*, t.now from asked a, (select ${NOW} as now) t
), counters as materialized (
  select w.organization_id as organization, k.counter, count(*)::integer as n,
    case when k.counter like 'provider:%' then coalesce(min(l.n), min(w.per_provider)) else min(w.per_user) end as most
  from wanted w left join credential_limit l on l.organization_id = w.organization_id and l.provider = w.provider
    cross join lateral (values ('provider:' || w.provider), ('user:' || w.user_id)) k(counter)
  group by w.organization_id, k.counter
), counted as (
  insert into credential_counter as k (organization_id, counter, n)
  select organization, counter, n from counters where n <= most order by organization, counter
  on conflict (organization_id, counter) do update set n = k.n + excluded.n
    where k.n + excluded.n <= (select c.most from counters c where c.organization = k.organization_id and c.counter = k.counter)
  returning k.counter
), admitted as materialized (
  select case when count(*) = (select count(*) from counters) then true
    else refuse_credential_limit(coalesce(bool_or(counter like 'provider:%'), false)) end as ok from counted
), created as (
  insert into credential as c (organization_id, id, provider, credential_type, user_id, name, account_email, token_expires_at, modified_by,
    sealed, renewable, created_at, updated_at, status_since, status_reason, oauth_origin, account_id, requested_scopes, granted_scopes)
  select w.organization_id, w.credential_id, w.provider, w.credential_type, w.user_id, w.name, w.account_email, w.token_expires_at, w.modified_by,
    decode(w.sealed, 'base64'), w.renewal <> 'none', w.now, w.now, w.now, w.flow->>'reason', ${flowColumns("w.flow").join(", ")}
  from admitted, wanted w where admitted.ok
  returning ${credentialColumns("c")}
), planned as (
  select c.*, w.renewal from created c join wanted w on w.organization_id = c.organization_id and w.credential_id = c.id
), ${scheduleNew("planned", "renewal")}, change as (
  ${eventOf("created", "created")}
), ${announce("change")}, happened as (
  select ${eventColumns("asked")} from asked, (select count(*) from scheduled) s, (select count(*) from announced) n where exists (select from created)
), ${recordAnswer("happened", "created", "answer.organization_id = h.organization_id and answer.id = h.credential_id")}
select * from created`,
};

/** A credential that is to be created, as its part of the statement's parameter. */
export type Creation = ReturnType<typeof creation>;

/** Checks a creation, and the event that goes with it. */
export function creation(row: NewCredential, limits: CredentialLimits, event: AuditEvent) {
  const asked: EventRow = eventRow(event);
  if (asked.organization_id !== row.organizationId || asked.credential_id !== known(row.id)) throw fail("INTERNAL", { cause: new TypeError("the event is of another credential") });
  return {
    ...asked, provider: row.provider, credential_type: row.credentialType, user_id: known(row.userId), name: row.name,
    account_email: row.accountEmail, token_expires_at: row.tokenExpiresAt, modified_by: row.modifiedBy, sealed: row.sealed.toString("base64"),
    renewal: row.renewal ?? "none", flow: flowValue(row.flow), per_provider: limits.perProvider, per_user: limits.perUser,
  } as const;
}

/** The statement's parameter. */
export const creationValues = (creations: readonly Creation[]): [string] => [JSON.stringify(creations)];

/** Creates a credential as a part of a transaction of several statements. */
export async function createCredential(trx: Knex.Transaction, row: NewCredential, limits: CredentialLimits, event: AuditEvent): Promise<void> {
  await trx.raw(CREATE.text.replaceAll("$1", ":creations"), { creations: creationValues([creation(row, limits, event)])[0] });
}
