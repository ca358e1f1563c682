import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { ProgressBar } from "../../src/cli/progress.ts";
import { run } from "../../src/cli/program.ts";
import { keySettings, newMasterKeys, QUICK } from "../support/admin.ts";
import { connect } from "../support/postgres.ts";
import { JWT_SECRET, rest, startFresh, token } from "../support/service.ts";

// Many processes are started here, and a loaded machine takes seconds for each.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const ORGANIZATION = randomUUID();
/** So many that a rotation of one row a second lasts until a slow machine has run the next command. */
const CREDENTIALS = 30;
let service: Awaited<ReturnType<typeof startFresh>>;
let credential = "";

beforeAll(async () => {
  service = await startFresh({ ...QUICK, ...keySettings(newMasterKeys("k1", "k2"), "k1") });
  const body = { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password: "p" } };
  const user = await token("user", ORGANIZATION);
  for (let n = 0; n < CREDENTIALS; n++) credential = (await rest(service, "POST", "/integrations/credentials", { token: user, body })).json.id;
});
afterAll(() => service[Symbol.asyncDispose]());

/** Runs the command as an operator would. */
function cli(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const env = { CREDENTIALS_JWT_SECRET: JWT_SECRET, FLOW_CREDENTIALS_TARGET: service.grpc };
  return new Promise((resolve) => {
    execFile(process.execPath, ["src/cli/main.ts", ...args], { env }, (error, stdout, stderr) => resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }));
  });
}

test("keys status tells keys, replicas and rotations, for people and as JSON", async () => {
  const { code, stdout } = await cli("keys", "status");
  expect(code).toBe(0);
  expect(stdout).toMatch(/^master key k1: primary, wraps 1, loaded by 1 of 1 replica\(s\)\nmaster key k2: wraps 0, loaded by 1 of 1 replica\(s\)\nreplica [0-9a-f-]{36}: k1, k2; reported \d s ago\n$/);
  const status = JSON.parse((await cli("keys", "status", "--json")).stdout);
  expect(status).toMatchObject({ master_keys: [{ id: "k1", primary: true, organization_keys: 1 }, { id: "k2", primary: false }], replicas: [{ master_keys: ["k1", "k2"], key_cache_seconds: 1 }], rotations: [] });
});

test("keys rotate waits for the proof, keys retire retires, and every other step can be taken by hand", async () => {
  const rotated = await cli("keys", "rotate", "--master-key", "k2", "--json");
  expect(rotated).toMatchObject({ code: 0, stderr: "" });
  const rotation = JSON.parse(rotated.stdout);
  expect(rotation).toMatchObject({ kind: "master_key", state: "proven", from: "k1", to: "k2", rows_left: 0, rows_moved: 1, rows_verified: 1, rows_failed: 0, failures: [], started_by: "development-operator" });
  const back = JSON.parse((await cli("keys", "roll-back", rotation.id, "--json")).stdout);
  expect(back).toMatchObject({ state: "proven", from: "k2", to: "k1", rolls_back: rotation.id });
  expect((await cli("keys", "retire", back.id)).stdout).toContain(": retired;");
  const refused = await cli("keys", "rotate", "--master-key", "k2");
  expect(refused).toEqual({ code: 1, stdout: "", stderr: "flow-credentials: The master key is retired\n" });
});

test("keys rotate --org, pause, throttle, resume, watch and verify; a row that does not open is named and the exit code says so", async () => {
  const id = (await cli("keys", "rotate", "--org", ORGANIZATION, "--rows-per-second", "1", "--detach")).stdout.trim();
  expect(id).toMatch(/^[0-9a-f-]{36}$/);
  expect((await cli("keys", "pause", id)).stdout).toContain(": paused;");
  const watched = await cli("keys", "watch", id);
  expect([watched.code, watched.stderr]).toEqual([1, expect.stringContaining("keys resume")]);
  expect(JSON.parse((await cli("keys", "throttle", id, "--rows-per-second", "1000", "--json")).stdout)).toMatchObject({ state: "paused", rows_per_second: 1000 });
  expect(JSON.parse((await cli("keys", "resume", id, "--json")).stdout)).toMatchObject({ state: "proven", rows_left: 0 });
  expect(await cli("keys", "verify")).toMatchObject({ code: 0, stdout: expect.stringContaining(`verification: proven; 0 left, 0 moved, ${CREDENTIALS + 2} read back, 0 failed`) });
  await using superuser = await connect(service.database.superuserUrl);
  await superuser.query(`update credential set secret_version = 9 where id = '${credential}'`);
  const broken = await cli("keys", "verify", "--org", ORGANIZATION);
  expect(broken.code).toBe(1);
  expect(broken.stderr).toContain(`does not open (not_authentic): organization ${ORGANIZATION}, credential ${credential}`);
});

test("organization destroy wants to be meant", async () => {
  expect(await cli("organization", "destroy", "--org", ORGANIZATION)).toMatchObject({ code: 2, stderr: "flow-credentials: --yes is required: what is destroyed cannot be brought back\n" });
  expect(await cli("organization", "destroy", "--org", ORGANIZATION, "--yes", "--json")).toMatchObject({ code: 0, stdout: `${JSON.stringify({ organization_id: ORGANIZATION, destroyed_keys: 2 })}\n` });
});

test.each([
  [["keys", "rotate"], /give exactly one of --master-key and --org/],
  [["keys", "rotate", "--org", "x"], /--org must be a UUID/],
  [["keys", "rotate", "--org", ORGANIZATION, "--rows-per-second", "0"], /--rows-per-second must be a whole number from 1/],
  [["keys", "pause", "nonsense"], /the rotation must be a UUID/],
])("%j is not understood", async (args, complaint) => {
  const [printed, noted]: [string[], string[]] = [[], []];
  const env = { CREDENTIALS_JWT_SECRET: JWT_SECRET, FLOW_CREDENTIALS_TARGET: service.grpc };
  const code = await run(args, { env, print: (line) => void printed.push(line), note: (line) => void noted.push(line) });
  expect([code, printed]).toEqual([2, []]);
  expect(noted.join("\n")).toMatch(complaint);
});

test("the bar shows share, pace and time left", () => {
  let now = 0;
  const bar = new ProgressBar(() => now);
  expect(bar.line("moving", 0, 1_000)).toBe(`moving [${"-".repeat(30)}] 0 % 0/1000`);
  now = 10_000;
  expect(bar.line("moving", 100, 1_000)).toBe(`moving [${"#".repeat(3)}${"-".repeat(27)}] 10 % 100/1000, 10/s, 1 min 30 s left`);
  expect(bar.line("moving", 1_000, 1_000)).toBe(`moving [${"#".repeat(30)}] 100 % 1000/1000, 100/s`);
  expect(bar.line("moving", 0, 0)).toContain("100 %");
});

test("on a terminal the bar is shown and cleared", async () => {
  const shown: (string | null)[] = [];
  const printed: string[] = [];
  const env = { CREDENTIALS_JWT_SECRET: JWT_SECRET, FLOW_CREDENTIALS_TARGET: service.grpc };
  const other = randomUUID();
  const body = { provider: "google", credential_type: "api_key", credentials: { api_key: "k" } };
  await rest(service, "POST", "/integrations/credentials", { token: await token("user", other), body });
  const code = await run(["keys", "rotate", "--org", other], { env, print: (line) => void printed.push(line), note: () => {}, progress: (line) => void shown.push(line) });
  expect([code, printed.length]).toEqual([0, 1]);
  expect(shown.at(-1)).toBe(null);
  expect(shown.filter((line) => line !== null).join("\n")).toMatch(/moving \[|waiting until no replica/);
});
