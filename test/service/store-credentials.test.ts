import { randomBytes, randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Replacement, Store } from "../../src/store/store.ts";
import { connect, freshDatabase, type FreshDatabase } from "../support/postgres.ts";
import { allowed, create, everythingOf, LIMITS, NEVER, newCredential, openTestStore, reasonOf, resolve, sealedBytes } from "../support/store.ts";

let database: FreshDatabase;
let store: Store & AsyncDisposable;
beforeAll(async () => {
  database = await freshDatabase();
  store = await openTestStore(database.applicationUrl);
});
afterAll(async () => {
  await store.close();
  await database[Symbol.asyncDispose]();
});

const replacement = (organizationId: string, id: string, overrides: Partial<Replacement> = {}): Replacement => ({
  organizationId,
  id,
  expectedRevision: 1,
  credentialType: "key_file",
  name: null,
  accountEmail: null,
  tokenExpiresAt: null,
  status: "active",
  modifiedBy: randomUUID(),
  secretVersion: 2n,
  sealed: sealedBytes(),
  ...overrides,
});
const replace = (change: Replacement) => store.credentials.replace(change, allowed(change.organizationId, change.id, "update_credential"), NEVER);

describe("a stored credential", () => {
  test("comes back as it was given, with the store's times and versions", async () => {
    const organizationId = randomUUID();
    const row = newCredential(organizationId, { accountEmail: "a@example.com", tokenExpiresAt: new Date("2030-01-02T03:04:05.678Z") });
    const created = await store.credentials.create(row, LIMITS, allowed(organizationId, row.id), NEVER);
    const { sealed, ...known } = row;
    expect(created).toEqual({ ...known, accountId: null, createdAt: created.createdAt, updatedAt: created.createdAt, status: "active", statusReason: null, statusSince: created.createdAt, renewable: false, revision: 1, secretVersion: 1n });
    expect(await store.credentials.get(organizationId, row.id, NEVER)).toEqual(created);
    const { provider, credentialType } = row;
    const found = { organizationId, id: row.id, provider, credentialType, status: "active", statusReason: null, renewable: false, ownClient: false, secretVersion: 1n, sealed };
    const resolved = await resolve(store, organizationId, row.id);
    expect(resolved).toEqual({ ...found, remainingMs: resolved?.remainingMs });
    expect(resolved?.remainingMs).toBeGreaterThan(0);
  });

  test("keeps every byte of a sealed value of 64 KiB", async () => {
    const organizationId = randomUUID();
    const row = await create(store, organizationId, { sealed: sealedBytes(randomBytes(64 * 1024)) });
    expect((await resolve(store, organizationId, row.id))?.sealed.equals(row.sealed)).toBe(true);
  });

  test("is the same absence to another organization, when deleted, and when it never was", async () => {
    const [organizationId, stranger, userId] = [randomUUID(), randomUUID(), randomUUID()];
    const [{ id }, deleted] = [await create(store, organizationId), await create(store, organizationId)];
    await store.credentials.remove({ organizationId, id: deleted.id, expectedRevision: 1, modifiedBy: userId }, allowed(organizationId, deleted.id, "delete_credential"), NEVER);
    for (const [organization, credential] of [[stranger, id], [organizationId, deleted.id], [organizationId, randomUUID()]] as const) {
      expect(await store.credentials.get(organization, credential, NEVER)).toBeUndefined();
      expect(await resolve(store, organization, credential)).toBeUndefined();
      expect(await replace(replacement(organization, credential))).toBeUndefined();
      expect(await store.credentials.remove({ organizationId: organization, id: credential, expectedRevision: null, modifiedBy: userId }, allowed(organization, credential, "delete_credential"), NEVER)).toBeUndefined();
    }
    expect(await store.credentials.list(stranger, { userId: null, provider: null }, NEVER)).toEqual([]);
  });

  test("is listed newest first, ties by id descending, by user and by provider", async () => {
    const [organizationId, userId] = [randomUUID(), randomUUID()];
    const rows = await Promise.all(Array.from({ length: 30 }, (_, index) => create(store, organizationId, { ...(index % 2 ? { userId } : {}), provider: index % 3 ? "google" : "sftp" })));
    const all = await store.credentials.list(organizationId, { userId: null, provider: null }, NEVER);
    const key = ({ createdAt, id }: { createdAt: Date; id: string }) => `${createdAt.toISOString()} ${id}`;
    expect(all.map(key)).toEqual(all.map(key).toSorted().toReversed());
    expect(all).toHaveLength(30);
    const of = (filter: { userId: string | null; provider: "sftp" | "google" | null }) => store.credentials.list(organizationId, filter, NEVER).then((found) => found.map(({ id }) => id).toSorted());
    expect(await of({ userId, provider: null })).toEqual(rows.filter((row) => row.userId === userId).map(({ id }) => id).toSorted());
    expect(await of({ userId, provider: "sftp" })).toEqual(rows.filter((row) => row.userId === userId && row.provider === "sftp").map(({ id }) => id).toSorted());
  });
});

