import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { RotationState as State } from "../../gen/flow/credentials/v1/admin_service.ts";
import { adminOf, keySettings, newMasterKeys, QUICK, reaches } from "../support/admin.ts";
import { connect, type FreshDatabase, freshDatabase } from "../support/postgres.ts";
import { rest, serviceEnv, spawnService, startService, token } from "../support/service.ts";

const KEYS = newMasterKeys("k1", "k2");
const body = { provider: "google", credential_type: "api_key", credentials: { api_key: "k" } };
let database: FreshDatabase;
const env = (...ids: (keyof typeof KEYS)[]) => serviceEnv(database, { ...QUICK, ...keySettings(KEYS, "k1", ids), CREDENTIALS_REST_RESOLVE: "on" });

beforeAll(async () => {
  database = await freshDatabase();
});
afterAll(() => database[Symbol.asyncDispose]());

test("a replica that was silent while a key was promoted which it lacks comes back unready, refuses rather than errs, and starts no more without the key", async () => {
  await using healthy = await startService(env("k1", "k2"));
  await using silent = await startService(env("k1"));
  using admin = await adminOf(healthy);
  const organization = randomUUID();
  const { json } = await rest(healthy, "POST", "/integrations/credentials", { token: await token("user", organization), body });
  const machine = await token("service_account", organization);
  const promote = () => admin.rotateMasterKey({ masterKeyId: "k2" }).catch(({ reason }: { reason?: string }) => reason);
  expect(await promote()).toBe("KEY_NOT_LOADED_EVERYWHERE");
  silent.process.kill("SIGSTOP");
  const begun = await expect.poll(promote, { timeout: 20_000, interval: 200 }).toMatchObject({ rotation: { toMasterKeyId: "k2" } }).then(async () => (await admin.getKeyStatus({})).rotations[0]);
  await reaches(admin, begun?.id ?? "", State.ROTATION_STATE_PROVEN);
  silent.process.kill("SIGCONT");
  await expect.poll(async () => (await rest(silent, "GET", "/readyz")).status, { timeout: 10_000 }).toBe(503);
  expect(silent.output()).toContain('"key_id":"k2","message":"the primary master key is not loaded here: not ready until it is"');
  // It cannot open what is wrapped under the new key, and says so as one who may be asked again elsewhere.
  const refused = await rest(silent, "GET", `/integrations/credentials/${json.id}/credentials`, { token: machine });
  expect([refused.status, refused.json.error.message]).toEqual([503, "The key that this needs cannot be used now; try again"]);
  expect((await rest(healthy, "GET", `/integrations/credentials/${json.id}/credentials`, { token: machine })).status).toBe(200);
  const again = spawnService(env("k1"));
  expect([await again.ended, again.output()]).toEqual([1, expect.stringMatching(/master key "k2" is not loaded, and 1 row/)]);
}, 60_000);

test("a start tries every key on its canary, and says which does not open it", async () => {
  {
    await using service = await startService(env("k1", "k2"));
    expect(service.output()).toContain("ready");
  }
  await using superuser = await connect(database.superuserUrl);
  await superuser.query("update key_registry set canary = set_byte(canary, 30, get_byte(canary, 30) # 1) where master_key_id = 'k1'");
  const start = spawnService(env("k1", "k2"));
  expect([await start.ended, start.output()]).toEqual([1, 'flow-credentials: master key "k1" does not open its canary (wrapped_key_not_authentic)\n']);
});
