import { askedEvents, recordEvents } from "./audit.ts";
import { announce, type CredentialEventKind, eventOfKind } from "./events.ts";
import { credentialColumns, storedColumns } from "./rows.ts";
import { dueAt } from "./schedule.ts";
import type { Statement } from "./transaction.ts";
import { NOW } from "./now.ts";

const FREE = "(r.lease_until is null or r.lease_until < now())";
const DUE = `r.due_at <= now() and ${FREE}`;

/** Shortest time between two renewals of one credential, whatever end a provider gives its tokens. */
const PAUSE = "interval '15 seconds'";

/**
 * What somebody who waits for a token may renew although it is not due: one that never lasts much longer than a minute, so that
 * half of its life is less than is promised of it; and one that has ended, whatever the pause after failures has grown to, so that
 * what works again is found out by those who need it.
 */
const WANTED = `(r.due_at <= now() or r.due_at is not null and c.renewable and (
  r.attempts = 0 and c.token_expires_at < now() + interval '1 minute' and (r.tried_at is null or r.tried_at <= now() - ${PAUSE})
  or c.token_expires_at <= now() and (r.tried_at is null or r.tried_at <= now() - $6::double precision * interval '1 millisecond')))`;

/** The lease's time from now on, of a number of milliseconds. */
const leaseUntil = (parameter: string): string => `clock_timestamp() + ${parameter}::double precision * interval '1 millisecond'`;

/** Takes one lease, and gives what is known of the credential. */
export const CLAIM: Statement = {
  name: "refresh_claim",
  text: `with leased as (
  update credential_refresh r set lease_token = $3, lease_until = ${leaseUntil("$4")}, fence = r.fence + 1
  from credential c
  where r.organization_id = $1 and r.credential_id = $2 and c.organization_id = $1 and c.id = $2 and ${WANTED} and ${FREE} and $5::boolean
  returning r.fence, r.intent_fence is not null as taken_over
)
select ${storedColumns("c")}, leased.fence, leased.taken_over, coalesce(${WANTED}, false) as wanted
from credential c left join leased on true left join credential_refresh r on r.organization_id = c.organization_id and r.credential_id = c.id
where c.organization_id = $1 and c.id = $2 and c.deleted_at is null`,
};

/** Due credentials of a provider that are looked at to choose from, longest due first. */
const CANDIDATES = 500;

/** One of each organization, then a second of each, so that those who have many due do not go before those who have few. */
export const CLAIM_DUE: Statement = {
  name: "refresh_claim_due",
  text: `with candidate as materialized (
  select q.provider, d.*, row_number() over (partition by q.provider, d.organization_id order by d.due_at) as nth
  from unnest($1::text[]) q(provider) cross join lateral (
    select r.organization_id, r.credential_id, r.due_at from credential_refresh r
    where r.provider = q.provider and ${DUE} and r.organization_id <> all($5::uuid[])
    order by r.due_at limit ${CANDIDATES}) d
), due as materialized (
  select d.* from unnest($1::text[], $2::integer[]) q(provider, n) cross join lateral (
    select r.organization_id, r.credential_id from candidate k
      join credential_refresh r on r.organization_id = k.organization_id and r.credential_id = k.credential_id
    where k.provider = q.provider and ${DUE}
    order by k.nth, k.due_at limit q.n for update of r skip locked) d
)
update credential_refresh r set lease_token = $3, lease_until = ${leaseUntil("$4")}, fence = r.fence + 1
from due where r.organization_id = due.organization_id and r.credential_id = due.credential_id
returning r.organization_id, r.credential_id, r.provider, r.fence, r.intent_fence is not null as taken_over`,
};

const MINE = "r.organization_id = $1 and r.credential_id = $2 and r.lease_token = $3 and r.fence = $4";

/**
 * Records the events that were asked for, and a mark only where the status changed. Where it did not, there is still an event
 * of the other kind, if one is given.
 */
const recordChange = (source: string, otherwise?: CredentialEventKind): string => `change as (
  ${otherwise === undefined ? `${eventOfKind(source, "'status_changed'")} where shifted` : eventOfKind(source, `case when shifted then 'status_changed' else '${otherwise}' end`)}
), ${announce("change")}, happened as (
  select asked.* from asked, settled, (select count(*) from announced) n
  where asked.action not like 'mark_%' or exists (select from change where kind = 'status_changed')
), ${recordEvents("happened")}`;

