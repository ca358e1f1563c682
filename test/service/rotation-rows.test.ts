import { randomBytes, randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ProofDigest, readBack, resealBatch, rewrapBatch } from "../../src/crypto/move.ts";
import type { Envelope } from "../../src/crypto/envelope.ts";
import type { KeyRing } from "../../src/crypto/ring.ts";
import { FIRST_KEY, FIRST_SECRET, type SealedRow } from "../../src/store/rotation-rows.ts";
import type { Store } from "../../src/store/store.ts";
import { checkKeys } from "../../src/vault/keys.ts";
import { newMasterKeys } from "../support/admin.ts";
import { block } from "../support/blocker.ts";
import { connect, type FreshDatabase, freshDatabase } from "../support/postgres.ts";
import { envelopeOf, ringOf, storeMany } from "../support/rotation.ts";
import { allowed, LIMITS, NEVER, newCredential, openTestStore, reasonOf } from "../support/store.ts";

const KEYS = newMasterKeys("k1", "k2");
let database: FreshDatabase;
let store: Store & AsyncDisposable;
let ring: KeyRing;
let envelope: Envelope;

beforeAll(async () => {
  database = await freshDatabase();
  store = await openTestStore(database.applicationUrl);
  ring = ringOf(KEYS, "k1");
  await store.replicas.nominate("k1");
  await checkKeys(store.keyRegistry, ring);
  envelope = envelopeOf(store, ring);
});
afterAll(async () => {
  await store[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

/** An organization in the middle of a rotation: so many secrets under version 1, and version 2 seals. */
async function midRotation(count: number) {
  const organizationId = randomUUID();
  const ids = await storeMany(database.superuserUrl, envelope, organizationId, count);
  const id = randomUUID();
  const key = await envelope.keys.draw({ organizationId, version: 2 });
  await store.rotations.begin.organizationKey({ id, rowsPerSecond: null, startedBy: "ops", rollsBack: null, key }, { ...allowed(organizationId, null, "rotate_organization_key"), actorKind: "operator" });
  envelope.evict(organizationId);
  const page = await store.rotationRows.secretsNotUnder("credential", organizationId, 2, FIRST_SECRET, 1_000);
  return { organizationId, ids, page, id };
}

const resealed = async (organizationId: string, page: readonly SealedRow[]) => {
  const outcomes = await resealBatch(envelope.keys, organizationId, 2, page);
  return page.map((row, index) => ({ row, sealed: (outcomes[index] as { value: Buffer }).value }));
};

/** What a credential's secret is now. */
async function passwordOf(organizationId: string, id: string): Promise<unknown> {
  const stored = await store.credentials.resolve(organizationId, id, allowed(organizationId, id, "resolve_credential"));
  if (!stored) return undefined;
  const { provider, credentialType, secretVersion } = stored;
  return (await envelope.open({ organizationId, credentialId: id, provider, credentialType, secretVersion }, stored.sealed))["password"];
}

async function update(organizationId: string, id: string, password: string, keepPreviousSeconds = 0): Promise<void> {
  const place = { organizationId, credentialId: id, provider: "sftp", credentialType: "user_password", secretVersion: 2n } as const;
  const sealed = await envelope.seal(place, { host: "h", username: "u", password });
  const change = { organizationId, id, expectedRevision: 1, credentialType: "user_password", name: null, accountEmail: null, tokenExpiresAt: null, status: "active", modifiedBy: "service-account", secretVersion: 2n, sealed, keepPreviousSeconds } as const;
  expect(await store.credentials.replace(change, allowed(organizationId, id, "update_credential"), NEVER)).toMatchObject({ id });
}

describe("secrets that are sealed anew", () => {
  test("give way to what a user wrote after they were read", async () => {
    const { organizationId, ids: [first = "", second = ""], page } = await midRotation(2);
    const batch = await resealed(organizationId, page);
    await update(organizationId, first, "newest");
    expect(await store.rotationRows.moveSecrets("credential", organizationId, 2, batch)).toBe(1);
    expect([await passwordOf(organizationId, first), await passwordOf(organizationId, second)]).toEqual(["newest", "p1"]);
  });

  test("are moved once by two workers that race, with users who write the same rows, and every newest secret survives", async () => {
    const { organizationId, ids, page } = await midRotation(60);
    const [one, other] = [await resealed(organizationId, page), await resealed(organizationId, page.toReversed())];
    const written = ids.slice(0, 20);
    const [moved, again] = await Promise.all([
      store.rotationRows.moveSecrets("credential", organizationId, 2, one),
      store.rotationRows.moveSecrets("credential", organizationId, 2, other),
      ...written.map((id) => update(organizationId, id, `newest of ${id}`)),
    ]) as [number, number];
    expect(moved + again).toBeLessThanOrEqual(60);
    for (let left: SealedRow[]; (left = await store.rotationRows.secretsNotUnder("credential", organizationId, 2, FIRST_SECRET, 1_000)).length > 0; ) {
      await store.rotationRows.moveSecrets("credential", organizationId, 2, await resealed(organizationId, left));
    }
    for (const [n, id] of ids.entries()) expect(await passwordOf(organizationId, id)).toBe(n < 20 ? `newest of ${id}` : `p${n}`);
  });

  test("pass over a row that somebody has locked, and do not wait for it", async () => {
    const { organizationId, ids, page } = await midRotation(5);
    await using somebody = await connect(database.superuserUrl);
    await somebody.query("begin");
    await somebody.query("select from credential where id = $1 for update", [ids[2]]);
    expect(await store.rotationRows.moveSecrets("credential", organizationId, 2, await resealed(organizationId, page))).toBe(4);
    await somebody.query("rollback");
    expect((await store.rotationRows.secretsNotUnder("credential", organizationId, 2, FIRST_SECRET, 10)).map(({ place }) => place.credentialId)).toEqual([ids[2]]);
  });

  test("are not stored under a version that does not seal", async () => {
    const { organizationId, page, id } = await midRotation(3);
    const batch = await resealed(organizationId, page);
    const back = { id: randomUUID(), rowsPerSecond: null, startedBy: "ops", rollsBack: id, organizationId, version: 1 };
    await store.rotations.begin.organizationKeyBack(back, { ...allowed(organizationId, null, "roll_back_rotation"), actorKind: "operator" });
    expect(await store.rotationRows.moveSecrets("credential", organizationId, 2, batch)).toBe(0);
  });

  test("are read in pages that stay small, whatever the size of a secret", async () => {
    const organizationId = randomUUID();
    const place = (credentialId: string) => ({ organizationId, credentialId, provider: "sftp", credentialType: "user_password", secretVersion: 1n }) as const;
    const large = { host: "h", username: "u", password: "x".repeat(60_000) };
    for (let n = 0; n < 120; n++) {
      const row = newCredential(organizationId);
      await store.credentials.create({ ...row, sealed: await envelope.seal(place(row.id), large) }, { perProvider: 1_000, perUser: 1_000 }, allowed(organizationId, row.id), NEVER);
    }
    let seen = 0;
    for (let after = "00000000-0000-0000-0000-000000000000"; ; ) {
      const page = await store.rotationRows.secrets("credential", organizationId, after, 1_000);
      if (page.length === 0) break;
      expect(page.reduce((sum, { sealed }) => sum + sealed.length, 0)).toBeLessThan(4.2 * 1024 * 1024);
      seen += page.length;
      after = page.at(-1)?.place.credentialId ?? "";
    }
    expect(seen).toBe(120);
  });
});

describe("secrets that are kept beside their successors", () => {
  /** What stands of them: whose, under which version of the key, and what it opens to. */
  const kept = async (organizationId: string) => {
    const rows = await store.rotationRows.secrets("credential_previous", organizationId, "00000000-0000-0000-0000-000000000000", 1_000);
    return Promise.all(rows.map(async ({ place, keyVersion, sealed }) => ({ id: place.credentialId, keyVersion, password: (await envelope.open(place, sealed))["password"] })));
  };
  const page = (organizationId: string) => store.rotationRows.secretsNotUnder("credential_previous", organizationId, 2, FIRST_SECRET, 1_000);

  test("give way to one that replaced them after they were read, and stay purged", async () => {
    const { organizationId, ids: [replaced = "", purged = "", plain = ""] } = await midRotation(3);
    for (const id of [replaced, purged, plain]) await update(organizationId, id, "second", 600);
    const before = await page(organizationId);
    const batch = await resealed(organizationId, before);
    await using superuser = await connect(database.superuserUrl);
    await superuser.query("delete from credential_previous where credential_id = $1", [purged]);
    await superuser.query("update credential_previous p set secret_version = c.secret_version, sealed = c.sealed from credential c where p.credential_id = $1 and c.id = p.credential_id", [replaced]);
    expect(await store.rotationRows.moveSecrets("credential_previous", organizationId, 2, batch)).toBe(1);
    const left = new Map((await kept(organizationId)).map(({ id, ...rest }) => [id, rest]));
    expect(left).toEqual(new Map([[plain, { keyVersion: 2, password: "p2" }], [replaced, { keyVersion: 2, password: "second" }]]));
    expect(await page(organizationId)).toEqual([]);
    // What was changed is not taken for what was read: neither is moved twice.
    expect(await store.rotationRows.moveSecrets("credential_previous", organizationId, 2, batch)).toBe(0);
  });

  test("pass over a row that somebody has locked, and do not wait for it", async () => {
    const { organizationId, ids } = await midRotation(3);
    for (const id of ids) await update(organizationId, id, "second", 600);
    const batch = await resealed(organizationId, await page(organizationId));
    await using somebody = await block(database.superuserUrl, "select from credential_previous where credential_id = $1 for update", [ids[1]]);
    expect(await store.rotationRows.moveSecrets("credential_previous", organizationId, 2, batch)).toBe(2);
    await somebody.release();
    expect((await page(organizationId)).map(({ place }) => place.credentialId)).toEqual([ids[1]]);
  });

  test("are kept as a rotation has left them, where it came before an update that had begun", async () => {
    const { organizationId, ids: [id = ""], page: [row] } = await midRotation(1);
    const [moved] = await resealed(organizationId, [row as SealedRow]);
    // As a batch of the rotation does it, which has not committed yet.
    await using batch = await block(database.superuserUrl, "update credential set sealed = $2 where id = $1", [id, moved?.sealed]);
    const updating = update(organizationId, id, "second", 600);
    await batch.holds(1);
    await batch.commit();
    await updating;
    expect(await kept(organizationId)).toEqual([{ id, keyVersion: 2, password: "p0" }]);
    expect(await passwordOf(organizationId, id)).toBe("second");
  });
});

describe("a closed key", () => {
  test("takes no secret any more from a replica that has not noticed, and opens until it is retired", async () => {
    const { organizationId, ids, page, id } = await midRotation(2);
    const late = newCredential(organizationId);
    const place = { organizationId, credentialId: late.id, provider: "sftp", credentialType: "user_password", secretVersion: 1n } as const;
    const stale = envelopeOf({ ...store, organizationKeys: { ...store.organizationKeys, current: () => store.organizationKeys.byVersion(organizationId, 1) } }, ring);
    const sealed = await stale.seal(place, { host: "h", username: "u", password: "p" });
    await store.rotations.close((await store.rotations.get(id)) as never);
    const moved: string[] = [];
    store.onKeyMoved((organizations) => moved.push(...organizations));
    expect(await reasonOf(store.credentials.create({ ...late, sealed }, LIMITS, allowed(organizationId, late.id), NEVER))).toBe("KEY_MOVED");
    expect(moved).toEqual([organizationId]);
    expect(await passwordOf(organizationId, ids[0] as string)).toBe("p0");
    // Other databases of the server have transactions, too: any that began before keeps the answer back until it ends.
    await expect.poll(() => store.rotations.closedForAll(id), { timeout: 10_000 }).toBe(true);
    expect(await readBack(envelope.keys, organizationId, page)).toEqual([{ value: 1 }, { value: 1 }]);
  });

  test("takes no kept secret and no authorization either, and what is still under it can be changed once it is moved", async () => {
    const { organizationId, ids: [first = ""], page, id } = await midRotation(2);
    await store.rotations.close((await store.rotations.get(id)) as never);
    expect(await reasonOf(update(organizationId, first, "newest", 600))).toBe("KEY_MOVED");
    expect(await passwordOf(organizationId, first)).toBe("p0");
    const row = { organizationId, id: randomUUID(), userId: randomUUID(), provider: "google", browserHash: null, stateHash: randomBytes(32), sealed: page[0]?.sealed as Buffer } as const;
    expect(await reasonOf(store.authorizations.begin(row, { seconds: 600, perUser: 5 }, allowed(organizationId, null, "begin_authorization"), NEVER))).toBe("KEY_MOVED");
    expect(await store.rotationRows.moveSecrets("credential", organizationId, 2, await resealed(organizationId, page))).toBe(2);
    await update(organizationId, first, "newest", 600);
    expect(await passwordOf(organizationId, first)).toBe("newest");
    expect(await store.rotationRows.secretsNotUnder("credential_previous", organizationId, 2, FIRST_SECRET, 10)).toEqual([]);
  });

  test("is not kept by authorizations that nobody finished", async () => {
    const { organizationId, page, id } = await midRotation(1);
    const begun = async () => {
      const row = { organizationId, id: randomUUID(), userId: randomUUID(), provider: "google", browserHash: null, stateHash: randomBytes(32), sealed: page[0]?.sealed as Buffer } as const;
      await store.authorizations.begin(row, { seconds: 600, perUser: 5 }, allowed(organizationId, null, "begin_authorization"), NEVER);
    };
    await begun();
    await store.rotationRows.moveSecrets("credential", organizationId, 2, await resealed(organizationId, page));
    await store.rotations.close((await store.rotations.get(id)) as never);
    await using superuser = await connect(database.superuserUrl);
    await superuser.query("update rotation set state = 'proven' where id = $1", [id]);
    const retired = async () => reasonOf(store.rotations.retire((await store.rotations.get(id)) as never, { ...allowed(organizationId, null, "control_rotation"), actorKind: "operator" }));
    expect(await retired()).toBe("KEY_STILL_NEEDED");
    await superuser.query("update oauth_authorization set created_at = now() - interval '1 hour', expires_at = now() - interval '1 second' where organization_id = $1", [organizationId]);
    expect(await retired()).toBeUndefined();
    expect((await superuser.query("select state from organization_key where organization_id = $1 order by version", [organizationId])).rows).toEqual([{ state: "retired" }, { state: "sealing" }]);
  });

  test("is not closed for all while a transaction runs that saw it open", async () => {
    const { organizationId, id } = await midRotation(1);
    await using somebody = await connect(database.superuserUrl);
    await somebody.query("begin");
    await somebody.query("select pg_current_xact_id()");
    await store.rotations.close((await store.rotations.get(id)) as never);
    expect(await store.rotations.closedForAll(id)).toBe(false);
    await somebody.query("rollback");
    await expect.poll(() => store.rotations.closedForAll(id), { timeout: 10_000 }).toBe(true);
    expect(organizationId).toBeTruthy();
  });
});

describe("organization keys", () => {
  test("are wrapped under the primary key alone, by the database's own rule, whoever wraps them", async () => {
    const stale = ringOf(KEYS, "k2");
    const row = await envelopeOf(store, stale).keys.draw({ organizationId: randomUUID(), version: 1 });
    expect(await reasonOf(store.organizationKeys.insertFirst(row))).toBe("KEY_MOVED");
    // A replica whose idea of the primary key is out of date asks again and goes on.
    stale.refresh = async () => stale.assign({ primaryId: "k1", retiredIds: [] });
    const organizationId = randomUUID();
    const fresh = envelopeOf(store, stale);
    const place = { organizationId, credentialId: randomUUID(), provider: "sftp", credentialType: "user_password", secretVersion: 1n } as const;
    expect(await fresh.open(place, await fresh.seal(place, { a: 1 }))).toEqual({ a: 1 });
  });

  test("keep their places: inserted, moved, destroyed", async () => {
    const organizationId = randomUUID();
    await storeMany(database.superuserUrl, envelope, organizationId, 1);
    await using superuser = await connect(database.superuserUrl);
    const place = async () => (await superuser.query("select version, master_key_id from organization_key_place where organization_id = $1", [organizationId])).rows;
    expect(await place()).toEqual([{ version: "1", master_key_id: "k1" }]);
    const mismatch = await superuser.query(`select (select count(*) from organization_key where wrapped is not null) as keys, (select count(*) from organization_key_place p join organization_key k using (organization_id, version, master_key_id)) as places`);
    expect(mismatch.rows[0].keys).toBe(mismatch.rows[0].places);
    await store.organizationKeys.destroy(organizationId, allowed(organizationId, null, "destroy_organization"));
    expect(await place()).toEqual([]);
  });

  test("that are destroyed while they are being moved stay destroyed", async () => {
    const organizationId = randomUUID();
    await storeMany(database.superuserUrl, envelope, organizationId, 1);
    const page = (await store.rotationRows.keysNotUnder("k2", FIRST_KEY, 1_000)).filter((row) => row.organizationId === organizationId);
    const [moved] = await rewrapBatch(ring, "k1", page);
    await store.organizationKeys.destroy(organizationId, allowed(organizationId, null, "destroy_organization"));
    expect(await store.rotationRows.moveKeys("k1", [{ row: page[0] as never, wrapped: (moved as { value: Buffer }).value }])).toBe(0);
    expect(await store.organizationKeys.current(organizationId)).toMatchObject({ wrapped: null });
  });
});

test("a proof depends on every row and every count", () => {
  const rows: [string, Buffer][] = [["a", randomBytes(60)], ["b", randomBytes(60)]];
  const proof = (facts: Record<string, number>, ...added: [string, Buffer][]) => {
    const digest = new ProofDigest();
    for (const [id, bytes] of added) digest.add(id, bytes);
    return digest.end(facts).toString("hex");
  };
  const base = proof({ rows: 2 }, ...rows);
  expect(proof({ rows: 2 }, ...rows)).toBe(base);
  const others = [proof({ rows: 3 }, ...rows), proof({ rows: 2 }, ...rows.toReversed()), proof({ rows: 2 }, rows[0] as [string, Buffer])];
  expect(new Set([base, ...others]).size).toBe(4);
});
