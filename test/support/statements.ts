import { randomBytes } from "node:crypto";
import type pg from "pg";
import { parseDatabaseUrl } from "../../src/store/connection.ts";
import { startEmbedded } from "../../src/store/embedded.ts";
import { migrate } from "../../src/store/migrate.ts";
import { connect, type FreshDatabase } from "./postgres.ts";
import { temporaryFolder } from "./service.ts";

/** What one SQL text cost. */
export interface Cost {
  readonly text: string;
  /** How often it was executed. */
  readonly calls: number;
  /** What it wrote to the log of changes, bytes. No images of whole pages are in it. */
  readonly walBytes: number;
}

/** A migrated database on a server of its own that counts what every statement of the service costs. */
export interface CountingDatabase extends FreshDatabase {
  readonly superuser: pg.Client;
  /** Runs work, and tells what the application role executed meanwhile, its sweeps included. */
  during(work: () => Promise<unknown>): Promise<Cost[]>;
}

/** Starts the server. Pages are never written to the log whole, which depends on when the last checkpoint was. */
export async function countingDatabase(): Promise<CountingDatabase> {
  const folder = temporaryFolder();
  const settings = { fsync: "off", full_page_writes: "off", shared_preload_libraries: "pg_stat_statements", "pg_stat_statements.track_utility": "on", autovacuum: "off" };
  const server = await startEmbedded(folder.path, { settings });
  await migrate({ url: server.ownerUrl, applicationRole: parseDatabaseUrl(server.applicationUrl).user });
  const superuser = await connect(server.superuserUrl);
  await superuser.query(`create schema ${SCHEMA}; create extension pg_stat_statements schema ${SCHEMA}`);
  return {
    name: "flow_credentials",
    applicationUrl: server.applicationUrl, ownerUrl: server.ownerUrl, superuserUrl: server.superuserUrl, superuser,
    async during(work) {
      await superuser.query(`select ${SCHEMA}.pg_stat_statements_reset()`);
      await work();
      const { rows } = await superuser.query<Cost>(
        `select s.query as text, sum(s.calls)::integer as calls, sum(s.wal_bytes)::float8 as "walBytes" from ${SCHEMA}.pg_stat_statements s join pg_roles r on r.oid = s.userid where r.rolname = $1 group by 1`,
        [parseDatabaseUrl(server.applicationUrl).user],
      );
      return rows;
    },
    async [Symbol.asyncDispose]() {
      await superuser.end();
      await server.stop();
      folder[Symbol.dispose]();
    },
  };
}

const SCHEMA = `counting_${randomBytes(4).toString("hex")}`;