describe("a replacement", () => {
  test("of the revision that was read takes effect, keeps what it does not name, and moves time on", async () => {
    const organizationId = randomUUID();
    const row = await create(store, organizationId, { name: "kept", accountEmail: "kept@example.com" });
    const before = await store.credentials.get(organizationId, row.id, NEVER);
    const change = replacement(organizationId, row.id);
    const after = await replace(change);
    expect(after).toMatchObject({ name: "kept", accountEmail: "kept@example.com", credentialType: "key_file", revision: 2, secretVersion: 2n, modifiedBy: change.modifiedBy, createdAt: before?.createdAt });
    expect((await resolve(store, organizationId, row.id))?.sealed).toEqual(change.sealed);
  });

  test("of an old revision, or of another secret version than the next one, is stale and changes nothing", async () => {
    const organizationId = randomUUID();
    const { id } = await create(store, organizationId);
    expect(await replace(replacement(organizationId, id, { expectedRevision: 2 }))).toBe("stale");
    expect(await replace(replacement(organizationId, id, { secretVersion: 3n }))).toBe("stale");
    expect(await store.credentials.remove({ organizationId, id, expectedRevision: 7, modifiedBy: randomUUID() }, allowed(organizationId, id, "delete_credential"), NEVER)).toBe("stale");
    expect(await store.credentials.get(organizationId, id, NEVER)).toMatchObject({ revision: 1, secretVersion: 1n, credentialType: "user_password" });
  });

  test("raced by ten takes effect once", async () => {
    const organizationId = randomUUID();
    const { id } = await create(store, organizationId);
    const outcomes = await Promise.all(Array.from({ length: 10 }, () => replace(replacement(organizationId, id))));
    expect(outcomes.filter((outcome) => outcome === "stale")).toHaveLength(9);
  });

  test("made many times in a row always has a later time, in whole milliseconds", async () => {
    const organizationId = randomUUID();
    const { id } = await create(store, organizationId);
    const times: number[] = [];
    for (let revision = 1; revision <= 30; revision++) {
      const after = await replace(replacement(organizationId, id, { expectedRevision: revision, secretVersion: BigInt(revision + 1) }));
      times.push(typeof after === "object" ? after.updatedAt.getTime() : Number.NaN);
    }
    expect(times).toEqual([...new Set(times)].toSorted((one, other) => one - other));
    await using superuser = await connect(database.superuserUrl);
    await superuser.query("update credential set updated_at = now() + interval '1 hour' where id = $1", [id]);
    const after = await replace(replacement(organizationId, id, { expectedRevision: 31, secretVersion: 32n }));
    expect(typeof after === "object" && after.updatedAt.getTime() > Date.now() + 3_500_000).toBe(true);
  });
});

describe("what PostgreSQL refuses", () => {
  const canary = "CANARY-7f3a9c";

  test("never repeats a value of the row, in any field of the error or its causes", async () => {
    const organizationId = randomUUID();
    const bad = [
      newCredential(organizationId, { provider: canary as never }),
      newCredential(organizationId, { sealed: Buffer.from(canary) }),
      newCredential(organizationId, { name: `${canary}\0` }),
    ];
    for (const row of bad) {
      const error: unknown = await store.credentials.create(row, LIMITS, allowed(organizationId, row.id), NEVER).catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ reason: "INTERNAL" });
      expect(everythingOf(error)).not.toMatch(/CANARY|Failing row|43414e415259/i);
    }
    const twice = await create(store, organizationId, { name: canary });
    const error: unknown = await store.credentials.create(twice, LIMITS, allowed(organizationId, twice.id), NEVER).catch((thrown: unknown) => thrown);
    expect(everythingOf(error)).toContain("credential_pkey");
    expect(everythingOf(error)).not.toContain(twice.id);
  });

  test("of a column that is immutable stays as it was, even for the owner", async () => {
    const organizationId = randomUUID();
    const { id } = await create(store, organizationId);
    await using superuser = await connect(database.superuserUrl);
    for (const change of ["id = gen_random_uuid()", "organization_id = gen_random_uuid()", "provider = 'google'", "user_id = gen_random_uuid()", "created_at = now() - interval '1 day'"]) {
      await expect(superuser.query(`update credential set ${change} where id = $1`, [id]), change).rejects.toMatchObject({ constraint: "credential_immutable" });
    }
  });
});

