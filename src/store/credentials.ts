import { askedEvents, eventRow, recordAnswer } from "./audit.ts";
import { type Database, known } from "./db.ts";
import { announce, eventOf } from "./events.ts";
import { credentialColumns, credentialRecord } from "./rows.ts";
import { flowColumns, flowValue } from "./flow-columns.ts";
import { NOW } from "./now.ts";
import { scheduleAnew, unschedule } from "./schedule.ts";
import type { CredentialStore } from "./store.ts";
import type { Statement } from "./transaction.ts";

/** Now, but later than the last write, also where two writes share a millisecond or the clock was set back. */
const LATER = `greatest(${NOW}, c.updated_at + interval '1 millisecond')`;

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
    (oauth_origin, account_id, requested_scopes, granted_scopes) = row(${flowColumns("$15::json").join(", ")}),
    status_since = case when c.status = $8 and c.status_reason is not distinct from $15::json->>'reason' then c.status_since else ${NOW} end, revision = c.revision + 1, updated_at = ${LATER}
  where c.organization_id = $1 and c.id = $2 and c.deleted_at is null and c.revision = $3 and c.secret_version = $10::bigint - 1
    and (select count(*) from before) >= 0
  returning ${credentialColumns("c")}
), kept as (
  insert into credential_previous as p (organization_id, credential_id, secret_version, credential_type, sealed, account_email, token_expires_at,
    oauth_origin, account_id, requested_scopes, granted_scopes, kept_until)
  select o.organization_id, o.id, o.secret_version, o.credential_type, o.sealed, o.account_email, o.token_expires_at,
    o.oauth_origin, o.account_id, o.requested_scopes, o.granted_scopes, ${NOW} + make_interval(secs => $14::integer)
  from before o join changed on o.organization_id = changed.organization_id and o.id = changed.id
  on conflict (organization_id, credential_id) do update set secret_version = excluded.secret_version, credential_type = excluded.credential_type,
    sealed = excluded.sealed, account_email = excluded.account_email, token_expires_at = excluded.token_expires_at,
    oauth_origin = excluded.oauth_origin, account_id = excluded.account_id, requested_scopes = excluded.requested_scopes, granted_scopes = excluded.granted_scopes,
    kept_until = excluded.kept_until
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

/**
 * Gives the counters back in the same order in which a creation takes them, so that the two cannot block each other. Whether
 * it was used is asked last, because the lock that answers it is the last one of every writer.
 */
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
), ${announce("change")}, unused as materialized (
  select refuse_credential_in_use($1, $2, $6) as ok from removed, (select count(*) from announced) n
), happened as (
  select asked.* from asked, unused where unused.ok
), ${recordAnswer("happened", "removed")}
select removed.id is not null as removed from (select) one left join removed on true
where exists (select from removed)
  or exists (select from credential c where c.organization_id = $1 and c.id = $2 and c.deleted_at is null)`,
};

const organizationsOf = (...ids: readonly string[]): string[] => [...new Set(ids)];

/** Changes of credentials that are there. */
export function credentialChanges(database: Database): Pick<CredentialStore, "replace" | "remove"> {
  return {
    async replace(change, event, signal) {
      const audited = eventRow(event);
      const [row] = await database.write(organizationsOf(change.organizationId, audited.organization_id), REPLACE, [
        change.organizationId, known(change.id), change.expectedRevision, change.credentialType, change.name, change.accountEmail, change.tokenExpiresAt,
        change.status, change.modifiedBy, change.secretVersion.toString(), change.sealed, JSON.stringify([audited]), change.renewal ?? "none",
        change.keepPreviousSeconds ?? 0, change.flow === undefined ? null : JSON.stringify(flowValue(change.flow)),
      ], signal);
      if (row === undefined) return undefined;
      return row["id"] === null ? "stale" : credentialRecord(row);
    },

    async remove(where, event, signal) {
      const audited = eventRow(event);
      const [row] = await database.write(organizationsOf(where.organizationId, audited.organization_id), REMOVE, [
        where.organizationId, known(where.id), where.expectedRevision, where.modifiedBy, JSON.stringify([audited]), where.refuseIfUsedWithinSeconds ?? 0,
      ], signal);
      if (row === undefined) return undefined;
      return row["removed"] === true ? "removed" : "stale";
    },
  };
}
