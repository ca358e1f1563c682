import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { parseDatabaseUrl } from "../../src/store/connection.ts";
import { migrate } from "../../src/store/migrate.ts";
import { startPostgres } from "./postgres.ts";
import { compiled, type Measured, startMeasured } from "./process.ts";

/** A database of the benchmark's own, durable as in production. */
export interface BenchDatabase {
  readonly applicationUrl: string;
  readonly ownerUrl: string;
  readonly superuserUrl: string;
  /** The server's version, as it says it. */
  readonly version: string;
  /** Everything, past row-level security: for floors and for filling. */
  readonly superuser: pg.Client;
  /** The server's log. */
  readonly logFile: string;
}

/** A run of the benchmark: its folder, its servers, its database. All of it ends with the run. */
export class Session implements AsyncDisposable {
  readonly folder: string;
  readonly #running = new Set<Measured>();
  #closeDatabase: (() => Promise<void>) | undefined;

  constructor() {
    this.folder = mkdtempSync(join(tmpdir(), "flow-credentials-bench-"));
    // The embedded database runs as another user where this one is root.
    chmodSync(this.folder, 0o755);
  }

  /** Runs a TypeScript file, compiled, as a server until it is stopped, at the latest with the run. */
  async start(script: string, env: Readonly<Record<string, string>> = {}): Promise<Measured> {
    const server = await startMeasured(compiled(script), env, join(this.folder, "log"));
    const stop = async () => {
      if (this.#running.delete(one)) await server.stop();
    };
    const one: Measured = { ...server, stop };
    this.#running.add(one);
    return one;
  }

  /** Starts a migrated database, once in a run; its server with further settings. */
  async database(settings: Readonly<Record<string, string>> = {}): Promise<BenchDatabase> {
    const server = await startPostgres(join(this.folder, "data"), settings);
    await migrate({ url: server.ownerUrl, applicationRole: parseDatabaseUrl(server.applicationUrl).user });
    const superuser = new pg.Client({ ...parseDatabaseUrl(server.superuserUrl) });
    await superuser.connect();
    const { rows: [row] } = await superuser.query<{ server_version: string }>("show server_version");
    this.#closeDatabase = async () => {
      await superuser.end();
      await server.stop();
    };
    const { applicationUrl, ownerUrl, superuserUrl } = server;
    return { applicationUrl, ownerUrl, superuserUrl, superuser, version: row?.server_version ?? "", logFile: join(server.dataDir, "..", "postgres.log") };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#running) await server.stop().catch(() => undefined);
    await this.#closeDatabase?.();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

const RESULTS = "bench/results";

/** What the figures were measured on. */
export const machine = ({ version }: BenchDatabase) => ({ node: process.version, postgres: version, cpu: cpus()[0]?.model ?? "", cores: cpus().length, memoryGiB: Math.round(totalmem() / 2 ** 30) });

/** Writes a file of results; gives its path. */
export function writeResult(name: string, content: string): string {
  mkdirSync(RESULTS, { recursive: true });
  const file = join(RESULTS, name);
  writeFileSync(file, content);
  return file;
}

/** The newest results of a kind, whose files are named by it and a date; undefined where there are none. */
export function newestResult(kind: string): unknown {
  const named = new RegExp(`^${kind}-\\d{4}-\\d\\d-\\d\\d\\.json$`);
  let names: string[];
  try {
    names = readdirSync(RESULTS);
  } catch {
    return undefined;
  }
  const newest = names.filter((name) => named.test(name)).toSorted().at(-1);
  return newest === undefined ? undefined : JSON.parse(readFileSync(join(RESULTS, newest), "utf8"));
}
