import type { Knex } from "knex";
import { tenantTable } from "./tenancy.ts";

/** Stored in the database; never changes. */
export const name = "0005_oauth";

const SQL = `
alter table credential
  add column oauth_origin text not null default 'posted',
  add column account_id text,
  add column requested_scopes text[],
  add column granted_scopes text[],
  add constraint credential_oauth_origin_must_be_known check (oauth_origin in ('posted', 'flow'));
comment on column credential.oauth_origin is 'Whose client the tokens belong to: posted by a caller, or made by our own authorization flow.';
comment on column credential.account_id is 'Account at the provider that authorized, where our flow made the credential.';
comment on column credential.requested_scopes is 'What our flow asked for.';
comment on column credential.granted_scopes is 'What the provider said it granted; null where it said nothing.';

create table oauth_authorization (
  organization_id uuid not null,
  id uuid not null,
  user_id uuid not null,
  provider text not null,
  browser_hash bytea,
  sealed ciphertext not null,
  created_at timestamptz(3) not null default now(),
  expires_at timestamptz(3) not null,
  constraint oauth_authorization_pkey primary key (organization_id, id),
  constraint oauth_authorization_browser_hash_must_be_32_bytes check (length(browser_hash) = 32),
  constraint oauth_authorization_sealed_must_have_its_format check (get_byte(sealed, 0) = 197),
  constraint oauth_authorization_must_expire_later check (expires_at > created_at)
);
comment on table oauth_authorization is 'Authorizations in progress: begun by a user, not yet answered by the provider. A row is deleted by whoever uses it.';
comment on column oauth_authorization.id is 'Bound into the sealed value.';
comment on column oauth_authorization.user_id is 'User who began it.';
comment on column oauth_authorization.provider is 'System it connects to; bound into the sealed value.';
comment on column oauth_authorization.browser_hash is 'SHA-256 of the 256 random bits in the cookie of the browser in which it began; null where it began outside one.';
comment on column oauth_authorization.sealed is 'Code verifier, nonce, scopes, redirect and the credential that is authorized anew. Lives shorter than any rotation of keys, so that it is never sealed anew.';
comment on column oauth_authorization.expires_at is 'By the clock of the database.';
create index oauth_authorization_of_user_idx on oauth_authorization (organization_id, user_id, created_at);
create index oauth_authorization_expiry_idx on oauth_authorization (organization_id, expires_at);
${tenantTable("oauth_authorization")}

create table oauth_state (
  state_hash bytea not null,
  organization_id uuid not null,
  authorization_id uuid not null,
  constraint oauth_state_pkey primary key (state_hash),
  constraint oauth_state_hash_must_be_32_bytes check (length(state_hash) = 32),
  constraint oauth_state_authorization_fkey foreign key (organization_id, authorization_id)
    references oauth_authorization (organization_id, id) on delete cascade
);
comment on table oauth_state is 'Which authorization a state belongs to. Found before an organization is known, therefore without row-level security and without any secret.';
comment on column oauth_state.state_hash is 'SHA-256 of the state, which has 256 random bits; the state itself is not stored.';
create index oauth_state_authorization_idx on oauth_state (organization_id, authorization_id);
`;

/** Credentials made by an authorization flow, and the authorizations in progress. */
export const up = async (knex: Knex): Promise<void> => {
  await knex.raw(SQL);
};
