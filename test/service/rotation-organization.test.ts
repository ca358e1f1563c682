import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { RotationState as State } from "../../gen/flow/credentials/v1/admin_service.ts";
import type { AdminClient } from "../../src/client/admin.ts";
import { adminOf, QUICK, reaches } from "../support/admin.ts";
import { connect, type FreshDatabase, freshDatabase } from "../support/postgres.ts";
import { rest, type Service, serviceEnv, startService, token } from "../support/service.ts";

// Many processes are started here, and a loaded machine takes seconds for each.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

let database: FreshDatabase;
let replicas: Service[] = [];
let admin: AdminClient;

beforeAll(async () => {
  database = await freshDatabase();
  const env = serviceEnv(database, { ...QUICK, CREDENTIALS_REST_RESOLVE: "on", CREDENTIALS_LIMIT_PER_PROVIDER: "500", CREDENTIALS_LIMIT_PER_USER: "500" });
  replicas = [await startService(env), await startService(env)];
  admin = await adminOf(replicas[1] as Service);
});
afterAll(async () => {
  admin[Symbol.dispose]();
  await Promise.all(replicas.map((replica) => replica.stop()));
  await database[Symbol.asyncDispose]();
});

const body = (password: string) => ({ provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password } });
const replica = (index: number) => replicas[index % replicas.length] as Service;
const reasonOf = (call: Promise<unknown>) => call.then(() => "no error", (error: { reason?: string }) => error.reason);

/** An organization with so many credentials, the password of each being its number. */
async function organization(count: number) {
  const id = randomUUID();
  const [user, machine] = [await token("user", id), await token("service_account", id)];
  const made = await Promise.all(Array.from({ length: count }, (_, n) => rest(replica(n), "POST", "/integrations/credentials", { token: user, body: body(`p${n}`) })));
  const ids = made.map(({ json }) => json.id as string);
  const resolve = (index: number, at = index) => rest(replica(at), "GET", `/integrations/credentials/${ids[index]}/credentials`, { token: machine });
  return { id, user, machine, ids, resolve };
}

test("every secret is sealed anew and stays what it was, deleted ones included; taken back; retired", async () => {
  const { id, user, ids, resolve } = await organization(25);
  await rest(replica(0), "DELETE", `/integrations/credentials/${ids[24]}`, { token: user });
  await using superuser = await connect(database.superuserUrl);
  const facts = async () => (await superuser.query("select id, revision, updated_at, modified_by, secret_version from credential where organization_id = $1 order by id", [id])).rows;
  const before = await facts();
  // An authorization in progress, which is never sealed anew.
  await superuser.query(
    `insert into oauth_authorization (organization_id, id, user_id, provider, sealed, expires_at)
    select organization_id, id, id, 'google', sealed, now() + interval '10 minutes' from credential where id = $1`,
    [ids[0]],
  );
  const { rotation } = await admin.rotateOrganizationKey({ organizationId: id });
  expect(rotation).toMatchObject({ fromVersion: 1, toVersion: 2, rowsTotal: 25n, organizationId: id });
  expect(await reasonOf(admin.rotateOrganizationKey({ organizationId: id }))).toBe("ROTATION_UNDER_WAY");
  const proven = await reaches(admin, rotation?.id ?? "", State.ROTATION_STATE_PROVEN);
  expect(proven).toMatchObject({ rowsLeft: 0n, rowsVerified: 25n, rowsFailed: 0n });
  for (let n = 0; n < 24; n++) expect((await resolve(n, n + 1)).json).toMatchObject({ password: `p${n}` });
  // Etag, time and author are a caller's, and a rotation is none.
  expect(await facts()).toEqual(before);
  // The authorization is still under the old key.
  expect(await reasonOf(admin.retireRotatedKeys({ rotationId: proven.id }))).toBe("KEY_STILL_NEEDED");
  const versions = async () => (await superuser.query("select distinct key_version from credential where organization_id = $1", [id])).rows;
  expect(await versions()).toEqual([{ key_version: "2" }]);
  const { rotation: back } = await admin.rollBackRotation({ rotationId: proven.id });
  const undone = await reaches(admin, back?.id ?? "", State.ROTATION_STATE_PROVEN);
  expect(await versions()).toEqual([{ key_version: "1" }]);
  expect((await resolve(7)).json).toMatchObject({ password: "p7" });
  await admin.retireRotatedKeys({ rotationId: undone.id });
  const { rows } = await superuser.query("select version, state from organization_key where organization_id = $1 order by version", [id]);
  expect(rows).toEqual([{ version: "1", state: "sealing" }, { version: "2", state: "retired" }]);
  expect((await resolve(7)).status).toBe(200);
});

