import type { Knex } from "knex";
import { tenantTable } from "./tenancy.ts";

/** Stored in the database; never changes. */
export const name = "0007_rotation";

const MASTER_KEYS = `
alter table key_registry add column canary ciphertext, add column canary_commitment bytea, add column retired_at timestamptz(3),
  add constraint key_registry_canary_must_be_whole check ((canary is null) = (canary_commitment is null)),
  add constraint key_registry_canary_commitment_must_be_32_bytes check (length(canary_commitment) = 32);
comment on column key_registry.canary is 'A key that wraps nothing, wrapped under the master key: a start unwraps it, to see that the key it has loaded is the right one and works.';
comment on column key_registry.canary_commitment is 'What must be derived from the canary after unwrapping.';
comment on column key_registry.retired_at is 'Nothing opens under the key since then, and it can never be the primary one again.';

create table primary_master_key (
  singleton boolean not null default true,
  master_key_id text not null,
  promoted_at timestamptz(3) not null default now(),
  constraint primary_master_key_pkey primary key (singleton),
  constraint primary_master_key_must_be_one check (singleton)
);
comment on table primary_master_key is 'The one master key that wraps. A promotion locks the row; whoever wraps or joins the replicas locks it in share mode, so that all of them agree.';

create table replica (
  id uuid not null,
  master_key_ids text[] not null,
  key_cache_seconds integer not null,
  seen_at timestamptz(3) not null,
  alive_until timestamptz(3) not null,
  constraint replica_pkey primary key (id)
);
comment on table replica is 'Processes that serve, and which master keys each has loaded. One that is silent past alive_until is taken for dead.';

create table foreign_key_check (
  check_value bytea not null,
  first_seen timestamptz(3) not null default now(),
  constraint foreign_key_check_pkey primary key (check_value),
  constraint foreign_key_check_must_be_32_bytes check (length(check_value) = 32)
);
comment on table foreign_key_check is 'Keys of other systems from which secrets were imported, by a value that reveals nothing of them: none may be a master key.';

create table organization_key_place (
  organization_id uuid not null,
  version bigint not null,
  master_key_id text not null,
  constraint organization_key_place_pkey primary key (organization_id, version)
);
create index organization_key_place_of_master_key_idx on organization_key_place (master_key_id, organization_id, version);
comment on table organization_key_place is 'Which master key wraps which organization key: ids alone, because a rotation has to find the keys of all organizations. Kept by a trigger.';
insert into organization_key_place select organization_id, version, master_key_id from organization_key where master_key_id is not null;

drop trigger organization_key_use on organization_key;
drop function count_master_key_use();
drop table master_key_use;

create function place_organization_key() returns trigger language plpgsql security definer set search_path = public, pg_temp as $$
declare
  primary_id text;
  strays boolean := false;
begin
  -- Held until the commit: a promotion waits for whoever wraps, and whoever wraps after it sees the new key.
  select master_key_id into primary_id from primary_master_key for share;
  if tg_op = 'INSERT' then
    select exists (select from added n where n.master_key_id <> primary_id) into strays;
    insert into organization_key_place select organization_id, version, master_key_id from added where master_key_id is not null;
  else
    select exists (select from added n join removed o using (organization_id, version)
      where n.wrapped is distinct from o.wrapped and n.master_key_id <> primary_id) into strays;
    update organization_key_place p set master_key_id = n.master_key_id from added n
      where p.organization_id = n.organization_id and p.version = n.version and p.master_key_id <> n.master_key_id;
    delete from organization_key_place p using added n where p.organization_id = n.organization_id and p.version = n.version and n.master_key_id is null;
  end if;
  if strays then
    raise exception using errcode = '23514', message = 'only the primary master key wraps', table = 'organization_key',
      constraint = 'organization_key_must_be_wrapped_under_the_primary_key';
  end if;
  return null;
end $$;
comment on function place_organization_key() is 'Keeps organization_key_place, and refuses keys that are wrapped under another master key than the primary one. Runs as its owner, so that the application role cannot write the places itself.';
revoke all on function place_organization_key() from public;
create trigger organization_key_placed after insert on organization_key referencing new table as added
  for each statement execute function place_organization_key();
create trigger organization_key_moved after update on organization_key referencing new table as added old table as removed
  for each statement execute function place_organization_key();

create function displace_organization_key() returns trigger language plpgsql security definer set search_path = public, pg_temp as $$
begin
  delete from organization_key_place p using removed o where p.organization_id = o.organization_id and p.version = o.version;
  return null;
end $$;
comment on function displace_organization_key() is 'The same for rows that are deleted, which only the owner may do.';
revoke all on function displace_organization_key() from public;
create trigger organization_key_displaced after delete on organization_key referencing old table as removed
  for each statement execute function displace_organization_key();
`;

