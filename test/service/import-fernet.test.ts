import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { keySettings, newMasterKeys } from "../support/admin.ts";
import { fernetToken, newFernetKey } from "../support/fernet.ts";
import { connect } from "../support/postgres.ts";
import { JWT_SECRET, rest, serviceEnv, spawnService, startFresh, temporaryFolder, token } from "../support/service.ts";

const ROWS = process.env["FLOW_TEST_LONG"] ? 10_000 : 150;
const USER = randomUUID();
const ORGANIZATIONS = Array.from({ length: 10 }, () => randomUUID());
const FERNET = [newFernetKey(), newFernetKey()];
const MASTER = newMasterKeys("k1");

const folder = temporaryFolder();
const file = (name: string) => join(folder.path, name);
let service: Awaited<ReturnType<typeof startFresh>>;

beforeAll(async () => {
  const limits = { CREDENTIALS_LIMIT_PER_PROVIDER: "100000", CREDENTIALS_LIMIT_PER_USER: "100000" };
  service = await startFresh({ ...keySettings(MASTER, "k1"), ...limits, CREDENTIALS_REST_RESOLVE: "on" });
  writeFileSync(file("keys"), `${FERNET.join("\n")}\n`, { mode: 0o600 });
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

/** A row of the other system. */
const legacy = (n: number, more: object = {}) => ({
  organization_id: ORGANIZATIONS[n % ORGANIZATIONS.length],
  user_id: USER,
  provider: "sftp",
  credential_type: "user_password",
  name: `legacy ${n}`,
  source: `row ${n}`,
  token: fernetToken(FERNET[n % 2] as string, JSON.stringify({ host: "sftp.example.com", username: "u", password: `canary-p${n}` }), { at: new Date(1_500_000_000_000 + n * 1000) }),
  ...more,
});

/** Begins the command as an operator would. */
function begin(...args: string[]) {
  const child = spawn(process.execPath, ["src/cli/main.ts", "import", "fernet", ...args], { env: { CREDENTIALS_JWT_SECRET: JWT_SECRET, FLOW_CREDENTIALS_TARGET: service.grpc } });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const ended = new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve) => child.once("close", (code) => resolve({ code, stdout, stderr })));
  return { child, ended };
}
const run = (...args: string[]) => begin(...args).ended;

const count = async (sql: string): Promise<number> => {
  await using superuser = await connect(service.database.superuserUrl);
  return Number((await superuser.query<{ n: string }>(`select count(*) as n from ${sql}`)).rows[0]?.n);
};

test("many rows are imported, killed half-way, resumed, and none is there twice", async () => {
  const { writeFile } = await import("node:fs/promises");
  await writeFile(file("rows"), Array.from({ length: ROWS }, (_, n) => `${JSON.stringify(legacy(n))}\n`).join(""));
  const { child, ended } = begin("--keys-file", file("keys"), "--input", file("rows"), "--json");
  await expect.poll(() => count("imported_credential"), { timeout: 60_000, interval: 20 }).toBeGreaterThan(ROWS / 5);
  child.kill("SIGKILL");
  await ended;
  const before = await count("imported_credential");
  expect(before).toBeLessThan(ROWS);
  const { code, stdout, stderr } = await run("--keys-file", file("keys"), "--input", file("rows"), "--json");
  expect([code, stderr]).toEqual([0, ""]);
  const counts = JSON.parse(stdout);
  expect(counts).toMatchObject({ failed: 0, imported: ROWS - counts.already });
  expect(counts.already).toBeGreaterThanOrEqual(before);
  expect(await count("credential")).toBe(ROWS);
  expect(await count("(select distinct organization_id, name from credential) c")).toBe(ROWS);
  expect(await count("audit_event where action = 'import_credential' and outcome = 'allowed'")).toBe(ROWS);
  expect(await count("imported_credential where sealed_at = '2017-07-14T02:40:00Z'::timestamptz + substring(source from 5)::integer * interval '1 second'")).toBe(ROWS);
  // Counted against the limits like any other.
  expect(await count("credential_counter k where n <> (select count(*) from credential c where c.organization_id = k.organization_id)")).toBe(0);
  const organization = ORGANIZATIONS[7] as string;
  const machine = await token("service_account", organization);
  const listed = await rest(service, "GET", "/integrations/credentials", { token: machine });
  const { json } = await rest(service, "GET", `/integrations/credentials/${listed.json[0].id}/credentials`, { token: machine });
  expect(json.password).toMatch(/^canary-p\d+$/);
}, 120_000);

