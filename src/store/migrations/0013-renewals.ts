import type { Knex } from "knex";

/** Stored in the database; never changes. */
export const name = "0013_renewals";

const SQL = `
alter table credential_refresh add column intent_fence bigint, add column tried_at timestamptz;
comment on column credential_refresh.intent_fence is 'Fence of the renewal that was journaled last, until its outcome is stored: what it brings is still taken after its lease, as long as nobody else has sent anything.';
comment on column credential_refresh.tried_at is 'When the last attempt ended; null before the first with this secret.';
`;

/** What a renewal that outlives its lease needs, and when the last one ended. */
export const up = async (knex: Knex): Promise<void> => {
  await knex.raw(SQL);
};
