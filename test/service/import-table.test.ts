import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { run as command } from "../../src/cli/program.ts";
import { fernetToken, newFernetKey } from "../support/fernet.ts";
import { connect, type FreshDatabase, freshDatabase } from "../support/postgres.ts";
import { JWT_SECRET, rest, startFresh, temporaryFolder, token } from "../support/service.ts";

// Many processes are started here, and a loaded machine takes seconds for each.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const ROWS = process.env["FLOW_TEST_LONG"] ? 10_000 : 300;
const ORGANIZATIONS = Array.from({ length: 10 }, () => randomUUID());
const USER = randomUUID();
const FERNET = [newFernetKey(), newFernetKey()];
const READER = `legacy_reader_${randomUUID().slice(0, 8)}`;

const folder = temporaryFolder();
const keys = join(folder.path, "keys");
let service: Awaited<ReturnType<typeof startFresh>>;
/** The other system's database, as its owner and as a role that may read two tables of it. */
let legacy: FreshDatabase;
let readerUrl: string;

const tokenOf = (n: number) => fernetToken(FERNET[n % 2] as string, JSON.stringify({ host: "sftp.example.com", username: "u", password: `canary-p${n}` }), { at: new Date(1_500_000_000_000 + n * 1000) });

beforeAll(async () => {
  service = await startFresh({ CREDENTIALS_LIMIT_PER_PROVIDER: "100000", CREDENTIALS_LIMIT_PER_USER: "100000", CREDENTIALS_REST_RESOLVE: "on" });
  writeFileSync(keys, `${FERNET.join("\n")}\n`, { mode: 0o600 });
  legacy = await freshDatabase("empty");
  readerUrl = legacy.superuserUrl.replace("postgres@", `${READER}@`);
  await using owner = await connect(legacy.superuserUrl);
  await owner.query(`create schema old; create role ${READER} login; grant usage on schema old to ${READER};
    create table old."Secrets" (id bigint primary key, tenant uuid, owner uuid, kind text, label text, encrypted bytea, internal text);
    grant select (id, tenant, owner, kind, label, encrypted) on old."Secrets" to ${READER}`);
  const numbers = Array.from({ length: ROWS }, (_, n) => n);
  await owner.query(
    `insert into old."Secrets" select u.n, u.tenant, $3, 'user_password', 'legacy ' || u.n, convert_to(u.token, 'UTF8'), 'canary'
    from unnest($1::bigint[], $2::uuid[], $4::text[]) u(n, tenant, token)`,
    [numbers, numbers.map((n) => ORGANIZATIONS[n % ORGANIZATIONS.length]), USER, numbers.map(tokenOf)],
  );
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
  await using owner = await connect(legacy.superuserUrl);
  await owner.query(`drop owned by ${READER} cascade; drop role ${READER}`);
  await legacy[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

/** Begins the command as an operator would. */
function begin(args: readonly string[], env: Record<string, string> = { FLOW_CREDENTIALS_LEGACY_DATABASE_URL: readerUrl }) {
  const child = spawn(process.execPath, ["src/cli/main.ts", "import", "fernet", "--keys-file", keys, ...args], { env: { CREDENTIALS_JWT_SECRET: JWT_SECRET, FLOW_CREDENTIALS_TARGET: service.grpc, ...env } });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const ended = new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve) => child.once("close", (code) => resolve({ code, stdout, stderr })));
  return { child, ended };
}
const run = (args: readonly string[], env?: Record<string, string>) => begin(args, env).ended;

/** The same in this process, for what is refused before anything is called. */
async function refused(args: readonly string[], env: Record<string, string> = { FLOW_CREDENTIALS_LEGACY_DATABASE_URL: readerUrl }) {
  const told: string[] = [];
  const say = (line: string) => void told.push(line);
  return [await command(["import", "fernet", "--keys-file", keys, ...args], { env, print: say, note: say }), ...told];
}

const count = async (sql: string): Promise<number> => {
  await using superuser = await connect(service.database.superuserUrl);
  return Number((await superuser.query<{ n: string }>(`select count(*) as n from ${sql}`)).rows[0]?.n);
};

const SECRETS = [
  "--table", "old.Secrets", "--column", "organization_id=tenant", "--column", "user_id=owner", "--column", "credential_type=kind", "--column", "name=label",
  "--column", "token=encrypted", "--value", "provider=sftp", "--json",
];

test(`${ROWS} rows of a table are imported, killed half-way, resumed, and none is there twice`, async () => {
  const { child, ended } = begin(SECRETS);
  await expect.poll(() => count("imported_credential"), { timeout: 60_000, interval: 20 }).toBeGreaterThan(ROWS / 5);
  child.kill("SIGKILL");
  await ended;
  const before = await count("imported_credential");
  expect(before).toBeLessThan(ROWS);
  const { code, stdout, stderr } = await run(SECRETS);
  expect([code, stderr]).toEqual([0, ""]);
  const counts = JSON.parse(stdout);
  expect(counts).toMatchObject({ failed: 0, imported: ROWS - counts.already });
  expect(counts.already).toBeGreaterThanOrEqual(before);
  expect(await count("credential")).toBe(ROWS);
  expect(await count("(select distinct organization_id, name from credential where name ~ '^legacy [0-9]+$') c")).toBe(ROWS);
  expect(await count("audit_event where action = 'import_credential' and outcome = 'allowed'")).toBe(ROWS);
  // The time in each token is kept with the row that it came from.
  expect(await count("imported_credential where sealed_at = '2017-07-14T02:40:00Z'::timestamptz + substring(source from '^old.Secrets/(.*)$')::integer * interval '1 second'")).toBe(ROWS);
  const machine = await token("service_account", ORGANIZATIONS[7] as string);
  await using superuser = await connect(service.database.superuserUrl);
  const { rows } = await superuser.query("select id, substring(name from 8) as n from credential where organization_id = $1 limit 5", [ORGANIZATIONS[7]]);
  expect(rows).toHaveLength(5);
  for (const { id, n } of rows) {
    const { json } = await rest(service, "GET", `/integrations/credentials/${id}/credentials`, { token: machine });
    expect(json.password).toBe(`canary-p${n}`);
  }
}, 600_000);

test("a view is read as well, in the order of a key of any type, and what cannot be imported is told by its key without its values", async () => {
  await using owner = await connect(legacy.superuserUrl);
  const stranger = fernetToken(newFernetKey(), "{}");
  await owner.query(`create table old.odd (name text, organization_id text, token text); grant select on old.odd to ${READER}`);
  const organizationId = ORGANIZATIONS[0];
  // Keys with a quote, a line end and another order than that of bytes.
  for (const [name, organization, sealed] of [["a'b", organizationId, tokenOf(1)], ["B", organizationId, stranger], ["c\nd", organizationId, null], ["ä", "canary", tokenOf(4)], ["z", organizationId, tokenOf(5)]]) {
    await owner.query("insert into old.odd values ($1, $2, $3)", [name, organization, sealed]);
  }
  await owner.query(`create view old.odd_view as select *, 'user_password' as credential_type from old.odd; grant select on old.odd_view to ${READER}`);
  const before = await count("credential");
  const args = ["--table", "old.odd_view", "--row-key", "name", "--value", `user_id=${USER}`, "--value", "provider=sftp", "--concurrency", "1"];
  const { code, stdout, stderr } = await run(args, { FLOW_CREDENTIALS_LEGACY_DATABASE_URL_FILE: fileWith("url", readerUrl) });
  expect([code, stdout]).toEqual([1, "2 imported, 0 had been imported before, 3 failed\n"]);
  expect(stderr).not.toContain("canary");
  expect(stderr.trim().split("\n").toSorted()).toEqual([
    "flow-credentials: 3 row(s) were not imported; the lines above say which and why",
    'row "c\\nd": token is missing or no text',
    expect.stringMatching(/^row "ä": Request validation failed; organization_id/),
    "row B: the token does not open",
  ]);
  expect(await count("credential")).toBe(before + 2);
});

const fileWith = (name: string, text: string): string => {
  const path = join(folder.path, name);
  writeFileSync(path, `${text}\n`, { mode: 0o600 });
  return path;
};

test("nothing of the other system is written, whatever its views do", async () => {
  await using owner = await connect(legacy.superuserUrl);
  await owner.query(`create table old.touched (n integer); create function old.touch() returns text language sql security definer as $$ insert into old.touched values (1) returning 'sftp' $$;
    create view old.trap as select *, old.touch() as provider from old."Secrets"; grant select on old.trap to ${READER}; grant usage on schema old to ${READER}`);
  const { code, stderr } = await run(["--table", "old.trap", "--column", "organization_id=tenant", "--column", "user_id=owner", "--column", "credential_type=kind", "--column", "token=encrypted"]);
  expect([code, stderr]).toEqual([1, "flow-credentials: the table cannot be read: reading the table would write something; only what can be read in a read-only transaction is read\n"]);
  expect((await owner.query("select from old.touched")).rowCount).toBe(0);
});

test.each<[string, string[], string, (2 | 1)?]>([
  ["a table that is no identifier", ["--table", 'old."Secrets"; drop table canary'], "--table must be table or schema.table, in letters, digits, _ and $; make a view of anything else", 2],
  ["a key that is no identifier", [...SECRETS, "--row-key", "id desc; canary"], "--row-key must be the name of a column", 2],
  ["a column that is no identifier", [...SECRETS, "--column", "name=canary()"], "--column must end in the name of a column, in letters, digits, _ and $", 2],
  ["a field that does not exist", [...SECRETS, "--column", "canary=label"], "--column must begin with one of organization_id, user_id, provider, credential_type, token, name, source, and =", 2],
  ["a token on the command line", [...SECRETS, "--value", "token=canary"], "--value must begin with one of organization_id, user_id, provider, credential_type, name, source, and =", 2],
  ["both a file and a table", [...SECRETS, "--input", "-"], "either --input or --table is required", 2],
  ["a table that is not there", ["--table", "old.nothing"], "the table cannot be read: there is no such table"],
  ["a column that is not there", ["--table", "old.Secrets"], "the table cannot be read: the table lacks one of the columns that were named"],
  ["a column that may not be read", [...SECRETS, "--column", "name=internal"], "the table cannot be read: the user of the database URL may not read the table"],
  ["a key that rows share", [...SECRETS, "--row-key", "kind"], "the table cannot be read: rows share a value of the key column, or have none"],
])("%s is refused", async (_, args, sentence, expected = 1) => {
  expect(await refused(args)).toEqual([expected, `flow-credentials: ${sentence}`]);
});

test("the URL comes from a file or the environment, is never repeated, and another machine is reached over TLS", async () => {
  const where = "--table needs --database-url-file, FLOW_CREDENTIALS_LEGACY_DATABASE_URL or FLOW_CREDENTIALS_LEGACY_DATABASE_URL_FILE";
  expect(await refused(SECRETS, {})).toEqual([2, `flow-credentials: ${where}`]);
  const url = "postgresql://app:canary@192.0.2.1/legacy";
  const tls = expect.stringMatching(/^flow-credentials: the database is on another machine: give --database-ca, or sslmode=verify-full in its URL, or [^\n]*$/);
  expect(await refused(SECRETS, { FLOW_CREDENTIALS_LEGACY_DATABASE_URL: url })).toEqual([1, tls]);
  const nobody = await refused([...SECRETS, "--database-url-file", fileWith("wrong", "postgresql://app:canary@127.0.0.1:1/legacy")]);
  expect(nobody).toEqual([1, "flow-credentials: the table cannot be read: database error ECONNREFUSED"]);
});

test("an operator who is not known any more is told so once, not for every row", async () => {
  const before = await count("imported_credential");
  const { code, stdout, stderr } = await run([...SECRETS, "--token-file", fileWith("token", "nonsense")]);
  expect([code, stdout, stderr]).toEqual([1, "", "flow-credentials: Invalid authentication token\n"]);
  expect(await count("imported_credential")).toBe(before);
});
