import { NOW } from "./now.ts";

/** Kinds of event in the outbox. */
export type CredentialEventKind = "created" | "updated" | "rotated" | "deleted" | "restored" | "status_changed";

/** The columns of an event whose kind is an expression of SQL, of the rows of a common table expression that has those of a credential. */
export const eventOfKind = (source: string, kind: string): string =>
  `select organization_id, id as credential_id, ${kind}::text as kind, provider, credential_type, status, status_reason, status_since, secret_version,
    revision as credential_revision from ${source}`;

/** The same for an event that is always of one kind. */
export const eventOf = (source: string, kind: CredentialEventKind): string => eventOfKind(source, `'${kind}'`);

/**
 * Common table expressions that write the events of `source`, which has the columns of `eventOf`; the one place where the
 * outbox is written. The organization's head is advanced, and thereby locked until the commit: events are numbered without
 * gaps, and in the order in which they become visible. Every statement that writes takes its locks in this order: counters,
 * credential, schedule, this head, the head of the audit trail; and of each kind in the order of the organizations.
 */
export const announce = (source: string): string => `numbered as (
  insert into credential_event_head as h (organization_id, revision)
  select organization_id, count(*) from ${source} group by organization_id order by organization_id
  on conflict (organization_id) do update set revision = h.revision + excluded.revision
  returning h.organization_id, h.revision
), announced as (
  insert into credential_event (organization_id, revision, occurred_at, kind, credential_id, provider, credential_type, status, status_reason,
    status_since, secret_version, credential_revision)
  select s.organization_id, n.revision + 1 - row_number() over (partition by s.organization_id order by s.credential_id), ${NOW},
    s.kind, s.credential_id, s.provider, s.credential_type, s.status, s.status_reason, s.status_since, s.secret_version, s.credential_revision
  from ${source} s join numbered n on n.organization_id = s.organization_id
  returning 1
)`;
