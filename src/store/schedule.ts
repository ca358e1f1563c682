/** How long before its end a token is renewed: five minutes or a tenth of its lifetime, but at most a week and half of it. */
const lead = (endsAt: string): string =>
  `least(greatest(interval '5 minutes', (${endsAt} - now()) * 0.1), interval '7 days', greatest(${endsAt} - now(), interval '0') * 0.5)`;

/** After how long a grant is renewed whose token has no known end, so that the provider does not forget it. */
const IDLE = "interval '7 days'";

/** A fifth of a time is cut off at random, so that what was stored together is not due together. */
const SPREAD = "(1 - 0.2 * random())";

/** When a grant is due whose access token ends at that time, in SQL; the end may be null. */
export const dueAt = (endsAt: string): string =>
  `case when ${endsAt} is null then now() + ${IDLE} * ${SPREAD} else ${endsAt} - ${lead(endsAt)} * ${SPREAD} end`;

/** Whether a credential, of the table of that name, has anything to be looked after. */
const HAS_DUTIES = "(renewable or token_expires_at is not null)";

/** When a credential is first due, by what is asked for in the parameter: `due` is at once. */
const firstDue = (renewal: string): string => `case when ${renewal}::text = 'due' then now() else ${dueAt("token_expires_at")} end`;

/** Common table expression that schedules a new credential, the one row of `source`. */
export const scheduleNew = (source: string, renewal: string): string => `scheduled as (
  insert into credential_refresh (organization_id, credential_id, provider, due_at)
  select organization_id, id, provider, ${firstDue(renewal)} from ${source} where ${HAS_DUTIES}
  returning 1
)`;

/**
 * Common table expressions that schedule a replaced credential anew. Whoever is renewing the old secret loses the lease: what
 * comes of it is not to be stored.
 */
export const scheduleAnew = (source: string, renewal: string): string => `scheduled as (
  insert into credential_refresh as r (organization_id, credential_id, provider, due_at)
  select organization_id, id, provider, ${firstDue(renewal)} from ${source} where ${HAS_DUTIES}
  on conflict (organization_id, credential_id) do update set due_at = excluded.due_at, attempts = 0, fence = r.fence + 1,
    lease_token = null, lease_until = null, intent_version = null, intent_fence = null, tried_at = null
  returning 1
), unscheduled as (
  delete from credential_refresh r using ${source} s where r.organization_id = s.organization_id and r.credential_id = s.id
    and not (s.renewable or s.token_expires_at is not null)
  returning 1
)`;

/** Common table expression that forgets a deleted credential; what is being renewed then is not stored. */
export const unschedule = (source: string): string => `unscheduled as (
  delete from credential_refresh r using ${source} s where r.organization_id = s.organization_id and r.credential_id = s.id
  returning 1
)`;