test("a row that cannot be imported is told by its line and its fault, without its values, and the others are imported", async () => {
  const stranger = newFernetKey();
  const rows = [
    JSON.stringify(legacy(ROWS + 1)),
    '{"organization_id": canary',
    JSON.stringify(legacy(ROWS + 2, { token: fernetToken(stranger, "{}") })),
    JSON.stringify(legacy(ROWS + 3, { token: fernetToken(FERNET[0] as string, '["canary"]') })),
    JSON.stringify(legacy(ROWS + 4, { provider: "canary" })),
    JSON.stringify(legacy(ROWS + 5, { token: fernetToken(FERNET[0] as string, '{"host":"canary-host"}') })),
    JSON.stringify(legacy(ROWS + 6, { source: "" })),
    JSON.stringify(legacy(ROWS + 7, { organization_id: "canary" })),
    "",
    JSON.stringify(legacy(ROWS + 8)),
  ];
  writeFileSync(file("broken"), rows.join("\n"));
  const { code, stdout, stderr } = await run("--keys-file", file("keys"), "--input", file("broken"));
  expect([code, stdout]).toEqual([1, "2 imported, 0 had been imported before, 7 failed\n"]);
  expect(stderr).not.toContain("canary");
  const lines = stderr.trim().split("\n").toSorted();
  expect(lines).toEqual([
    "flow-credentials: 7 row(s) were not imported; the lines above say which and why",
    "line 2: the line is not a JSON object",
    "line 3: the token does not open",
    "line 4: what the token holds is not a JSON object",
    "line 5: provider is not known",
    expect.stringMatching(/^line 6: Invalid request data; credentials\.(username|password)/),
    "line 7: source is missing or no text",
    expect.stringMatching(/^line 8: Request validation failed; organization_id/),
  ]);
});

test("two commands at once import each row once", async () => {
  writeFileSync(file("both"), Array.from({ length: 60 }, (_, n) => JSON.stringify(legacy(n, { source: `twice ${n}` }))).join("\n"));
  const before = await count("credential");
  const both = await Promise.all([run("--keys-file", file("keys"), "--input", file("both"), "--json"), run("--keys-file", file("keys"), "--input", file("both"), "--json")]);
  expect(both.map(({ code }) => code)).toEqual([0, 0]);
  expect(both.reduce((sum, { stdout }) => sum + JSON.parse(stdout).imported, 0)).toBe(60);
  expect(await count("credential")).toBe(before + 60);
});

test("a Fernet key that is a master key is refused by the import, and by the start once anything was imported from it", async () => {
  const same = `${Buffer.from(MASTER.k1, "base64").toString("base64url")}=`;
  writeFileSync(file("same"), same);
  writeFileSync(file("one"), JSON.stringify(legacy(1, { source: "same", token: fernetToken(same, '{"host":"h","username":"u","password":"p"}') })));
  const { code, stderr } = await run("--keys-file", file("same"), "--input", file("one"));
  expect([code, stderr]).toEqual([1, "flow-credentials: A key of the other system is a master key of this one; neither is to be used any more\n"]);
  const fernet = Buffer.from(FERNET[1] as string, "base64url").toString("base64");
  const start = spawnService(serviceEnv(service.database, keySettings({ ...MASTER, k2: fernet }, "k1")));
  expect([await start.ended, start.output()]).toEqual([1, 'flow-credentials: master key "k2" is a Fernet key from which secrets were imported; draw a new one\n']);
  const named = spawnService({ ...serviceEnv(service.database, keySettings(MASTER, "k1")), CREDENTIALS_FERNET_KEYS: FERNET[0] as string });
  expect([await named.ended, named.output()]).toEqual([1, "flow-credentials: CREDENTIALS_FERNET_KEYS is not a setting\n"]);
});
