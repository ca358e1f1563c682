import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { RotationState as State } from "../../gen/flow/credentials/v1/admin_service.ts";
import type { AdminClient } from "../../src/client/admin.ts";
import { createKeyTally } from "../../src/vault/key-tally.ts";
import { adminOf, keySettings, newMasterKeys, QUICK, reaches } from "../support/admin.ts";
import { rest, startFresh, token } from "../support/service.ts";

// A service is started here, and a loaded machine takes seconds for it.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let service: Awaited<ReturnType<typeof startFresh>>;
let admin: AdminClient;

beforeAll(async () => {
  service = await startFresh({ ...QUICK, ...keySettings(newMasterKeys("k1", "k2"), "k1") });
  admin = await adminOf(service);
});
afterAll(async () => {
  admin[Symbol.dispose]();
  await service[Symbol.asyncDispose]();
});

/** What the service tells of keys, by name and labels. */
async function told(): Promise<Record<string, number>> {
  const { text } = await rest(service, "GET", "/metrics");
  const lines = text.split("\n").filter((line) => /^credentials_(master_keys|organization_keys|rotations|rotation_rows_left)\{/.test(line));
  return Object.fromEntries(lines.map((line) => [line.slice("credentials_".length, line.lastIndexOf(" ")).replaceAll('"', ""), Number(line.slice(line.lastIndexOf(" ")))]));
}
const tells = (facts: Record<string, number>) => expect.poll(told, { timeout: 20_000 }).toMatchObject(facts);

test("keys, rotations and what is left are told without a name, and stand at nothing once all is done", async () => {
  const id = randomUUID();
  const user = await token("user", id);
  const body = { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password: "p" } };
  for (let n = 0; n < 6; n++) expect((await rest(service, "POST", "/integrations/credentials", { token: user, body })).status).toBe(201);
  await tells({ "master_keys{which=loaded}": 2, "master_keys{which=used}": 1, "master_keys{which=missing}": 0, "organization_keys{master_key=primary}": 1, "organization_keys{master_key=other}": 0 });
  expect(Object.values(await told()).reduce((sum, value) => sum + value, 0)).toBe(4);

  const { rotation } = await admin.rotateOrganizationKey({ organizationId: id, rowsPerSecond: 1 });
  const rotationId = rotation?.id ?? "";
  await admin.controlRotation({ rotationId, paused: true });
  await tells({ "rotations{kind=organization_key,state=paused}": 1, "organization_keys{master_key=primary}": 2 });
  // The batch that was under way when it was halted may still take effect.
  await expect.poll(async () => {
    const left = Number((await admin.getRotation({ rotationId })).rotation?.rowsLeft);
    return left > 0 && (await told())["rotation_rows_left{kind=organization_key}"] === left;
  }, { timeout: 20_000 }).toBe(true);
  await admin.controlRotation({ rotationId, paused: false, rowsPerSecond: 1_000 });
  await reaches(admin, rotationId, State.ROTATION_STATE_PROVEN);
  await tells({ "rotations{kind=organization_key,state=proven}": 1, "rotation_rows_left{kind=organization_key}": 0, "rotations{kind=organization_key,state=paused}": 0 });
  await admin.retireRotatedKeys({ rotationId });

  const { rotation: master } = await admin.rotateMasterKey({ masterKeyId: "k2" });
  await reaches(admin, master?.id ?? "", State.ROTATION_STATE_PROVEN);
  await tells({ "rotations{kind=master_key,state=proven}": 1, "rotation_rows_left{kind=master_key}": 0, "rotations{kind=organization_key,state=proven}": 0, "organization_keys{master_key=other}": 0 });
  const { text } = await rest(service, "GET", "/metrics");
  for (const name of [id, rotationId, "k1", "k2"]) expect(text).not.toContain(name);
});

test("nothing is told where the database does not answer, nobody waits for it for long, and it is asked once however many want to know", async () => {
  let asked = 0;
  let answer: (keys: []) => void = () => {};
  const rotations = { tally: async () => [] };
  const keyRegistry = { list: () => (asked++, new Promise<[]>((resolve, reject) => (answer = (keys) => (asked === 1 ? reject(new Error("gone")) : resolve(keys))))) };
  const tally = createKeyTally({ store: { keyRegistry, rotations } as never, ring: { ids: ["k1"], primaryId: "k1" }, maxAgeMs: 0, patienceMs: 5 });
  expect(await Promise.all([tally(), tally()])).toEqual([undefined, undefined]);
  expect(asked).toBe(1);
  answer([]);
  await vi.waitFor(async () => {
    expect(await tally()).toBeUndefined();
    expect(asked).toBe(2);
  });
  answer([]);
  expect(await tally()).toEqual({ masterKeys: { loaded: 1, used: 0, missing: 0 }, organizationKeys: { underPrimary: 0, underOthers: 0 }, rotations: [] });
});
