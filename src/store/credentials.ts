import type { Knex } from "knex";
import type { AuditEvent } from "../domain/access.ts";
import { fail } from "../domain/errors.ts";
import { askedEvents, eventRow, recordAnswer } from "./audit.ts";
import { type Database, known } from "./db.ts";
import { announce, eventOf } from "./events.ts";
import { CREDENTIAL_COLUMNS, credentialColumns, credentialRecord, previousSecret } from "./rows.ts";
import { scheduleAnew, scheduleNew, unschedule } from "./schedule.ts";
import type { CredentialLimits, CredentialStore, FlowFacts, NewCredential } from "./store.ts";
import type { Row, Statement } from "./transaction.ts";

/** Now, as it is stored and shown: in milliseconds. */
const NOW = "date_trunc('milliseconds', clock_timestamp())";

/** Values of `oauth_origin`, `account_id`, `requested_scopes` and `granted_scopes`, from what a flow learnt: a JSON parameter, or null. */
const flowColumns = (parameter: string): readonly [string, string, string, string] => {
  const list = (key: string) => `case when json_typeof(${parameter}::json->'${key}') = 'array' then array(select json_array_elements_text(${parameter}::json->'${key}')) end`;
  return [`case when ${parameter}::json is null then 'posted' else 'flow' end`, `${parameter}::json->>'account_id'`, list("requested_scopes"), list("granted_scopes")];
};

const flowValue = (flow: FlowFacts | undefined): string | null =>
  flow === undefined ? null : JSON.stringify({ account_id: flow.accountId, reason: flow.reason, requested_scopes: flow.requestedScopes, granted_scopes: flow.grantedScopes });

/** Now, but later than the last write, also where two writes share a millisecond or the clock was set back. */
const LATER = `greatest(${NOW}, c.updated_at + interval '1 millisecond')`;

/**
 * Counts in both counters, in the order of their names, which every writer keeps; a counter at its limit returns no row,
 * and then the whole statement is refused and nothing is counted. A count of the rows instead would race.
 */
const CREATE: Statement = {
  name: "credential_create",
  text: `with ${askedEvents("$11")}, counted as (
  insert into credential_counter as k (organization_id, counter, n)
  select $1::uuid, w.counter, 1 from (values ('provider:' || $3::text), ('user:' || $5::uuid)) w(counter) order by w.counter
  on conflict (organization_id, counter) do update set n = k.n + 1
    where k.n < case when k.counter like 'provider:%'
      then coalesce((select l.n from credential_limit l where l.organization_id = $1 and l.provider = $3::text), $12::integer) else $13::integer end
  returning k.counter
), admitted as materialized (
  select case when count(*) = 2 then true else refuse_credential_limit(coalesce(bool_or(counter like 'provider:%'), false)) end as ok from counted
), created as (
  insert into credential as c (organization_id, id, provider, credential_type, user_id, name, account_email, token_expires_at, modified_by,
    sealed, renewable, created_at, updated_at, status_since, status_reason, oauth_origin, account_id, requested_scopes, granted_scopes)
  select $1::uuid, $2::uuid, $3::text, $4::text, $5::uuid, $6::text, $7::text, $8::timestamptz, $9::text, $10::bytea, $14::text <> 'none', t.now, t.now, t.now,
    $15::json->>'reason', ${flowColumns("$15").join(", ")}
  from admitted, (select ${NOW} as now) t where admitted.ok
  returning ${credentialColumns("c")}
), ${scheduleNew("created", "$14")}, change as (
  ${eventOf("created", "created")}
), ${announce("change")}, happened as (
  select asked.* from asked, created, (select count(*) from scheduled) s, (select count(*) from announced) n
), ${recordAnswer("happened", "created")}
select * from created`,
};

/**
 * The secret that is to be kept is locked before it is read: a plain sub-select would see the row as it was when the statement
 * began, and keep what a rotation of keys has sealed anew since then.
 */
