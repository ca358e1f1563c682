import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { fail } from "../../src/domain/errors.ts";
import type { CredentialStore, Store } from "../../src/store/store.ts";
import { block } from "../support/blocker.ts";
import { connect, freshDatabase, type FreshDatabase } from "../support/postgres.ts";
import { allowed, create, LIMITS, NEVER, newCredential, openTestStore, reasonOf, sealedBytes } from "../support/store.ts";

let database: FreshDatabase;
let store: Store & AsyncDisposable;
beforeAll(async () => {
  database = await freshDatabase();
  store = await openTestStore(database.applicationUrl, { poolSize: 2, statementTimeoutMs: 20_000 });
});
afterAll(async () => {
  await store.close();
  await database[Symbol.asyncDispose]();
});

/** Every function that takes a signal, on one credential. */
function calls({ credentials }: { credentials: CredentialStore }, organizationId: string, id: string, signal: AbortSignal): Record<string, () => Promise<unknown>> {
  const [row, modifiedBy] = [newCredential(organizationId), randomUUID()];
  const change = { organizationId, id, expectedRevision: 1, credentialType: "user_password", name: "changed", accountEmail: null, tokenExpiresAt: null, status: "active", modifiedBy, secretVersion: 2n, sealed: sealedBytes() } as const;
  return {
    create: () => credentials.create(row, LIMITS, allowed(organizationId, row.id), signal),
    list: () => credentials.list(organizationId, { userId: null, provider: null }, signal),
    get: () => credentials.get(organizationId, id, signal),
    replace: () => credentials.replace(change, allowed(organizationId, id, "update_credential"), signal),
    remove: () => credentials.remove({ organizationId, id, expectedRevision: null, modifiedBy }, allowed(organizationId, id, "delete_credential"), signal),
  };
}

const NAMES = ["create", "list", "get", "replace", "remove"];

describe("a call that is cancelled", () => {
  test.each(NAMES)("while its statement runs ends it in PostgreSQL, and nothing is written: %s", async (name) => {
    const organizationId = randomUUID();
    const { id } = await create(store, organizationId);
    const before = await store.credentials.list(organizationId, { userId: null, provider: null }, NEVER);
    await using superuser = await connect(database.superuserUrl);
    await using watcher = await block(database.superuserUrl, "select");
    // Longer than any limit of the store's own.
    await superuser.query("create policy slow on credential as restrictive using (pg_sleep(60) is not null) with check (pg_sleep(60) is not null)");
    const aborter = new AbortController();
    const outcome = reasonOf(calls(store, organizationId, id, aborter.signal)[name]?.() ?? Promise.resolve());
    await watcher.holds(1);
    aborter.abort(fail("DEADLINE_EXCEEDED"));
    await watcher.holds(0);
    expect(await outcome).toBe("DEADLINE_EXCEEDED");
    await superuser.query("drop policy slow on credential");
    expect(await store.credentials.list(organizationId, { userId: null, provider: null }, NEVER)).toEqual(before);
    const { rows } = await superuser.query("select count(*)::integer as n from audit_event where organization_id = $1", [organizationId]);
    expect(rows).toEqual([{ n: 1 }]);
  });

  test.each(NAMES)("while it waits for a connection is rejected at once: %s", async (name) => {
    const organizationId = randomUUID();
    const { id } = await create(store, organizationId);
    await using blocker = await block(database.superuserUrl, "lock table credential in access exclusive mode");
    const running = [1, 2].map(() => reasonOf(store.credentials.get(organizationId, id, NEVER)));
    await blocker.holds(2);
    const aborter = new AbortController();
    const outcome = reasonOf(calls(store, organizationId, id, aborter.signal)[name]?.() ?? Promise.resolve());
    aborter.abort(fail("CANCELLED"));
    expect(await outcome).toBe("CANCELLED");
    expect(await blocker.waiting()).toHaveLength(2);
    await blocker.release();
    expect(await Promise.all(running)).toMatchObject([{ id, revision: 1 }, { id, revision: 1 }]);
  });

  test.each(NAMES)("before it begins does nothing: %s", async (name) => {
    const organizationId = randomUUID();
    const { id } = await create(store, organizationId);
    expect(await reasonOf(calls(store, organizationId, id, AbortSignal.abort("some other reason"))[name]?.() ?? Promise.resolve())).toBe("CANCELLED");
    expect(await store.credentials.list(organizationId, { userId: null, provider: null }, NEVER)).toMatchObject([{ id, revision: 1 }]);
  });

  test("leaves the pool whole, however many are cancelled", async () => {
    const organizationId = randomUUID();
    const { id } = await create(store, organizationId);
    for (let round = 0; round < 10; round++) {
      const aborter = new AbortController();
      const cancelled = Array.from({ length: 8 }, () => reasonOf(store.credentials.get(organizationId, id, aborter.signal)));
      setTimeout(() => aborter.abort(fail("CANCELLED")), round);
      const outcomes = await Promise.all(cancelled);
      expect(outcomes.filter((outcome) => outcome !== "CANCELLED" && (outcome as { id?: string }).id !== id)).toEqual([]);
      expect(await Promise.all([1, 2, 3, 4].map(() => store.credentials.get(organizationId, id, NEVER)))).toMatchObject([{ id }, { id }, { id }, { id }]);
    }
    await using superuser = await connect(database.superuserUrl);
    const open = "select count(*)::integer as n from pg_stat_activity where usename = 'credentials_app' and datname = current_database()";
    // Two of the pool, two of the resolve path, two of creations and one of the audit; what was dropped is gone.
    await vi.waitFor(async () => expect((await superuser.query<{ n: number }>(open)).rows[0]?.n).toBeLessThanOrEqual(7));
  });
});