/** Journals a renewal. */
export const BEGIN: Statement = {
  name: "refresh_begin",
  text: `with ${askedEvents("$6")}, target as materialized (
  select ${storedColumns("c")}, r.attempts, coalesce(r.intent_version = c.secret_version, false) as interrupted
  from credential c join credential_refresh r on r.organization_id = c.organization_id and r.credential_id = c.id
  where ${MINE} and c.organization_id = $1 and c.id = $2 and c.deleted_at is null
  for no key update of c
), settled as (
  update credential_refresh r set lease_until = ${leaseUntil("$5")}, intent_version = t.secret_version, intent_fence = r.fence
  from target t where ${MINE} and t.renewable returning r.fence
), marked as (
  update credential c set status = 'in_doubt', status_reason = 'renewal_interrupted', status_since = ${NOW}
  from target t, settled where c.organization_id = $1 and c.id = $2 and t.interrupted and t.status <> 'in_doubt'
  returning ${credentialColumns("c")}, true as shifted
), ${recordChange("marked")}
select t.*, ${NOW} as now from target t where exists (select from settled) or not t.renewable`,
};

/** Locks the credential in the version that was sent, so that nothing is written over another one. */
const target = (version: string): string => `target as materialized (
  select c.status, c.status_reason from credential c
  where c.organization_id = $1 and c.id = $2 and c.deleted_at is null and c.secret_version = ${version}
  for no key update
)`;

/**
 * Asks for the journal and not for the lease: an outage may last longer than that, and whoever has it by then and has sent
 * nothing yet is spared a secret that the provider has replaced.
 */
export const KEEP: Statement = {
  name: "refresh_keep",
  text: `with ${askedEvents("$8")}, ${target("$4")}, settled as (
  update credential_refresh r set lease_token = null, lease_until = null, intent_version = null, intent_fence = null, attempts = 0, tried_at = now(),
    due_at = greatest(${dueAt("$6::timestamptz")}, now() + ${PAUSE})
  from target where r.organization_id = $1 and r.credential_id = $2 and r.intent_fence = $3 returning r.fence
), changed as (
  update credential c set sealed = $5, secret_version = c.secret_version + 1, token_expires_at = $6, status = 'active', status_reason = $7,
    status_since = case when (t.status, t.status_reason) is distinct from ('active', $7::text) then ${NOW} else c.status_since end
  from settled, target t where c.organization_id = $1 and c.id = $2 and c.secret_version = $4
  returning ${credentialColumns("c")}, (t.status, t.status_reason) is distinct from ('active', $7::text) as shifted
), ${recordChange("changed", "rotated")}
select 1 from changed`,
};

/** Stores an outcome without a new secret. */
export const SETTLE: Statement = {
  name: "refresh_settle",
  text: `with ${askedEvents("$11")}, ${target("$5")}, settled as (
  update credential_refresh r set lease_token = null, lease_until = null, intent_fence = null, attempts = r.attempts + $9::integer, tried_at = now(),
    intent_version = case when $10::boolean then $5::bigint end,
    due_at = ${leaseUntil("$8")}
  from target where ${MINE} returning r.fence
), changed as (
  update credential c set status = $6, status_reason = $7, status_since = ${NOW}
  from settled, target t where c.organization_id = $1 and c.id = $2 and $6::text is not null and (t.status, t.status_reason) is distinct from ($6::text, $7::text)
  returning ${credentialColumns("c")}, true as shifted
), ${recordChange("changed")}
select 1 from settled`,
};

/** Gives a lease back that came to nothing. */
export const RELEASE: Statement = {
  name: "refresh_release",
  text: `update credential_refresh r set lease_token = null, lease_until = null, intent_fence = nullif(r.intent_fence, $4), tried_at = now(), attempts = r.attempts + 1,
    due_at = ${leaseUntil("(least($6::double precision, $5::double precision * power(2, least(r.attempts, 30))) * (0.5 + random() / 2))")}
  where ${MINE}`,
};
