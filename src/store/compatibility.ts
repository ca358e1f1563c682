import type { Knex } from "knex";
import { StoreSetupError } from "./errors.ts";
import { type Migration, MIGRATION_TABLE } from "./migrations/index.ts";

/** How the schema of a database differs from the one that code knows. */
export interface Difference {
  /** Why the code cannot work with the database although it may lack nothing: that has gone on without it. */
  readonly fault: StoreSetupError | undefined;
  /** Oldest migration that the code knows and the database lacks. */
  readonly missing: string | undefined;
  /** Oldest migration that the database has and the code does not know, although it can work with it. */
  readonly unknown: string | undefined;
}

/**
 * Compares a migrated database with the migrations that code knows. A database that is ahead is fine where it has taken nothing away
 * that this code needs, as in the middle of a rolling upgrade, or after the code was rolled back.
 */
export async function compare(knex: Knex, known: readonly Migration[]): Promise<Difference> {
  const applied = await appliedMigrations(knex);
  const names = known.map(({ name }) => name);
  const missing = names.find((name) => !applied.includes(name));
  const unknown = applied.find((name) => !names.includes(name));
  return { missing, unknown, fault: unknown === undefined ? undefined : await faultOf(knex, names, unknown, missing) };
}

async function faultOf(knex: Knex, names: readonly string[], unknown: string, missing: string | undefined): Promise<StoreSetupError | undefined> {
  const needs = await neededMigration(knex);
  if (needs === undefined || !names.includes(needs)) {
    return new StoreSetupError(`the database is ahead of this version of the service: it has the migration ${unknown}, and needs a version that knows ${needs ?? unknown}; run a newer version`);
  }
  if (missing === undefined) return undefined;
  return new StoreSetupError(`the database is of another line of versions: it has the migration ${unknown}, which this one does not know, and lacks ${missing}`);
}

/** Names of the migrations that the database has, in order. */
async function appliedMigrations(knex: Knex): Promise<string[]> {
  const rows = await knex(MIGRATION_TABLE).select<{ name: string }[]>("name").orderBy("id");
  return rows.map((row) => row.name);
}

/** The migration that code has to know to work with the database; undefined where it does not say. */
async function neededMigration(knex: Knex): Promise<string | undefined> {
  const { rows } = await knex.raw("select to_regclass('public.schema_compatibility') is not null as says");
  const [{ says }] = rows as [{ says: boolean }];
  const [row] = says ? await knex("schema_compatibility").select<{ needs: string }[]>("needs") : [];
  return row?.needs;
}