test("whatever is created, changed, resolved and deleted meanwhile on any replica is right afterwards", async () => {
  const { id, user, machine, ids } = await organization(40);
  const expected = new Map<string, string>(ids.map((credential, n) => [credential, `p${n}`]));
  const { rotation } = await admin.rotateOrganizationKey({ organizationId: id, rowsPerSecond: 40 });
  const ended = new AbortController();
  const proven = reaches(admin, rotation?.id ?? "", State.ROTATION_STATE_PROVEN).finally(() => ended.abort());
  const wrong: unknown[] = [];
  const lane = async (lane: number) => {
    for (let n = 0; !ended.signal.aborted; n++) {
      const [credential = "", password] = [...expected][(lane * 7 + n * 3) % expected.size] ?? [];
      if (n % 3 === 0 && credential === ids[lane]) {
        const changed = await rest(replica(n), "PATCH", `/integrations/credentials/${credential}`, { token: user, body: { ...body(`changed-${n}`), provider: undefined } });
        if (changed.status !== 200) wrong.push(changed.text);
        expected.set(credential, `changed-${n}`);
      } else if (n % 5 === 0) {
        const created = await rest(replica(n), "POST", "/integrations/credentials", { token: user, body: body(`new-${lane}-${n}`) });
        if (created.status === 201) expected.set(created.json.id, `new-${lane}-${n}`);
        else if (created.status !== 400) wrong.push(created.text);
      } else {
        const { status, json, text } = await rest(replica(n + lane), "GET", `/integrations/credentials/${credential}/credentials`, { token: machine });
        // Another lane may have changed one of the first four meanwhile.
        if (status !== 200 || (json.password !== password && !ids.slice(0, 4).includes(credential))) wrong.push(text);
      }
    }
  };
  await Promise.all([0, 1, 2, 3].map(lane));
  await proven;
  expect(wrong).toEqual([]);
  for (const [credential, password] of expected) {
    expect((await rest(replica(0), "GET", `/integrations/credentials/${credential}/credentials`, { token: machine })).json).toMatchObject({ password });
  }
  await using superuser = await connect(database.superuserUrl);
  const { rows } = await superuser.query("select distinct key_version from credential where organization_id = $1", [id]);
  expect(rows).toEqual([{ key_version: "2" }]);
});

test("a row that does not open stops nothing: the rest is moved, the row is named, and once it is replaced the rotation ends", async () => {
  const { id, user, machine, ids, resolve } = await organization(20);
  await using superuser = await connect(database.superuserUrl);
  await superuser.query("update credential set sealed = set_byte(sealed, 40, get_byte(sealed, 40) # 1) where organization_id = $1 and id = $2", [id, ids[3]]);
  const broken = await resolve(3);
  expect([broken.status, broken.json.error.code]).toEqual([500, "service_error"]);
  expect((await rest(replica(0), "GET", "/integrations/credentials", { token: machine })).json).toHaveLength(20);
  const { rotation } = await admin.rotateOrganizationKey({ organizationId: id });
  const rotationId = rotation?.id ?? "";
  const incomplete = await reaches(admin, rotationId, State.ROTATION_STATE_INCOMPLETE);
  expect(incomplete).toMatchObject({ rowsLeft: 1n, rowsFailed: 1n, failures: [{ organizationId: id, credentialId: ids[3], keyVersion: 1, kind: "not_authentic" }] });
  expect(await reasonOf(admin.retireRotatedKeys({ rotationId }))).toBe("ROTATION_STATE");
  expect((await resolve(4)).json).toMatchObject({ password: "p4" });
  // It is replaced without being opened.
  const replaced = await rest(replica(0), "PATCH", `/integrations/credentials/${ids[3]}`, { token: user, body: { ...body("mended"), provider: undefined } });
  expect(replaced.status).toBe(200);
  expect((await resolve(3, 0)).json).toMatchObject({ password: "mended" });
  await admin.controlRotation({ rotationId, paused: false });
  expect(await reaches(admin, rotationId, State.ROTATION_STATE_PROVEN)).toMatchObject({ rowsVerified: 20n, failures: [] });
});

