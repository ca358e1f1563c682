import type { Knex } from "knex";
import { tenantTable } from "./tenancy.ts";

/** Stored in the database; never changes. */
export const name = "0006_refresh";

const SQL = `
alter table credential
  add column renewable boolean not null default false,
  add column status_since timestamptz(3) not null default now();
comment on column credential.renewable is 'Whether the service can renew the access token without a person.';
comment on column credential.status_since is 'When status or its reason last changed.';

create table credential_refresh (
  organization_id uuid not null,
  credential_id uuid not null,
  provider text not null,
  due_at timestamptz,
  attempts integer not null default 0,
  fence bigint not null default 0,
  lease_token uuid,
  lease_until timestamptz,
  intent_version bigint,
  constraint credential_refresh_pkey primary key (organization_id, credential_id),
  constraint credential_refresh_attempts_must_not_be_negative check (attempts >= 0),
  constraint credential_refresh_fence_must_not_be_negative check (fence >= 0),
  constraint credential_refresh_lease_must_be_whole check ((lease_token is null) = (lease_until is null)),
  constraint credential_refresh_intent_version_must_be_positive check (intent_version >= 1)
);
comment on table credential_refresh is 'When each OAuth credential is to be looked after, and who does so now. Read before an organization is known, therefore without row-level security and without any secret.';
comment on column credential_refresh.provider is 'Provider of the credential, by which work is capped.';
comment on column credential_refresh.due_at is 'When its token is to be renewed, or its status to be changed; null where nothing is left to do.';
comment on column credential_refresh.attempts is 'Failures since the last success.';
comment on column credential_refresh.fence is 'Counts the leases. A holder writes only while the fence and the token are its own.';
comment on column credential_refresh.lease_token is 'Who holds the lease; drawn anew for each.';
comment on column credential_refresh.lease_until is 'When others may take the lease.';
comment on column credential_refresh.intent_version is 'Journal: a renewal was begun with the secret of this version and its outcome is not known yet.';
create index credential_refresh_due_idx on credential_refresh (provider, due_at) where due_at is not null;

create table credential_event (
  organization_id uuid not null,
  revision bigint not null,
  occurred_at timestamptz(3) not null,
  kind text not null,
  credential_id uuid not null,
  provider text not null,
  credential_type text not null,
  status text not null,
  status_reason text,
  status_since timestamptz(3) not null,
  secret_version bigint not null,
  constraint credential_event_pkey primary key (organization_id, revision),
  constraint credential_event_revision_must_be_positive check (revision >= 1),
  constraint credential_event_kind_must_be_known check (kind in ('created', 'updated', 'deleted', 'restored', 'status_changed'))
);
comment on table credential_event is 'What happened to credentials, in order: the outbox of webhooks and of the watch feed. Append-only, written in the transaction of what happened.';
comment on column credential_event.revision is 'Counts an organization''s events from 1 without gaps, in the order in which they were committed.';
comment on column credential_event.secret_version is 'Version of the secret after the event.';
${tenantTable("credential_event")}

create table credential_event_head (
  organization_id uuid not null,
  revision bigint not null,
  sent bigint not null default 0,
  due_at timestamptz not null default now(),
  attempts integer not null default 0,
  fence bigint not null default 0,
  lease_token uuid,
  lease_until timestamptz,
  constraint credential_event_head_pkey primary key (organization_id),
  constraint credential_event_head_sent_must_not_be_ahead check (sent between 0 and revision),
  constraint credential_event_head_attempts_must_not_be_negative check (attempts >= 0),
  constraint credential_event_head_fence_must_not_be_negative check (fence >= 0),
  constraint credential_event_head_lease_must_be_whole check ((lease_token is null) = (lease_until is null))
);
comment on table credential_event_head is 'The newest event of each organization, and how far webhooks have come. Its row is locked until an event is committed, which gives the events their order. Read before an organization is known, therefore without row-level security.';
comment on column credential_event_head.sent is 'Newest event that the webhook endpoint has accepted, or that was given up.';
comment on column credential_event_head.due_at is 'When the next delivery is to be tried.';
comment on column credential_event_head.attempts is 'Failed deliveries of the event after the sent one.';
comment on column credential_event_head.fence is 'Counts the leases. A holder writes only while the fence and the token are its own.';
create index credential_event_head_unsent_idx on credential_event_head (due_at) where sent < revision;

alter table audit_event drop constraint audit_event_actor_kind_must_be_known;
alter table audit_event add constraint audit_event_actor_kind_must_be_known check (actor_kind in ('user', 'service_account', 'operator', 'system'));
`;

/** Refresh schedule with its leases, and the outbox. */
export const up = async (knex: Knex): Promise<void> => {
  await knex.raw(SQL);
};