const REPLACE: Statement = {
  name: "credential_replace",
  text: `with ${askedEvents("$12")}, before as materialized (
  select o.* from credential o
  where $14::integer > 0 and o.organization_id = $1 and o.id = $2 and o.deleted_at is null and o.revision = $3 and o.secret_version = $10::bigint - 1
  for update
), changed as (
  update credential c set credential_type = $4, name = coalesce($5, c.name), account_email = coalesce($6, c.account_email),
    token_expires_at = $7, status = $8, status_reason = $15::json->>'reason', modified_by = $9, secret_version = $10, sealed = $11, renewable = $13::text <> 'none',
    (oauth_origin, account_id, requested_scopes, granted_scopes) = row(${flowColumns("$15").join(", ")}),
    status_since = case when c.status = $8 and c.status_reason is not distinct from $15::json->>'reason' then c.status_since else ${NOW} end, revision = c.revision + 1, updated_at = ${LATER}
  where c.organization_id = $1 and c.id = $2 and c.deleted_at is null and c.revision = $3 and c.secret_version = $10::bigint - 1
    and (select count(*) from before) >= 0
  returning ${credentialColumns("c")}
), kept as (
  insert into credential_previous as p (organization_id, credential_id, secret_version, credential_type, sealed, account_email, token_expires_at, kept_until)
  select o.organization_id, o.id, o.secret_version, o.credential_type, o.sealed, o.account_email, o.token_expires_at, ${NOW} + make_interval(secs => $14::integer)
  from before o join changed on o.organization_id = changed.organization_id and o.id = changed.id
  on conflict (organization_id, credential_id) do update set secret_version = excluded.secret_version, credential_type = excluded.credential_type,
    sealed = excluded.sealed, account_email = excluded.account_email, token_expires_at = excluded.token_expires_at, kept_until = excluded.kept_until
), dropped as (
  delete from credential_previous p using changed where p.organization_id = changed.organization_id and p.credential_id = changed.id and $14::integer = 0
), ${scheduleAnew("changed", "$13")}, change as (
  ${eventOf("changed", "updated")}
), ${announce("change")}, happened as (
  select asked.* from asked, changed, (select count(*) from scheduled) s, (select count(*) from unscheduled) u, (select count(*) from announced) n
), ${recordAnswer("happened", "changed")}
select true as found, changed.* from (select) one left join changed on true
where exists (select from changed)
  or exists (select from credential c where c.organization_id = $1 and c.id = $2 and c.deleted_at is null)`,
};

/** Gives the counters back in the same order in which a creation takes them, so that the two cannot block each other. */
const REMOVE: Statement = {
  name: "credential_remove",
  text: `with ${askedEvents("$5")}, removed as (
  update credential c set deleted_at = ${NOW}, updated_at = ${LATER}, revision = c.revision + 1, modified_by = $4
  where c.organization_id = $1 and c.id = $2 and c.deleted_at is null and ($3::integer is null or c.revision = $3)
  returning ${credentialColumns("c")}
), uncounted as (
  insert into credential_counter as k (organization_id, counter, n)
  select w.organization_id, w.counter, 0 from (
    select organization_id, 'provider:' || provider as counter from removed
    union all select organization_id, 'user:' || user_id from removed where user_id is not null) w
  order by w.counter
  on conflict (organization_id, counter) do update set n = k.n - 1
  returning k.counter
), ${unschedule("removed")}, change as (
  select * from (${eventOf("removed", "deleted")}) e, (select count(*) as counters from uncounted) k, (select count(*) as schedules from unscheduled) u
), ${announce("change")}, happened as (
  select asked.* from asked, (select count(*) from announced) n, removed
), ${recordAnswer("happened", "removed")}
select removed.id is not null as removed from (select) one left join removed on true
where exists (select from removed)
  or exists (select from credential c where c.organization_id = $1 and c.id = $2 and c.deleted_at is null)`,
};

