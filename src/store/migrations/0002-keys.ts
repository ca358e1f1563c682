import type { Knex } from "knex";
import { tenantTable } from "./tenancy.ts";

/** Stored in the database; never changes. */
export const name = "0002_keys";

const SQL = `
create table organization_key (
  organization_id uuid not null,
  version bigint not null,
  wrapped ciphertext,
  master_key_id text,
  commitment bytea not null,
  created_at timestamptz(3) not null default now(),
  destroyed_at timestamptz(3),
  constraint organization_key_pkey primary key (organization_id, version),
  constraint organization_key_version_must_fit_its_format check (version between 1 and 4294967295),
  constraint organization_key_must_be_wrapped_until_destroyed check ((wrapped is null) = (destroyed_at is not null)),
  constraint organization_key_wrapped_must_have_its_format check (get_byte(wrapped, 0) = 196),
  constraint organization_key_master_key_id_must_be_that_of_the_bytes check (
    case when wrapped is null then master_key_id is null
      else coalesce(length(wrapped) > 4 and substring(wrapped from 5 for get_byte(wrapped, 3)) = convert_to(master_key_id, 'UTF8'), false) end),
  constraint organization_key_commitment_must_be_32_bytes check (length(commitment) = 32)
);
comment on table organization_key is 'Keys of organizations, each wrapped under a master key. Committed before anything is sealed with them.';
comment on column organization_key.version is 'Named in every value that is sealed with the key.';
comment on column organization_key.wrapped is 'The key, wrapped, first byte 0xC4; null once the organization was destroyed.';
comment on column organization_key.master_key_id is 'Master key that wraps it; always the id that the wrapped bytes themselves name.';
comment on column organization_key.commitment is 'Must equal the commitment that is derived from the key after unwrapping, before the key is used.';
comment on column organization_key.destroyed_at is 'Nothing sealed with the key can be opened since then.';
${tenantTable("organization_key")}

create table key_registry (
  master_key_id text not null,
  check_value bytea not null,
  first_seen timestamptz(3) not null default now(),
  constraint key_registry_pkey primary key (master_key_id),
  constraint key_registry_check_value_must_be_32_bytes check (length(check_value) = 32)
);
comment on table key_registry is 'Master keys that were ever loaded, by a value that reveals nothing of them, so that a wrong key is noticed at the start.';

create table master_key_use (
  master_key_id text not null,
  n bigint not null,
  constraint master_key_use_pkey primary key (master_key_id),
  constraint master_key_use_must_not_be_negative check (n >= 0)
);
comment on table master_key_use is 'How many organization keys each master key wraps. Kept by a trigger, because no role may read the keys of all organizations.';

create function count_master_key_use() returns trigger language plpgsql security definer set search_path = public, pg_temp as $$
begin
  if tg_op <> 'INSERT' and old.master_key_id is not null then
    update master_key_use set n = n - 1 where master_key_id = old.master_key_id;
  end if;
  if tg_op <> 'DELETE' and new.master_key_id is not null then
    insert into master_key_use as u (master_key_id, n) values (new.master_key_id, 1)
      on conflict (master_key_id) do update set n = u.n + 1;
  end if;
  return null;
end $$;
comment on function count_master_key_use() is 'Keeps master_key_use. Runs as its owner, so that the application role cannot write the counts itself.';
revoke all on function count_master_key_use() from public;
create trigger organization_key_use after insert or delete or update of master_key_id on organization_key
  for each row execute function count_master_key_use();
create trigger organization_key_immutable before update on organization_key for each row
  when ((old.organization_id, old.version, old.commitment, old.created_at) is distinct from (new.organization_id, new.version, new.commitment, new.created_at))
  execute function refuse_change();
`;

/** Keys of organizations, and what is known of the master keys. */
export const up = async (knex: Knex): Promise<void> => {
  await knex.raw(SQL);
};