describe("service accounts", () => {
  test("get keys that are found by prefix alone, and only where the account is there", async () => {
    const [organizationId, id] = [randomUUID(), randomUUID()];
    const event = allowed(organizationId, null, "create_service_account_key");
    expect(await store.serviceAccounts.create({ organizationId, id: randomUUID(), name: "x".repeat(255) }, event)).toMatchObject({ organizationId });
    const account = await store.serviceAccounts.create({ organizationId, id, name: "executor" }, event);
    expect(account.createdAt).toBeInstanceOf(Date);
    const key = { id: randomUUID(), organizationId, serviceAccountId: id, tokenPrefix: randomUUID(), tokenHash: randomBytes(32), expiresAt: null };
    const created = await store.serviceAccounts.createKey(key, event);
    expect(created).toMatchObject({ name: "key", lastUsedAt: null, createdAt: expect.any(Date) });
    expect(await store.serviceAccounts.keyByPrefix(key.tokenPrefix)).toEqual({ ...key, createdAt: created.createdAt, revokedAt: null });
    expect(await store.serviceAccounts.keyByPrefix("nothing")).toBeUndefined();
    const stranger = randomUUID();
    const foreign = { ...key, id: randomUUID(), tokenPrefix: randomUUID(), organizationId: stranger };
    expect(await reasonOf(store.serviceAccounts.createKey(foreign, allowed(stranger, null, "create_service_account_key")))).toBe("SERVICE_ACCOUNT_NOT_FOUND");
  });
});

describe("keys", () => {
  const wrapped = (id: string) => Buffer.concat([Buffer.from([0xc4, 1, 1, id.length]), Buffer.from(id), randomBytes(60)]);

  test("of an organization are inserted once by whoever is first, and everyone gets that one", async () => {
    const organizationId = randomUUID();
    const rows = await Promise.all(
      Array.from({ length: 8 }, () => store.organizationKeys.insertFirst({ organizationId, version: 1, wrapped: wrapped("main"), masterKeyId: "main", commitment: randomBytes(32) })),
    );
    expect(new Set(rows.map((row) => row.wrapped?.toString("hex"))).size).toBe(1);
    expect(await store.organizationKeys.current(organizationId)).toEqual(rows[0]);
    expect(await store.organizationKeys.byVersion(organizationId, 2)).toBeUndefined();
    expect(await store.organizationKeys.current(randomUUID())).toBeUndefined();
  });

  test("are refused under another id than the one in their bytes", async () => {
    const row = { organizationId: randomUUID(), version: 1, wrapped: wrapped("main"), masterKeyId: "other", commitment: randomBytes(32) };
    const error: unknown = await store.organizationKeys.insertFirst(row).catch((thrown: unknown) => thrown);
    expect(everythingOf(error)).toContain("organization_key_master_key_id_must_be_that_of_the_bytes");
  });

  test("of the master ring are registered once, and counted by what they wrap before any organization is known", async () => {
    const [first, second] = [randomBytes(32), randomBytes(32)];
    expect(await store.keyRegistry.register("counted", first)).toEqual(first);
    expect(await store.keyRegistry.register("counted", second)).toEqual(first);
    for (const id of ["counted", "counted", "unregistered"]) {
      await store.organizationKeys.insertFirst({ organizationId: randomUUID(), version: 1, wrapped: wrapped(id), masterKeyId: id, commitment: randomBytes(32) });
    }
    const known = (await store.keyRegistry.list()).filter(({ id }) => id !== "main");
    expect(known).toMatchObject([{ id: "counted", checkValue: first, inUse: 2 }, { id: "unregistered", checkValue: Buffer.alloc(0), inUse: 1, firstSeen: null }]);
    await using superuser = await connect(database.superuserUrl);
    await superuser.query("update organization_key set wrapped = null, master_key_id = null, destroyed_at = now() where master_key_id = 'unregistered'");
    expect((await store.keyRegistry.list()).map(({ id }) => id)).not.toContain("unregistered");
  });
});
