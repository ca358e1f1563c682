import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { deriveKeys } from "../../src/crypto/derive.ts";
import { openSecret, parseSealed } from "../../src/crypto/sealed.ts";
import { keySettings, newMasterKeys, adminOf, QUICK, reaches } from "../support/admin.ts";
import { RotationState as State } from "../../gen/flow/credentials/v1/admin_service.ts";
import { connect } from "../support/postgres.ts";
import { ringOf } from "../support/rotation.ts";
import { rest, startFresh, token } from "../support/service.ts";

// Many processes are started here, and a loaded machine takes seconds for each.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const KEYS = newMasterKeys("k1", "k2");
let service: Awaited<ReturnType<typeof startFresh>>;
const [SHREDDED, KEPT] = [randomUUID(), randomUUID()];

beforeAll(async () => {
  service = await startFresh({ ...QUICK, ...keySettings(KEYS, "k1") });
  for (const organization of [SHREDDED, KEPT]) {
    const user = await token("user", organization);
    for (let n = 0; n < 5; n++) {
      const body = { provider: "google", credential_type: "api_key", credentials: { api_key: `canary-${organization}-${n}` } };
      const created = await rest(service, "POST", "/integrations/credentials", { token: user, body });
      expect(created.status).toBe(201);
      if (n > 0) continue;
      // One of them is changed, and what it was is kept beside it.
      const change = { credential_type: "api_key", credentials: { api_key: `canary-${organization}-newer` }, keep_previous_seconds: 600 };
      expect((await rest(service, "PATCH", `/integrations/credentials/${created.json.id}`, { token: user, body: change })).status).toBe(200);
    }
  }
});
afterAll(() => service[Symbol.asyncDispose]());

/** Everything a dump holds: every row of every table. */
async function dump(): Promise<Record<string, Record<string, unknown>[]>> {
  await using superuser = await connect(service.database.superuserUrl);
  const { rows: tables } = await superuser.query<{ name: string }>("select relname as name from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'");
  const all: Record<string, Record<string, unknown>[]> = {};
  for (const { name } of tables) all[name] = (await superuser.query(`select * from ${name}`)).rows;
  return all;
}

/** Secrets that whoever has a dump and every master key can open: each wrapped key that is anywhere in it, tried on everything. */
async function openable(): Promise<{ organization: string; text: string }[]> {
  const tables = await dump();
  const values = Object.values(tables).flat().flatMap((row) => Object.values(row)).filter((value): value is Buffer => Buffer.isBuffer(value));
  const ring = ringOf(KEYS, "k1");
  const opened: { organization: string; text: string }[] = [];
  for (const wrapped of values.filter((value) => value[0] === 0xc4)) {
    for (const organizationId of [SHREDDED, KEPT]) {
      for (const version of [1, 2, 3]) {
        const raw = await ring.unwrap(wrapped, { organizationId, version }).catch(() => undefined);
        if (raw === undefined) continue;
        const key = deriveKeys(raw).sealing;
        for (const row of [...(tables["credential"] ?? []), ...(tables["credential_previous"] ?? [])]) {
          const place = { organizationId, credentialId: (row["credential_id"] ?? row["id"]) as string, provider: "google", credentialType: "api_key", secretVersion: BigInt(row["secret_version"] as string) } as const;
          try {
            opened.push({ organization: organizationId, text: openSecret(key, place, parseSealed(row["sealed"] as Buffer)).toString("latin1") });
          } catch {
            // Of another key or another organization.
          }
        }
      }
    }
  }
  return opened;
}

test("a dump and every master key yield nothing of a destroyed organization, and everything of the others", async () => {
  using admin = await adminOf(service);
  // Two versions of its key, the older of them closed: both have to go.
  const { rotation } = await admin.rotateOrganizationKey({ organizationId: SHREDDED });
  await reaches(admin, rotation?.id ?? "", State.ROTATION_STATE_PROVEN);
  const before = await openable();
  expect(before.filter(({ organization }) => organization === SHREDDED)).toHaveLength(6);
  expect(before.every(({ organization, text }) => text.includes(`canary-${organization}`))).toBe(true);
  expect(await admin.destroyOrganization({ organizationId: SHREDDED })).toEqual({ destroyedKeys: 2 });
  const after = await openable();
  expect(after.map(({ organization }) => organization)).toEqual(Array.from({ length: 6 }, () => KEPT));
  expect(JSON.stringify(await dump())).not.toContain("canary-");
  // What was recorded stays, the destruction too.
  const { audit_event: events = [] } = await dump();
  expect(events.filter((event) => event["organization_id"] === SHREDDED).map((event) => event["action"])).toEqual(expect.arrayContaining(["create_credential", "rotate_organization_key", "prove_rotation", "destroy_organization"]));
});
