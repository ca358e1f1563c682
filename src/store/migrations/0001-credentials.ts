import type { Knex } from "knex";
import { tenantTable } from "./tenancy.ts";

/** Stored in the database; never changes. */
export const name = "0001_credentials";

const SQL = `
create domain ciphertext as bytea
  constraint ciphertext_must_not_be_empty check (length(value) > 0);
comment on domain ciphertext is 'Sealed bytes. Every column of this type must have a way to be sealed anew when keys rotate.';

create function refuse_change() returns trigger language plpgsql as $$
begin
  raise exception using errcode = '23514', message = 'immutable columns cannot change', table = tg_table_name, constraint = tg_name;
end $$;
comment on function refuse_change() is 'Trigger that refuses the change it fires on.';

create table credential (
  organization_id uuid not null,
  id uuid not null,
  provider text not null,
  credential_type text not null,
  user_id uuid,
  name text,
  account_email text,
  status text not null default 'active',
  status_reason text,
  token_expires_at timestamptz(3),
  sealed ciphertext,
  secret_version bigint not null default 1,
  revision integer not null default 1,
  created_at timestamptz(3) not null,
  updated_at timestamptz(3) not null,
  modified_by text not null,
  deleted_at timestamptz(3),
  purged_at timestamptz(3),
  constraint credential_pkey primary key (organization_id, id),
  constraint credential_provider_must_be_known check (provider in
    ('microsoft', 'sharepoint', 'sftp', 'aws_ses', 'google', 'postgresql', 'internal_postgresql')),
  constraint credential_type_must_be_known check (credential_type in
    ('api_key', 'google_oauth', 'sharepoint_oauth', 'oauth2', 'user_password', 'key_file')),
  constraint credential_status_must_be_known check (status in
    ('active', 'expiring', 'refresh_failed', 'reauth_required', 'in_doubt')),
  constraint credential_must_be_sealed_until_purged check ((sealed is null) = (purged_at is not null)),
  constraint credential_sealed_must_have_its_format check (get_byte(sealed, 0) = 197),
  constraint credential_must_be_deleted_before_purged check (purged_at is null or deleted_at is not null),
  constraint credential_secret_version_must_be_positive check (secret_version >= 1),
  constraint credential_revision_must_be_positive check (revision >= 1),
  constraint credential_modified_by_must_be_an_id_or_a_word check (modified_by ~ '^([0-9a-f-]{36}|service-account|system)$'),
  constraint credential_times_must_be_ordered check (updated_at >= created_at)
);
alter table credential alter column sealed set storage external;
comment on table credential is 'Credentials of integrations: what is known about them, and the sealed secret.';
comment on column credential.organization_id is 'Tenant. Immutable; bound into the sealed value.';
comment on column credential.id is 'Immutable; bound into the sealed value.';
comment on column credential.provider is 'System the credential connects to. Immutable; bound into the sealed value.';
comment on column credential.credential_type is 'Shape of the secret; bound into the sealed value.';
comment on column credential.user_id is 'User who created it and whose limit it counts against. Immutable.';
comment on column credential.name is 'Name for people.';
comment on column credential.account_email is 'Account at the provider, where it is known.';
comment on column credential.status is 'Whether it can be used.';
comment on column credential.status_reason is 'Why it cannot; a stable word.';
comment on column credential.token_expires_at is 'When the access token expires, where there is one.';
comment on column credential.sealed is 'Sealed secret, first byte 0xC5; null only once purged. Stored uncompressed: ciphertext does not compress.';
comment on column credential.secret_version is 'Changes with every change of the secret, by whomever; bound into the sealed value.';
comment on column credential.revision is 'Changes with every write by a caller.';
comment on column credential.created_at is 'Immutable. Milliseconds, as callers see it.';
comment on column credential.updated_at is 'Strictly increasing with every write by a caller.';
comment on column credential.modified_by is 'Who wrote last: a user''s id, or the word for every service account or for the service itself.';
comment on column credential.deleted_at is 'Hidden from every read since then.';
comment on column credential.purged_at is 'The sealed secret is gone since then.';

create index credential_newest_idx on credential (organization_id, created_at desc, id desc) where deleted_at is null;
create index credential_newest_of_user_idx on credential (organization_id, user_id, created_at desc, id desc) where deleted_at is null;
create index credential_newest_of_provider_idx on credential (organization_id, provider, created_at desc, id desc) where deleted_at is null;

create trigger credential_immutable before update on credential for each row
  when ((old.organization_id, old.id, old.provider, old.user_id, old.created_at)
    is distinct from (new.organization_id, new.id, new.provider, new.user_id, new.created_at))
  execute function refuse_change();

create table credential_counter (
  organization_id uuid not null,
  counter text not null,
  n integer not null,
  constraint credential_counter_pkey primary key (organization_id, counter),
  constraint credential_counter_must_be_known check (counter ~ '^(provider:[a-z_]+|user:[0-9a-f-]{36})$'),
  constraint credential_counter_must_not_be_negative check (n >= 0)
);
comment on table credential_counter is 'Active credentials, counted in the transaction that creates or deletes one, so that limits hold under concurrency.';
comment on column credential_counter.counter is 'provider:<provider> for the organization, or user:<user id>.';
comment on column credential_counter.n is 'Rows of credential that are not deleted.';

create function refuse_credential_limit(provider_has_room boolean) returns boolean language plpgsql as $$
begin
  raise exception using errcode = '23514', message = 'limit of active credentials reached', table = 'credential_counter',
    constraint = case when provider_has_room then 'credential_limit_per_user' else 'credential_limit_per_provider' end;
end $$;
comment on function refuse_credential_limit(boolean) is 'Raises, so that nothing of a refused creation is counted; the constraint name says which limit.';
${tenantTable("credential")}
${tenantTable("credential_counter")}
`;

/** Credentials and the counters behind their limits. */
export const up = async (knex: Knex): Promise<void> => {
  await knex.raw(SQL);
};
