import type { Knex } from "knex";

/** Stored in the database; never changes. */
export const name = "0016_compatibility";

const SQL = `
create table schema_compatibility (
  singleton boolean not null default true,
  needs text not null,
  constraint schema_compatibility_pkey primary key (singleton),
  constraint schema_compatibility_must_be_one check (singleton)
);
comment on table schema_compatibility is 'Which code can work with this schema: whoever knows the migration that is named here, whatever else the database has. Set by migrations that take something away.';
insert into schema_compatibility (needs) values ('${name}');
`;

/** The database tells code that is older than its schema whether it can work with it. */
export const up = async (knex: Knex): Promise<void> => {
  await knex.raw(SQL);
};
