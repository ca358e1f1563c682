import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { RotationState as State } from "../../gen/flow/credentials/v1/admin_service.ts";
import type { AdminClient } from "../../src/client/admin.ts";
import { adminOf, keySettings, newMasterKeys, QUICK, reaches } from "../support/admin.ts";
import { connect, type FreshDatabase, freshDatabase } from "../support/postgres.ts";
import { rest, type Service, serviceEnv, spawnService, startService, token } from "../support/service.ts";

// Many processes are started here, and a loaded machine takes seconds for each.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const KEYS = newMasterKeys("k1", "k2", "k3");
const ORGANIZATIONS = Array.from({ length: 12 }, () => randomUUID());
const body = { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password: "canary-p4ss" } };

let database: FreshDatabase;
let replicas: Service[] = [];
let admin: AdminClient;
/** One credential of each organization. */
const ids = new Map<string, string>();

const env = (ids: readonly (keyof typeof KEYS)[], primary = "k1") => serviceEnv(database, { ...keySettings(KEYS, primary, ids), ...QUICK, CREDENTIALS_REST_RESOLVE: "on" });
const restart = async (index: number, ids: readonly (keyof typeof KEYS)[], primary = "k1") => {
  await replicas[index]?.stop();
  replicas[index] = await startService(env(ids, primary));
};

/** Resolves every credential on every replica; gives the statuses that are not 200. */
async function unresolved(): Promise<number[]> {
  const statuses: number[] = [];
  for (const [organization, id] of ids) {
    const machine = await token("service_account", organization);
    for (const replica of replicas) {
      const { status, json } = await rest(replica, "GET", `/integrations/credentials/${id}/credentials`, { token: machine });
      if (status !== 200 || JSON.stringify(json).includes("canary-p4ss") === false) statuses.push(status);
    }
  }
  return statuses;
}

const reasonOf = (call: Promise<unknown>) => call.then(() => "no error", (error: { reason?: string }) => error.reason);

beforeAll(async () => {
  database = await freshDatabase();
  replicas = [await startService(env(["k1"])), await startService(env(["k1", "k2"]))];
  admin = await adminOf(replicas[1] as Service);
  for (const organization of ORGANIZATIONS) {
    const { json } = await rest(replicas[0] as Service, "POST", "/integrations/credentials", { token: await token("user", organization), body });
    ids.set(organization, json.id);
  }
});
afterAll(async () => {
  admin[Symbol.dispose]();
  await Promise.all(replicas.map((replica) => replica.stop()));
  await database[Symbol.asyncDispose]();
});

test("a promotion is refused while a replica lacks the key, and for keys that nobody knows", async () => {
  const { replicas: alive, masterKeys } = await admin.getKeyStatus({});
  expect(alive.map(({ masterKeyIds }) => masterKeyIds.join()).toSorted()).toEqual(["k1", "k1,k2"]);
  expect(masterKeys).toMatchObject([{ id: "k1", primary: true, organizationKeys: BigInt(ORGANIZATIONS.length) }, { id: "k2", primary: false, organizationKeys: 0n }]);
  expect(await reasonOf(admin.rotateMasterKey({ masterKeyId: "k2" }))).toBe("KEY_NOT_LOADED_EVERYWHERE");
  expect(await reasonOf(admin.rotateMasterKey({ masterKeyId: "k9" }))).toBe("KEY_UNKNOWN");
  const { masterKeys: after, rotations } = await admin.getKeyStatus({});
  expect([after.find(({ primary }) => primary)?.id, rotations]).toEqual(["k1", []]);
});

