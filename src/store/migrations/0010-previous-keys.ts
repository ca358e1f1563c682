import type { Knex } from "knex";

/** Stored in the database; never changes. */
export const name = "0010_previous_keys";

const SQL = `
alter table credential_previous add column key_version bigint generated always as (sealed_key_version(sealed)) stored;
comment on column credential_previous.key_version is 'Version of the organization key that the sealed value itself names; generated, so that it cannot differ from the bytes.';
create index credential_previous_key_version_idx on credential_previous (organization_id, key_version, credential_id);
create trigger credential_previous_sealed_with_open_key before insert on credential_previous for each row execute function refuse_closed_key();
-- As in credential: a rotation changes the sealed value and not the version of the secret, and looks at the key itself.
create trigger credential_previous_resealed_with_open_key before update on credential_previous for each row
  when (old.secret_version is distinct from new.secret_version) execute function refuse_closed_key();
-- Authorizations are never sealed anew: one under a closed key would keep it from being retired for another ten minutes.
create trigger oauth_authorization_sealed_with_open_key before insert on oauth_authorization for each row execute function refuse_closed_key();
`;

/** Kept secrets are moved by rotations, and nothing at all is written under a closed organization key. */
export const up = async (knex: Knex): Promise<void> => {
  await knex.raw(SQL);
};