test("a verification reads everything back and changes nothing, and names what does not open", async () => {
  const { id, ids } = await organization(10);
  await using superuser = await connect(database.superuserUrl);
  const bytes = async () => (await superuser.query("select id, sealed from credential where organization_id = $1 order by id", [id])).rows;
  const before = await bytes();
  const { rotation } = await admin.verifyKeys({ organizationId: id });
  expect(await reaches(admin, rotation?.id ?? "", State.ROTATION_STATE_PROVEN)).toMatchObject({ rowsTotal: 11n, rowsVerified: 11n, rowsLeft: 0n });
  expect(await bytes()).toEqual(before);
  await superuser.query("update credential set secret_version = secret_version + 1 where organization_id = $1 and id = $2", [id, ids[5]]);
  const { rotation: second } = await admin.verifyKeys({ organizationId: id });
  expect(await reaches(admin, second?.id ?? "", State.ROTATION_STATE_INCOMPLETE)).toMatchObject({ rowsVerified: 10n, failures: [{ credentialId: ids[5], kind: "not_authentic" }] });
});

test("a verification of an organization that is destroyed meanwhile ends all the same", async () => {
  const { id } = await organization(3);
  const { rotation } = await admin.verifyKeys({ organizationId: id, rowsPerSecond: 1 });
  await admin.destroyOrganization({ organizationId: id });
  expect(await reaches(admin, rotation?.id ?? "", State.ROTATION_STATE_PROVEN)).toMatchObject({ failures: [] });
});

test("a destroyed organization opens nowhere within the age of the caches, and the others are untouched", async () => {
  const [gone, other] = [await organization(3), await organization(3)];
  for (const at of [0, 1]) expect((await gone.resolve(0, at)).status).toBe(200);
  expect(await admin.destroyOrganization({ organizationId: gone.id })).toEqual({ destroyedKeys: 1 });
  await expect.poll(async () => [(await gone.resolve(0, 0)).json.error?.message, (await gone.resolve(0, 1)).json.error?.message], { timeout: 10_000 })
    .toEqual(["The organization's keys were destroyed", "The organization's keys were destroyed"]);
  const created = await rest(replica(0), "POST", "/integrations/credentials", { token: gone.user, body: body("x") });
  expect([created.status, created.json.error.message]).toEqual([400, "The organization's keys were destroyed"]);
  expect((await rest(replica(0), "GET", "/integrations/credentials", { token: gone.machine })).json).toHaveLength(3);
  expect((await other.resolve(1)).json).toMatchObject({ password: "p1" });
  expect(await admin.destroyOrganization({ organizationId: gone.id })).toEqual({ destroyedKeys: 0 });
  expect(await reasonOf(admin.rotateOrganizationKey({ organizationId: gone.id }))).toBe("ORGANIZATION_DESTROYED");
  expect(await reasonOf(admin.verifyKeys({ organizationId: gone.id }))).toBe("ORGANIZATION_DESTROYED");
  expect(await reasonOf(admin.verifyKeys({ organizationId: randomUUID() }))).toBe("ORGANIZATION_NOT_FOUND");
  await using superuser = await connect(database.superuserUrl);
  const { rows } = await superuser.query("select action, outcome from audit_event where organization_id = $1 and actor_kind = 'operator' order by link", [gone.id]);
  expect(rows).toEqual([{ action: "destroy_organization", outcome: "allowed" }, { action: "destroy_organization", outcome: "allowed" }]);
});

test("one that never had a key cannot get one after it was destroyed, nor while it is", async () => {
  const id = randomUUID();
  const user = await token("user", id);
  const [, ...created] = await Promise.all([
    admin.destroyOrganization({ organizationId: id }),
    ...Array.from({ length: 8 }, (_, n) => rest(replica(n), "POST", "/integrations/credentials", { token: user, body: body("x") })),
  ]);
  expect(created.every(({ status }) => status === 201 || status === 400)).toBe(true);
  expect(await reasonOf(admin.rotateOrganizationKey({ organizationId: randomUUID() }))).toBe("ORGANIZATION_NOT_FOUND");
  await using superuser = await connect(database.superuserUrl);
  const { rows } = await superuser.query("select version, wrapped is null as destroyed from organization_key where organization_id = $1", [id]);
  expect(rows).toEqual([{ version: "1", destroyed: true }]);
});