test("with the key on every replica everything is moved and proven, and every replica goes on reading and writing", async () => {
  await restart(0, ["k1", "k2"]);
  const { rotation } = await admin.rotateMasterKey({ masterKeyId: "k2" });
  expect(rotation).toMatchObject({ fromMasterKeyId: "k1", toMasterKeyId: "k2", rowsTotal: BigInt(ORGANIZATIONS.length), startedBy: "ops" });
  const proven = await reaches(admin, rotation?.id ?? "", State.ROTATION_STATE_PROVEN);
  expect(proven).toMatchObject({ rowsLeft: 0n, rowsMoved: BigInt(ORGANIZATIONS.length), rowsVerified: BigInt(ORGANIZATIONS.length), rowsFailed: 0n });
  expect(await unresolved()).toEqual([]);
  // A replica that may not have heard of it yet wraps a new organization's key under the new master key.
  const fresh = randomUUID();
  const { json } = await rest(replicas[0] as Service, "POST", "/integrations/credentials", { token: await token("user", fresh), body });
  ids.set(fresh, json.id);
  await using superuser = await connect(database.superuserUrl);
  const { rows } = await superuser.query("select distinct master_key_id from organization_key");
  expect(rows).toEqual([{ master_key_id: "k2" }]);
  const { rows: [event] } = await superuser.query("select actor_kind, actor_id, outcome, run_id from audit_event where action = 'prove_rotation' and flow_id = $1", [proven.id]);
  expect(event).toEqual({ actor_kind: "operator", actor_id: "ops", outcome: "allowed", run_id: proven.proof });
  expect(proven.proof).toMatch(/^[0-9a-f]{64}$/);
});

test("it is taken back, and both generations open all the while", async () => {
  const { rotations: [done] } = await admin.getKeyStatus({});
  const { rotation: back } = await admin.rollBackRotation({ rotationId: done?.id ?? "" });
  expect(back).toMatchObject({ fromMasterKeyId: "k2", toMasterKeyId: "k1", rollsBack: done?.id });
  expect(await unresolved()).toEqual([]);
  await reaches(admin, back?.id ?? "", State.ROTATION_STATE_PROVEN);
  expect(await unresolved()).toEqual([]);
  expect((await admin.getRotation({ rotationId: done?.id ?? "" })).rotation?.state).toBe(State.ROTATION_STATE_ROLLED_BACK);
  expect(await reasonOf(admin.rollBackRotation({ rotationId: done?.id ?? "" }))).toBe("ROTATION_STATE");
  expect(await reasonOf(admin.retireRotatedKeys({ rotationId: done?.id ?? "" }))).toBe("ROTATION_STATE");
});

test("one that is paused moves nothing and holds up the next one, and goes on when it is told to", async () => {
  const { rotation } = await admin.rotateMasterKey({ masterKeyId: "k2", rowsPerSecond: 1 });
  const rotationId = rotation?.id ?? "";
  const { rotation: paused } = await admin.controlRotation({ rotationId, paused: true });
  expect(paused?.state).toBe(State.ROTATION_STATE_PAUSED);
  expect(await reasonOf(admin.rotateMasterKey({ masterKeyId: "k2" }))).toBe("ROTATION_UNDER_WAY");
  const halted = async () => (await admin.getRotation({ rotationId })).rotation?.rowsLeft;
  // What was under way when it was paused is at most one batch of one row and the one behind it.
  await new Promise((resolve) => setTimeout(resolve, 400));
  const left = await halted();
  expect(left).toBeGreaterThan(0n);
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  expect(await halted()).toBe(left);
  await admin.controlRotation({ rotationId, paused: false, rowsPerSecond: 0 });
  await reaches(admin, rotationId, State.ROTATION_STATE_PROVEN);
  const { rotation: retired } = await admin.retireRotatedKeys({ rotationId });
  expect(retired?.state).toBe(State.ROTATION_STATE_RETIRED);
  expect(await reasonOf(admin.rotateMasterKey({ masterKeyId: "k1" }))).toBe("KEY_RETIRED");
  expect(await unresolved()).toEqual([]);
});

test("the retired key may be taken out of the configuration, and the one in use may not", async () => {
  await restart(0, ["k2", "k3"], "k2");
  expect(await unresolved()).toEqual([]);
  const { ended, output } = spawnService(env(["k1", "k3"], "k1"));
  expect(await ended).toBe(1);
  expect(output()).toMatch(/master key "k2" is not loaded, and 13 row\(s\) of organization_key are wrapped under it/);
});
