import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { RotationState as State } from "../../gen/flow/credentials/v1/admin_service.ts";
import type { AdminClient } from "../../src/client/admin.ts";
import { adminOf, QUICK, reaches } from "../support/admin.ts";
import { connect } from "../support/postgres.ts";
import { rest, startFresh, token } from "../support/service.ts";

// A service is started here, and a loaded machine takes seconds for it.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let service: Awaited<ReturnType<typeof startFresh>>;
let admin: AdminClient;

beforeAll(async () => {
  service = await startFresh({ ...QUICK, CREDENTIALS_REST_RESOLVE: "on" });
  admin = await adminOf(service);
});
afterAll(async () => {
  admin[Symbol.dispose]();
  await service[Symbol.asyncDispose]();
});

const secretOf = (password: string) => ({ credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password } });
const reasonOf = (call: Promise<unknown>) => call.then(() => "no error", (error: { reason?: string }) => error.reason);

/** An organization with so many credentials, each changed from `old-…` to `new-…` with the old secret kept. */
async function organization(count: number) {
  const id = randomUUID();
  const [user, machine] = [await token("user", id), await token("service_account", id)];
  const call = (method: string, path: string, body?: unknown, headers: Record<string, string> = {}) =>
    rest(service, method, `/integrations/credentials${path}`, { token: user, headers, ...(body === undefined ? {} : { body }) });
  const ids: string[] = [];
  for (let n = 0; n < count; n++) {
    const { json } = await call("POST", "", { provider: "sftp", ...secretOf(`old-${n}`) });
    expect((await call("PATCH", `/${json.id}`, { ...secretOf(`new-${n}`), keep_previous_seconds: 3_600 })).status).toBe(200);
    ids.push(json.id);
  }
  const password = async (n: number) => (await rest(service, "GET", `/integrations/credentials/${ids[n]}/credentials`, { token: machine })).json.password;
  const back = async (n: number) => (await call("POST", `/${ids[n]}/rollback`)).status;
  return { id, ids, call, password, back };
}

/** How many secrets there are under each version, in each table. */
async function versions(organizationId: string) {
  await using superuser = await connect(service.database.superuserUrl);
  const { rows } = await superuser.query<{ at: string; n: number }>(
    `select t || ' ' || key_version as at, count(*)::integer as n from (select 'now' as t, key_version from credential where organization_id = $1
      union all select 'kept', key_version from credential_previous where organization_id = $1) s group by 1 order by 1`,
    [organizationId],
  );
  return Object.fromEntries(rows.map(({ at, n }) => [at, n]));
}

test("kept secrets are moved with the others, and gone back to during and after a rotation, in either direction", async () => {
  const { id, ids, call, password, back } = await organization(8);
  await call("DELETE", `/${ids[7]}`);
  expect(await versions(id)).toEqual({ "now 1": 8, "kept 1": 8 });
  const { rotation } = await admin.rotateOrganizationKey({ organizationId: id, rowsPerSecond: 8 });
  expect(rotation).toMatchObject({ rowsTotal: 16n });
  // Each is somewhere on the way: some of both kinds are moved already.
  expect([await back(0), await back(6)]).toEqual([200, 200]);
  expect((await call("PATCH", `/${ids[1]}`, { ...secretOf("newer-1"), keep_previous_seconds: 3_600 })).status).toBe(200);
  const proven = await reaches(admin, rotation?.id ?? "", State.ROTATION_STATE_PROVEN);
  expect(proven).toMatchObject({ rowsLeft: 0n, rowsVerified: 14n, rowsFailed: 0n });
  expect(await versions(id)).toEqual({ "now 2": 8, "kept 2": 6 });
  const { rotation: taken } = await admin.rollBackRotation({ rotationId: proven.id });
  expect(await back(2)).toBe(200);
  await reaches(admin, taken?.id ?? "", State.ROTATION_STATE_PROVEN);
  expect(await versions(id)).toEqual({ "now 1": 8, "kept 1": 5 });
  const { rotation: again } = await admin.rotateOrganizationKey({ organizationId: id });
  await reaches(admin, again?.id ?? "", State.ROTATION_STATE_PROVEN);
  await admin.retireRotatedKeys({ rotationId: again?.id ?? "" });
  expect([await back(1), await back(3)]).toEqual([200, 200]);
  expect(await Promise.all([0, 1, 2, 3, 4, 5, 6].map(password))).toEqual(["old-0", "new-1", "old-2", "old-3", "new-4", "new-5", "old-6"]);
  expect(await versions(id)).toEqual({ "now 3": 8, "kept 3": 3 });
});

test("a kept secret that does not open is named as such, stops nothing, and is mended by a new secret", async () => {
  const { id, ids, call, password } = await organization(3);
  await using superuser = await connect(service.database.superuserUrl);
  await superuser.query("update credential_previous set sealed = set_byte(sealed, 40, get_byte(sealed, 40) # 1) where credential_id = $1", [ids[1]]);
  const { rotation } = await admin.rotateOrganizationKey({ organizationId: id });
  const rotationId = rotation?.id ?? "";
  expect(await reaches(admin, rotationId, State.ROTATION_STATE_INCOMPLETE)).toMatchObject({
    rowsLeft: 1n, failures: [{ organizationId: id, credentialId: ids[1], keyVersion: 1, kind: "previous_not_authentic" }],
  });
  expect(await password(1)).toBe("new-1");
  expect(await reasonOf(admin.retireRotatedKeys({ rotationId }))).toBe("ROTATION_STATE");
  expect((await call("PATCH", `/${ids[1]}`, secretOf("mended"))).status).toBe(200);
  await admin.controlRotation({ rotationId, paused: false });
  expect(await reaches(admin, rotationId, State.ROTATION_STATE_PROVEN)).toMatchObject({ rowsVerified: 5n, failures: [] });
  const { rotation: verified } = await admin.verifyKeys({ organizationId: id });
  // Two keys, three secrets and two kept ones.
  expect(await reaches(admin, verified?.id ?? "", State.ROTATION_STATE_PROVEN)).toMatchObject({ rowsTotal: 7n, rowsVerified: 7n });
});

test("a write that came with an idempotency key is known again after the key of its organization was retired", async () => {
  const { id, ids, call } = await organization(1);
  const key = { "idempotency-key": randomUUID() };
  const first = await call("PATCH", `/${ids[0]}`, secretOf("once"), key);
  const { rotation } = await admin.rotateOrganizationKey({ organizationId: id });
  await reaches(admin, rotation?.id ?? "", State.ROTATION_STATE_PROVEN);
  await admin.retireRotatedKeys({ rotationId: rotation?.id ?? "" });
  const again = await call("PATCH", `/${ids[0]}`, secretOf("once"), key);
  expect([again.status, again.text]).toEqual([200, first.text]);
  expect((await call("PATCH", `/${ids[0]}`, secretOf("another"), key)).status).toBe(409);
});
