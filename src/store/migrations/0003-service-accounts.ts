import type { Knex } from "knex";
import { tenantTable } from "./tenancy.ts";

/** Stored in the database; never changes. */
export const name = "0003_service_accounts";

const SQL = `
create table service_account (
  organization_id uuid not null,
  id uuid not null,
  name text not null,
  created_at timestamptz(3) not null default now(),
  constraint service_account_pkey primary key (organization_id, id),
  constraint service_account_name_must_have_1_to_255_characters check (length(name) between 1 and 255)
);
comment on table service_account is 'Callers that are programs, such as executors of flows.';
${tenantTable("service_account")}

create table service_account_key (
  id uuid not null,
  organization_id uuid not null,
  service_account_id uuid not null,
  token_prefix text not null,
  token_hash bytea not null,
  created_at timestamptz(3) not null default now(),
  expires_at timestamptz(3),
  revoked_at timestamptz(3),
  constraint service_account_key_pkey primary key (organization_id, id),
  constraint service_account_key_prefix_must_be_unique unique (token_prefix),
  constraint service_account_key_hash_must_be_32_bytes check (length(token_hash) = 32),
  constraint service_account_key_account_fkey foreign key (organization_id, service_account_id)
    references service_account (organization_id, id) on delete restrict
);
comment on table service_account_key is 'API keys. Found by prefix before an organization is known, therefore without row-level security and without any secret.';
comment on column service_account_key.token_prefix is 'Public part of the key, by which it is found.';
comment on column service_account_key.token_hash is 'SHA-256 of the key, which has 256 random bits; the key itself is not stored.';
create index service_account_key_account_idx on service_account_key (organization_id, service_account_id);
`;

/** Service accounts and their API keys. */
export const up = async (knex: Knex): Promise<void> => {
  await knex.raw(SQL);
};
