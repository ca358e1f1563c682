import type { Knex } from "knex";
import { tenantTable } from "./tenancy.ts";

/** Stored in the database; never changes. */
export const name = "0009_retries";

const SQL = `
create table idempotency_record (
  organization_id uuid not null,
  actor_kind text not null,
  actor_id text not null,
  action text not null,
  key_hash bytea not null,
  request_hash bytea not null,
  key_version bigint not null,
  answer jsonb not null,
  expires_at timestamptz(3) not null,
  constraint idempotency_record_pkey primary key (organization_id, actor_kind, actor_id, action, key_hash),
  constraint idempotency_record_hashes_must_be_32_bytes check (length(key_hash) = 32 and length(request_hash) = 32)
);
comment on table idempotency_record is 'Writes that came with an idempotency key, each committed together with its effect. Holds no secret.';
comment on column idempotency_record.key_hash is 'SHA-256 of the key that the caller chose.';
comment on column idempotency_record.request_hash is 'HMAC-SHA-256 of the request under the organization''s fingerprint key, so that a secret in it cannot be guessed from here.';
comment on column idempotency_record.key_version is 'Version of the organization key that request_hash was made with.';
comment on column idempotency_record.answer is 'The row that the answer was made of.';
create index idempotency_record_expiry_idx on idempotency_record (organization_id, expires_at);
${tenantTable("idempotency_record")}

create table credential_use (
  organization_id uuid not null,
  credential_id uuid not null,
  service_account_id uuid not null,
  flow_id text not null,
  last_run_id text,
  last_used_at timestamptz(3) not null,
  uses bigint not null,
  constraint credential_use_pkey primary key (organization_id, credential_id, service_account_id, flow_id),
  constraint credential_use_must_be_counted check (uses >= 1)
);
comment on table credential_use is 'Who resolves a credential, for which flow, and when last. Written behind the calls, a moment late; the audit trail is exact.';
comment on column credential_use.flow_id is 'Flow that the caller named; empty where it named none.';
create index credential_use_newest_idx on credential_use (organization_id, credential_id, last_used_at desc);
${tenantTable("credential_use")}

create table credential_limit (
  organization_id uuid not null,
  provider text not null,
  n integer not null,
  constraint credential_limit_pkey primary key (organization_id, provider),
  constraint credential_limit_must_be_positive check (n between 1 and 1000000)
);
comment on table credential_limit is 'Limits of active credentials that operators set, in the place of the installation''s own.';
${tenantTable("credential_limit")}

create table credential_previous (
  organization_id uuid not null,
  credential_id uuid not null,
  secret_version bigint not null,
  credential_type text not null,
  sealed ciphertext not null,
  account_email text,
  token_expires_at timestamptz(3),
  kept_until timestamptz(3) not null,
  constraint credential_previous_pkey primary key (organization_id, credential_id),
  constraint credential_previous_sealed_must_have_its_format check (get_byte(sealed, 0) = 197)
);
alter table credential_previous alter column sealed set storage external;
comment on table credential_previous is 'The secret before the newest one, where its update asked to keep it for a while.';
comment on column credential_previous.sealed is 'Sealed secret, bound to the version it had.';
comment on column credential_previous.kept_until is 'Cannot be gone back to since then, and is removed soon after.';
${tenantTable("credential_previous")}

create table purge_due (
  organization_id uuid not null,
  credential_id uuid not null,
  kind text not null,
  since timestamptz(3) not null,
  constraint purge_due_pkey primary key (organization_id, credential_id, kind),
  constraint purge_due_kind_must_be_known check (kind in ('deleted', 'previous'))
);
comment on table purge_due is 'Sealed secrets that nothing needs any more, by credential and since when, so that they are found without looking at any organization.';
create index purge_due_since_idx on purge_due (kind, since);

create function note_deletion() returns trigger language plpgsql as $$
begin
  if new.deleted_at is not null then
    insert into purge_due (organization_id, credential_id, kind, since) values (new.organization_id, new.id, 'deleted', new.deleted_at)
      on conflict (organization_id, credential_id, kind) do update set since = excluded.since;
  else
    delete from purge_due where organization_id = new.organization_id and credential_id = new.id and kind = 'deleted';
  end if;
  return null;
end $$;
comment on function note_deletion() is 'Keeps purge_due in step with deletions, by whatever statement they come.';
create trigger credential_deletion after update of deleted_at on credential for each row
  when (old.deleted_at is distinct from new.deleted_at and new.sealed is not null) execute function note_deletion();

create function note_previous() returns trigger language plpgsql as $$
begin
  insert into purge_due (organization_id, credential_id, kind, since) values (new.organization_id, new.credential_id, 'previous', new.kept_until)
    on conflict (organization_id, credential_id, kind) do update set since = excluded.since;
  return null;
end $$;
comment on function note_previous() is 'Keeps purge_due in step with kept secrets.';
create trigger credential_previous_kept after insert or update of kept_until on credential_previous for each row execute function note_previous();
alter table credential no force row level security;
insert into purge_due (organization_id, credential_id, kind, since)
  select organization_id, id, 'deleted', deleted_at from credential where deleted_at is not null and sealed is not null;
alter table credential force row level security;
`;

/** What retries, rollbacks and clearing away need. */
export const up = async (knex: Knex): Promise<void> => {
  await knex.raw(SQL);
};
