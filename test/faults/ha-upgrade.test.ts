import { execFileSync } from "node:child_process";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { migrate } from "../../src/store/migrate.ts";
import { MIGRATIONS } from "../../src/store/migrations/index.ts";
import { type Replicas, startReplicas, WELL } from "../support/ha.ts";
import { AFTER_NEXT, GRANTS, NEXT } from "../support/next-release.ts";
import { unpack } from "../support/package.ts";
import { connect, freshDatabase, type FreshDatabase } from "../support/postgres.ts";
import { serviceEnv, startService, temporaryFolder } from "../support/service.ts";

const LONG = process.env["FLOW_TEST_LONG"] !== undefined;
const CALLS = LONG ? 2_000 : 80;

/** The release before, as it was packed: a release replaces the file by its own package once it is out. */
const PREVIOUS = resolve("test/vectors/previous-release.tgz");

let folder: ReturnType<typeof temporaryFolder>;
let previous: { readonly service: string; readonly command: string };
beforeAll(() => {
  folder = temporaryFolder();
  const installed = unpack({ tarball: PREVIOUS }, folder.path);
  previous = { service: join(installed, "dist/src/main.js"), command: join(installed, "dist/src/cli/main.js") };
});
afterAll(() => folder[Symbol.dispose]());

const upgraded = ({ ownerUrl: url }: FreshDatabase, migrations = MIGRATIONS) => migrate({ url, applicationRole: "credentials_app", migrations });

async function faultsOf(replicas: Replicas, { superuserUrl }: FreshDatabase): Promise<string[]> {
  await using superuser = await connect(superuserUrl);
  return await replicas.faults(async (sql, values = []) => (await superuser.query(sql, [...values])).rows);
}

test("replicas of the release before are replaced one by one while calls go on: not one fails, and each release opens what the other has sealed", async () => {
  await using database = await freshDatabase("empty");
  const migrated = execFileSync(process.execPath, [previous.command, "migrate"], { env: serviceEnv(database), encoding: "utf8" });
  expect(migrated).toContain("0001_credentials");
  await using replicas = await startReplicas(2, database.applicationUrl, {}, previous.service);
  const { load } = replicas;
  expect(await load.until(CALLS)).toEqual(WELL);
  // There is something to migrate, or this tells nothing.
  const [applied, during] = await Promise.all([upgraded(database), load.until(CALLS)]);
  expect(applied).not.toEqual([]);
  expect(applied).toEqual(MIGRATIONS.slice(-applied.length).map(({ name }) => name));
  expect(during).toEqual(WELL);
  for (const index of [0, 1]) {
    const [outcomes] = await Promise.all([load.until(CALLS), replicas.replace(index, "src/main.ts")]);
    expect([...outcomes, ...(await load.until(CALLS))]).toEqual([...WELL, ...WELL]);
  }
  expect(await faultsOf(replicas, database)).toEqual([]);
}, LONG ? 300_000 : 90_000);

test("the next release adds to the schema while replicas of this one serve: they notice nothing, and one that is started again comes back, until what it needs is taken away", async () => {
  await using database = await freshDatabase();
  const env = serviceEnv(database);
  {
    await using replicas = await startReplicas(2, database.applicationUrl);
    const { load } = replicas;
    expect(await load.until(CALLS)).toEqual(WELL);
    const [applied, during] = await Promise.all([upgraded(database, NEXT), load.until(CALLS)]);
    expect([applied, during]).toEqual([["9001_expand"], WELL]);
    await using owner = await connect(database.ownerUrl);
    await owner.query(GRANTS);
    await replicas.replace(0);
    expect(replicas.running[0]?.output()).toContain("the database is ahead of this version");
    await replicas.recovered();
    // Starts of this release migrate nothing, and take back nothing that the next one has granted.
    expect(await upgraded(database)).toEqual([]);
    await using application = await connect(database.applicationUrl);
    expect((await application.query("select from team")).rows).toEqual([]);
    expect(await load.until(CALLS)).toEqual(WELL);
    expect(await faultsOf(replicas, database)).toEqual([]);
  }
  expect(await upgraded(database, AFTER_NEXT)).toEqual(["9002_contract"]);
  await expect(startService(env)).rejects.toThrow("the database is ahead of this version of the service: it has the migration 9001_expand, and needs a version that knows 9001_expand; run a newer version");
  await expect(upgraded(database)).rejects.toThrow("run a newer version");
  expect(await upgraded(database, NEXT)).toEqual([]);
}, LONG ? 300_000 : 90_000);
