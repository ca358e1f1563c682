import type { Knex } from "knex";

/** Stored in the database; never changes. */
export const name = "0014_previous_grants";

const SQL = `
alter table credential_previous add column oauth_origin text not null default 'posted', add column account_id text, add column requested_scopes text[], add column granted_scopes text[];
alter table credential_previous add constraint credential_previous_oauth_origin_must_be_known check (oauth_origin in ('flow', 'posted'));
comment on column credential_previous.oauth_origin is 'Who obtained the grant of that secret: flow, the service itself, or posted, the caller.';
comment on column credential_previous.account_id is 'Account at the provider that the grant belongs to, where the service obtained it.';
comment on column credential_previous.requested_scopes is 'Scopes that were asked for.';
comment on column credential_previous.granted_scopes is 'Scopes that the provider said it granted.';
`;

/** A kept secret knows whose grant it is, so that going back to it gives a credential that can be renewed. */
export const up = async (knex: Knex): Promise<void> => {
  await knex.raw(SQL);
};