const ORGANIZATION_KEYS = `
alter table organization_key add column state text not null default 'sealing',
  add constraint organization_key_state_must_be_known check (state in ('sealing', 'opening', 'closed', 'retired'));
comment on column organization_key.state is 'sealing: what is new is sealed with it; opening: values are still written with it by replicas that have not noticed; closed: none are written any more; retired: nothing opens under it.';
create unique index organization_key_one_seals_idx on organization_key (organization_id) where state = 'sealing';

create function sealed_key_version(sealed bytea) returns bigint language sql immutable parallel safe
return case when length(sealed) >= 7 then (get_byte(sealed, 3)::bigint << 24) + (get_byte(sealed, 4) << 16) + (get_byte(sealed, 5) << 8) + get_byte(sealed, 6) end;
comment on function sealed_key_version is 'The version of the organization key that a sealed value names, read from its bytes.';

alter table credential add column key_version bigint generated always as (sealed_key_version(sealed)) stored;
comment on column credential.key_version is 'Version of the organization key that the sealed value itself names; generated, so that it cannot differ from the bytes.';
create index credential_key_version_idx on credential (organization_id, key_version, id);

create function refuse_closed_key() returns trigger language plpgsql as $$
begin
  -- Numbered before it looks, so that whoever closes the key can tell when everyone who saw it open has ended.
  perform pg_current_xact_id();
  if exists (select from public.organization_key k where k.organization_id = new.organization_id
    and k.version = public.sealed_key_version(new.sealed) and k.state in ('closed', 'retired')) then
    raise exception using errcode = '23514', message = 'the organization key is closed', table = tg_table_name, constraint = 'sealed_value_must_not_name_a_closed_key';
  end if;
  return new;
end $$;
comment on function refuse_closed_key() is 'Refuses a secret that a replica has sealed with a key which a rotation has closed meanwhile.';
create trigger credential_sealed_with_open_key before insert on credential for each row when (new.sealed is not null) execute function refuse_closed_key();
-- A rotation changes the sealed value and not the version of the secret, and looks at the key itself.
create trigger credential_resealed_with_open_key before update on credential for each row
  when (new.sealed is not null and old.secret_version is distinct from new.secret_version) execute function refuse_closed_key();
`;

const ROTATIONS = `
create table rotation (
  id uuid not null,
  kind text not null,
  state text not null,
  organization_id uuid,
  from_master_key_id text,
  to_master_key_id text,
  emptied text[] not null default '{}',
  from_version bigint,
  to_version bigint,
  rows_total bigint not null,
  rows_moved bigint not null default 0,
  rows_verified bigint not null default 0,
  rows_failed bigint not null default 0,
  rows_per_second integer,
  started_at timestamptz(3) not null default now(),
  started_by text not null,
  closed_before xid8,
  finished_at timestamptz(3),
  proof bytea,
  rolls_back uuid,
  holder uuid,
  held_until timestamptz(3),
  constraint rotation_pkey primary key (id),
  constraint rotation_kind_must_be_known check (kind in ('master_key', 'organization_key', 'verification')),
  constraint rotation_state_must_be_known check (state in ('running', 'paused', 'proving', 'proven', 'incomplete', 'retired', 'rolled_back')),
  constraint rotation_master_key_must_be_named check ((kind = 'master_key') = (to_master_key_id is not null)),
  constraint rotation_organization_key_must_be_named check ((kind = 'organization_key') = (to_version is not null)),
  constraint rotation_organization_must_be_named check (kind <> 'organization_key' or organization_id is not null),
  constraint rotation_counts_must_not_be_negative check (least(rows_total, rows_moved, rows_verified, rows_failed) >= 0),
  constraint rotation_rate_must_be_positive check (rows_per_second >= 1),
  constraint rotation_proof_must_be_32_bytes check (length(proof) = 32)
);
create unique index rotation_one_at_a_time_idx on rotation (kind, coalesce(organization_id, '00000000-0000-0000-0000-000000000000'::uuid))
  where state in ('running', 'paused', 'proving', 'incomplete');
create index rotation_newest_idx on rotation (started_at desc, id);
comment on table rotation is 'Rotations of keys. Ids, counts and times alone; how much is left is read from the rows that are moved.';
comment on column rotation.emptied is 'Master keys that it empties, and that are retired with it.';
comment on column rotation.closed_before is 'Transactions from this one on have seen the old organization keys closed: once every older one has ended, no value can appear under them.';
comment on column rotation.proof is 'SHA-256 over the counts and the digest of every row that was read back; the audit record of the proof names it.';
comment on column rotation.holder is 'Replica that works on it, until held_until unless it reports again.';

create table rotation_failure (
  rotation_id uuid not null,
  place integer not null,
  organization_id uuid not null,
  credential_id uuid,
  key_version bigint not null,
  kind text not null,
  constraint rotation_failure_pkey primary key (rotation_id, place),
  constraint rotation_failure_kind_must_be_a_word check (kind ~ '^[a-z_]{1,64}$')
);
comment on table rotation_failure is 'Rows that do not open, as a rotation found them last; ids and a word.';

create table imported_credential (
  organization_id uuid not null,
  source text not null,
  credential_id uuid not null,
  sealed_at timestamptz(3) not null,
  imported_at timestamptz(3) not null default now(),
  constraint imported_credential_pkey primary key (organization_id, source)
);
comment on table imported_credential is 'Secrets that were taken over from another system, so that none is taken over twice.';
comment on column imported_credential.source is 'Which row of the other system it was.';
comment on column imported_credential.sealed_at is 'When the other system sealed it.';
${tenantTable("imported_credential")}
`;

/** Keys that can be rotated, proven and destroyed while the service runs. */
export const up = async (knex: Knex): Promise<void> => {
  await knex.raw(MASTER_KEYS);
  await knex.raw(ORGANIZATION_KEYS);
  await knex.raw(ROTATIONS);
};
