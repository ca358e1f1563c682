import type { Migration } from "../../src/store/migrations/index.ts";
import { MIGRATIONS } from "../../src/store/migrations/index.ts";

/** What the next release may do to the schema while this one runs: everything that adds. */
const expand: Migration = {
  name: "9001_expand",
  async up(knex) {
    await knex.raw(`
      alter table credential add column owner_team text, add column colour text not null default 'none';
      create index credential_owner_team_idx on credential (organization_id, owner_team) where owner_team is not null;
      alter table audit_event add column region text;
      create table team (organization_id uuid not null, id uuid not null, constraint team_pkey primary key (organization_id, id));
      alter table credential_event drop constraint credential_event_kind_must_be_known,
        add constraint credential_event_kind_must_be_known check (kind in ('created', 'updated', 'rotated', 'deleted', 'restored', 'status_changed', 'moved')) not valid;
      do $$ declare it record; begin
        for it in select c.relname from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition and pg_has_role(c.relowner, 'usage') loop
          execute format('alter table %I add column of_the_next_release text', it.relname);
        end loop;
      end $$;`);
  },
};

/** What the code of the next release grants when it has migrated. */
export const GRANTS = "grant select, insert on team to credentials_app";

/** What the release after that one may do, and what this one cannot live with. */
const contract: Migration = {
  name: "9002_contract",
  needs: "9001_expand",
  async up(knex) {
    await knex.raw("drop function refuse_credential_in_use(uuid, uuid, integer)");
  },
};

/** Every migration of the next release. */
export const NEXT: readonly Migration[] = [...MIGRATIONS, expand];

/** Every migration of the release after the next. */
export const AFTER_NEXT: readonly Migration[] = [...NEXT, contract];
