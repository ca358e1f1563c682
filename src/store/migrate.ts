import { setTimeout as sleep } from "node:timers/promises";
import knexPackage, { type Knex } from "knex";
import pg from "pg";
import { type ConnectionFields, parseDatabaseUrl } from "./connection.ts";
import { StoreFault, StoreSetupError } from "./errors.ts";
import { compare } from "./compatibility.ts";
import { type Migration, MIGRATION_TABLE, MIGRATIONS } from "./migrations/index.ts";
import { APPLICATION_GRANTS } from "./tables.ts";

/** Key of the advisory lock under which one process at a time migrates a database; any fixed number of 64 bits. */
export const MIGRATION_LOCK = "7310596872934125";

/** Longest wait for a process that migrates, ms. */
const LOCK_WAIT_MS = 60_000;

/** Pause until the lock is tried again, ms; shortened at random. */
const LOCK_RETRY_MS = 100;

/** Where the schema is to be brought up to date, and for whom. */
export interface MigrateOptions {
  /** Database, as the role that owns the schema; a direct connection, no transaction pooler. */
  readonly url: string;
  /** Certificate authority of the server, PEM. */
  readonly caFile?: string | undefined;
  /** Role of the service, which is granted what it needs and nothing else. */
  readonly applicationRole: string;
  /** Ends the wait for another process that migrates. */
  readonly signal?: AbortSignal | undefined;
  /** Longest wait for another process that migrates, ms; a minute by default. */
  readonly lockWaitMs?: number;
  /** Every migration that there is, in order; those of this code where not given. */
  readonly migrations?: readonly Migration[];
}

/**
 * Brings the schema up to date and gives back the names of the migrations that this call applied. Any number of
 * processes may do so at once: they wait for each other. A database that is ahead of this code is left as it is. Throws
 * StoreSetupError where this code cannot work with it, or it cannot be reached, lacks the application role, or is being migrated for
 * too long by somebody else.
 */
export async function migrate(options: MigrateOptions): Promise<string[]> {
  const fields = parseDatabaseUrl(options.url, options.caFile);
  const lock = new pg.Client(fields);
  lock.on("error", () => {});
  try {
    await lock.connect();
    await takeLock(lock, Date.now() + (options.lockWaitMs ?? LOCK_WAIT_MS), options.signal);
    return await migrateLocked(fields, options.applicationRole, options.migrations ?? MIGRATIONS);
  } catch (error) {
    if (error instanceof StoreSetupError) throw error;
    throw new StoreSetupError(`the database could not be migrated: ${new StoreFault(error).message}`);
  } finally {
    await lock.end().catch(() => {});
  }
}

/** Tries until the lock is had: a statement that waits for it would wait without end, and could not be interrupted. */
async function takeLock(client: pg.Client, deadline: number, signal: AbortSignal | undefined): Promise<void> {
  for (;;) {
    if (signal?.aborted) throw new StoreSetupError("the migration was given up while another process migrates the database");
    const { rows } = await client.query<{ locked: boolean }>("select pg_try_advisory_lock($1) as locked", [MIGRATION_LOCK]);
    if (rows[0]?.locked === true) return;
    if (Date.now() >= deadline) throw new StoreSetupError("another process has been migrating the database for too long; see what holds its advisory lock, then start again");
    await sleep(LOCK_RETRY_MS * (0.5 + Math.random() / 2), undefined, signal && { signal }).catch(() => {});
  }
}

const sourceOf = (migrations: readonly Migration[]): Knex.MigrationSource<Migration> => ({
  getMigrations: async () => [...migrations],
  getMigrationName: (migration) => migration.name,
  getMigration: async (migration) => ({ up: (knex) => apply(knex, migration), down: async () => {} }),
});

/** Takes a step of the schema, and says in the same transaction who can work with it afterwards, where that are fewer. */
async function apply(knex: Knex, { up, needs }: Migration): Promise<void> {
  await up(knex);
  if (needs !== undefined) await knex("schema_compatibility").update({ needs });
}

async function migrateLocked(fields: ConnectionFields, applicationRole: string, migrations: readonly Migration[]): Promise<string[]> {
  const knex = knexPackage.knex({ client: "pg", version: "18", connection: () => ({ ...fields }), pool: { min: 0, max: 2 } });
  try {
    const { rows } = await knex.raw("select to_regclass(?) is not null as migrated, to_regrole(?) is not null as granted", [
      `public.${MIGRATION_TABLE}`, quoted(applicationRole),
    ]);
    const [{ migrated, granted }] = rows as [{ migrated: boolean; granted: boolean }];
    if (!granted) throw new StoreSetupError("the application role does not exist; create it first");
    const { fault, unknown } = migrated ? await compare(knex, migrations) : {};
    if (fault !== undefined) throw fault;
    // What newer code has granted stays granted.
    if (unknown !== undefined) return [];
    // A killed migration leaves Knex's own lock behind. Whoever holds the advisory lock knows that nobody else migrates.
    if (migrated) await knex.migrate.forceFreeMigrationsLock({ tableName: MIGRATION_TABLE });
    const [, applied] = (await knex.migrate.latest({ migrationSource: sourceOf(migrations), tableName: MIGRATION_TABLE })) as [number, string[]];
    await grant(knex, applicationRole);
    return applied;
  } finally {
    await knex.destroy();
  }
}

const quoted = (identifier: string): string => `"${identifier.replaceAll('"', '""')}"`;

/**
 * Replaces everything the application role may do, in one transaction, so that running replicas notice nothing. It makes no
 * objects: neither in the schema nor temporary ones, which it could put in the place of a table.
 */
async function grant(knex: Knex, applicationRole: string): Promise<void> {
  const role = quoted(applicationRole);
  await knex.transaction(async (trx) => {
    const { rows } = await trx.raw("select current_database() as name");
    const [{ name }] = rows as [{ name: string }];
    await trx.raw(`revoke temporary on database ${quoted(name)} from public, ${role}`);
    await trx.raw(`revoke create on schema public from public, ${role}`);
    await trx.raw(`revoke all on all tables in schema public from ${role}`);
    await trx.raw(`grant usage on schema public to ${role}`);
    for (const [table, privileges] of Object.entries(APPLICATION_GRANTS)) {
      await trx.raw(`grant ${privileges.join(", ")} on ${quoted(table)} to ${role}`);
    }
  });
}