const single = (rows: Row[]): Row => {
  const [row] = rows;
  if (row === undefined) throw fail("INTERNAL", { cause: new Error("a write gave back no row") });
  return row;
};

const organizationsOf = (...ids: readonly string[]): string[] => [...new Set(ids)];

const createValues = (row: NewCredential, limits: CredentialLimits, event: AuditEvent): unknown[] => [
  row.organizationId, known(row.id), row.provider, row.credentialType, known(row.userId), row.name, row.accountEmail, row.tokenExpiresAt,
  row.modifiedBy, row.sealed, JSON.stringify([eventRow(event)]), limits.perProvider, limits.perUser, row.renewal ?? "none", flowValue(row.flow),
];

/** The same creation as a part of a transaction of several statements. */
export async function createCredential(trx: Knex.Transaction, row: NewCredential, limits: CredentialLimits, event: AuditEvent): Promise<void> {
  const values = createValues(row, limits, event);
  const bindings = Object.fromEntries(values.map((value, index) => [`v${index + 1}`, value]));
  await trx.raw(CREATE.text.replace(/\$(\d+)/g, ":v$1"), bindings as Record<string, Knex.RawBinding>);
}

/** Everything about credentials but the resolve path. */
export function credentialStore(database: Database): Omit<CredentialStore, "resolve"> {
  return {
    async create(row, limits, event, signal) {
      const audited = eventRow(event);
      const rows = await database.write(organizationsOf(row.organizationId, audited.organization_id), CREATE, createValues(row, limits, event), signal);
      return credentialRecord(single(rows));
    },

    async list(organizationId, filter, signal) {
      const rows: Row[] = await database.read(organizationId, (trx) => {
        const query = trx("credential").select(CREDENTIAL_COLUMNS).where("organization_id", organizationId).whereNull("deleted_at");
        if (filter.userId !== null) query.where("user_id", known(filter.userId));
        if (filter.provider !== null) query.where("provider", filter.provider);
        return query.orderBy([{ column: "created_at", order: "desc" }, { column: "id", order: "desc" }]);
      }, signal);
      return rows.map(credentialRecord);
    },

    async get(organizationId, id, signal) {
      const row: Row | undefined = await database.read(
        organizationId,
        (trx) => trx("credential").first(CREDENTIAL_COLUMNS).where({ organization_id: organizationId, id: known(id) }).whereNull("deleted_at"),
        signal,
      );
      return row === undefined ? undefined : credentialRecord(row);
    },

    async previous(organizationId, id, signal) {
      const row: Row | undefined = await database.read(
        organizationId,
        (trx) =>
          trx("credential_previous").first("*").where({ organization_id: organizationId, credential_id: known(id) }).whereRaw("kept_until > clock_timestamp()"),
        signal,
      );
      return row === undefined ? undefined : previousSecret(row);
    },

    async replace(change, event, signal) {
      const audited = eventRow(event);
      const [row] = await database.write(organizationsOf(change.organizationId, audited.organization_id), REPLACE, [
        change.organizationId, known(change.id), change.expectedRevision, change.credentialType, change.name, change.accountEmail, change.tokenExpiresAt,
        change.status, change.modifiedBy, change.secretVersion.toString(), change.sealed, JSON.stringify([audited]), change.renewal ?? "none",
        change.keepPreviousSeconds ?? 0, flowValue(change.flow),
      ], signal);
      if (row === undefined) return undefined;
      return row["id"] === null ? "stale" : credentialRecord(row);
    },

    async remove(where, event, signal) {
      const audited = eventRow(event);
      const [row] = await database.write(organizationsOf(where.organizationId, audited.organization_id), REMOVE, [
        where.organizationId, known(where.id), where.expectedRevision, where.modifiedBy, JSON.stringify([audited]),
      ], signal);
      if (row === undefined) return undefined;
      return row["removed"] === true ? "removed" : "stale";
    },
  };
}
