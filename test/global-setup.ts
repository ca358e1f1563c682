import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import pg from "pg";
import type { TestProject } from "vitest/node";
import { startEmbedded } from "../src/store/embedded.ts";
import { migrate } from "../src/store/migrate.ts";
import { connectionOf, onDatabase, TEMPLATE } from "./support/postgres.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** URLs of the test server: as the application role, as the owner, as the superuser. */
    postgres: { readonly applicationUrl: string; readonly ownerUrl: string; readonly superuserUrl: string };
  }
}

/** One PostgreSQL for the whole run, with a migrated template that each test file clones. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  // What crashes in a test leaves no core file, and production does not start where it would.
  if (process.platform === "linux") execFileSync("prlimit", ["--pid", String(process.pid), "--core=0:"]);
  const folder = mkdtempSync(path.join(tmpdir(), "flow-test-pg-"));
  // The machine does not lose power in a test, so waiting for the disk would only make the run slower.
  const server = await startEmbedded(folder, { settings: { fsync: "off", max_connections: "400" } });
  const superuser = new pg.Client(connectionOf(server.superuserUrl));
  await superuser.connect();
  await superuser.query(`create database ${TEMPLATE} owner credentials_owner`);
  await superuser.end();
  await migrate({ url: onDatabase(server.ownerUrl, TEMPLATE), applicationRole: "credentials_app" });
  project.provide("postgres", { applicationUrl: server.applicationUrl, ownerUrl: server.ownerUrl, superuserUrl: server.superuserUrl });
  return async () => {
    await server.stop();
    rmSync(folder, { recursive: true, force: true });
  };
}
