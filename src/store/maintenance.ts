import type { AuditEvent } from "../domain/access.ts";
import type { CredentialRecord, ProviderName } from "../domain/credential.ts";
import { askedEvents, eventRow, recordEvents } from "./audit.ts";
import { type Database, known } from "./db.ts";
import { announce, eventOf } from "./events.ts";
import { credentialColumns, credentialRecord } from "./rows.ts";
import { scheduleNew } from "./schedule.ts";
import type { CredentialLimits } from "./store.ts";
import type { Row, Statement } from "./transaction.ts";
import { NOW } from "./now.ts";

/** What was purged. */
export interface Purged {
  readonly credentials: number;
  readonly previousSecrets: number;
}

/** What operators do to credentials, and what is cleared away for everyone. */
export interface MaintenanceStore {
  /** Brings a deleted credential back. `purged` where its secret is gone; undefined where none is deleted under that id. Throws the two limits. */
  restore(organizationId: string, id: string, limits: CredentialLimits, event: AuditEvent): Promise<CredentialRecord | "purged" | undefined>;
  /** Sets the limit of a provider in an organization; null lifts it. */
  setLimit(organizationId: string, provider: ProviderName, limit: number | null, event: AuditEvent): Promise<void>;
  /** Removes the secrets of what was deleted before that time, and superseded ones whose time is over; some at a time, until nothing is left. */
  purge(deletedBefore: Date): Promise<Purged>;
  /** Forgets idempotency keys that have ended and uses older than that, of the given organizations. */
  forget(organizationIds: readonly string[], usesBefore: Date): Promise<void>;
}

/** Counts as a creation does, in the same order, and refuses as it does. */
const RESTORE: Statement = {
  name: "credential_restore",
  text: `with ${askedEvents("$5")}, target as materialized (
  select c.provider, c.user_id, c.sealed is null as purged from credential c where c.organization_id = $1 and c.id = $2 and c.deleted_at is not null for update
), wanted as materialized (
  select 'provider:' || provider as counter, provider from target where not purged
  union all select 'user:' || user_id, provider from target where not purged and user_id is not null
), counted as (
  insert into credential_counter as k (organization_id, counter, n)
  select $1::uuid, counter, 1 from wanted order by counter
  on conflict (organization_id, counter) do update set n = k.n + 1
    where k.n < case when k.counter like 'provider:%'
      then coalesce((select l.n from credential_limit l where l.organization_id = $1 and 'provider:' || l.provider = k.counter), $3::integer) else $4::integer end
  returning k.counter
), admitted as materialized (
  select case when count(*) = (select count(*) from wanted) then true
    else refuse_credential_limit(coalesce(bool_or(counter like 'provider:%'), false)) end as ok from counted
), restored as (
  update credential c set deleted_at = null, updated_at = greatest(${NOW}, c.updated_at + interval '1 millisecond'), revision = c.revision + 1, modified_by = 'system'
  from admitted, target where admitted.ok and not target.purged and c.organization_id = $1 and c.id = $2 and c.deleted_at is not null
  returning ${credentialColumns("c")}
), ${scheduleNew("restored", "'scheduled'")}, change as (
  ${eventOf("restored", "restored")}
), ${announce("change")}, happened as (
  select asked.* from asked, restored, (select count(*) from scheduled) s, (select count(*) from announced) n
), ${recordEvents("happened")}
select target.purged, restored.* from target left join restored on true`,
};

const SET_LIMIT: Statement = {
  name: "credential_limit_set",
  text: `with ${askedEvents("$4")}, lifted as (
  delete from credential_limit l where l.organization_id = $1 and l.provider = $2 and $3::integer is null
), given as (
  insert into credential_limit as l (organization_id, provider, n) select $1::uuid, $2::text, $3::integer where $3::integer is not null
  on conflict (organization_id, provider) do update set n = excluded.n
), ${recordEvents("asked")} select 1`,
};

/** Secrets that are purged in one transaction. */
const PURGED_AT_ONCE = 500;

/** What another replica is at is left to it. The marks are taken away with the secrets they stand for. */
const PURGE: Statement = {
  name: "credential_purge",
  text: `with due as materialized (
  select d.organization_id, d.credential_id, d.kind from purge_due d
  where d.organization_id = any($1::uuid[]) and ((d.kind = 'deleted' and d.since < $2) or (d.kind = 'previous' and d.since < clock_timestamp()))
  order by d.organization_id, d.credential_id, d.kind limit ${PURGED_AT_ONCE} for update skip locked
), emptied as (
  update credential c set sealed = null, purged_at = ${NOW} from due
  where due.kind = 'deleted' and c.organization_id = due.organization_id and c.id = due.credential_id and c.deleted_at < $2 and c.sealed is not null
  returning c.id
), dropped as (
  delete from credential_previous p using due
  where p.organization_id = due.organization_id and p.credential_id = due.credential_id and (due.kind = 'deleted' or p.kept_until < clock_timestamp())
  returning p.credential_id
), unmarked as (
  delete from purge_due d using due where d.organization_id = due.organization_id and d.credential_id = due.credential_id and d.kind = due.kind
)
select (select count(*) from emptied) as credentials, (select count(*) from dropped) as previous_secrets, (select count(*) from due) as due`,
};

const FORGET: Statement = {
  name: "retries_forget",
  text: `with ended as (
  delete from idempotency_record where organization_id = any($1::uuid[]) and expires_at <= clock_timestamp()
), abandoned as (
  delete from oauth_authorization where organization_id = any($1::uuid[]) and expires_at <= clock_timestamp()
)
delete from credential_use where organization_id = any($1::uuid[]) and last_used_at < $2`,
};

/** What operators do to credentials, and what is cleared away. */
export function maintenanceStore(database: Database): MaintenanceStore {
  const organizationsOf = (organizationId: string, event: AuditEvent) => [...new Set([organizationId, event.organizationId])];
  const due = async (deletedBefore: Date): Promise<string[]> => {
    const { rows } = await database.read<{ rows: Row[] }>(null, (trx) =>
      trx.raw(
        `select distinct organization_id from (select organization_id from purge_due
          where (kind = 'deleted' and since < ?) or (kind = 'previous' and since < clock_timestamp()) limit ?) d`,
        [deletedBefore, PURGED_AT_ONCE],
      ),
    );
    return rows.map((row) => row["organization_id"] as string);
  };
  return {
    async restore(organizationId, id, limits, event) {
      const [row] = await database.write(organizationsOf(organizationId, event), RESTORE, [organizationId, known(id), limits.perProvider, limits.perUser, JSON.stringify([eventRow(event)])]);
      if (row === undefined) return undefined;
      return row["purged"] === true ? "purged" : credentialRecord(row);
    },

    async setLimit(organizationId, provider, limit, event) {
      await database.write(organizationsOf(organizationId, event), SET_LIMIT, [organizationId, provider, limit, JSON.stringify([eventRow(event)])]);
    },

    async purge(deletedBefore) {
      let [credentials, previousSecrets] = [0, 0];
      for (;;) {
        const organizations = await due(deletedBefore);
        if (organizations.length === 0) return { credentials, previousSecrets };
        const [row] = await database.write(organizations, PURGE, [organizations, deletedBefore]);
        credentials += Number(row?.["credentials"]);
        previousSecrets += Number(row?.["previous_secrets"]);
        // Nothing was had: another replica is at the rest.
        if (Number(row?.["due"]) === 0) return { credentials, previousSecrets };
      }
    },

    async forget(organizationIds, usesBefore) {
      await database.write(organizationIds, FORGET, [organizationIds, usesBefore]);
    },
  };
}
