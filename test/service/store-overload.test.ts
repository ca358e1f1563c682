import { randomBytes, randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Store } from "../../src/store/store.ts";
import { block } from "../support/blocker.ts";
import { connect, freshDatabase, type FreshDatabase } from "../support/postgres.ts";
import { allowed, create, NEVER, openTestStore, reasonOf } from "../support/store.ts";

let database: FreshDatabase;
beforeAll(async () => {
  database = await freshDatabase();
});
afterAll(() => database[Symbol.asyncDispose]());

const refused = (organizationId: string) => ({ ...allowed(organizationId, null, "get_credential"), outcome: "refused" as const, reason: "CREDENTIAL_NOT_FOUND" });
/** What two batches hold that are sent as soon as enough wait. */
const UNDER_WAY = 64;
const count = (outcomes: readonly unknown[], reason: unknown): number => outcomes.filter((outcome) => outcome === reason).length;

async function key(store: Store): Promise<string> {
  const [organizationId, id, tokenPrefix] = [randomUUID(), randomUUID(), randomUUID()];
  const event = allowed(organizationId, null, "create_service_account_key");
  await store.serviceAccounts.create({ organizationId, id, name: "executor" }, event);
  await store.serviceAccounts.createKey({ id: randomUUID(), organizationId, serviceAccountId: id, tokenPrefix, tokenHash: randomBytes(32), expiresAt: null }, event);
  return tokenPrefix;
}

describe("the pool", () => {
  test("lets sixteen calls wait for each connection, and refuses more at once", async () => {
    await using store = await openTestStore(database.applicationUrl, { poolSize: 2 });
    const organizationId = randomUUID();
    const { id } = await create(store, organizationId);
    await using blocker = await block(database.superuserUrl, "lock table credential in access exclusive mode");
    const running = Array.from({ length: 2 }, () => reasonOf(store.credentials.get(organizationId, id, NEVER)));
    await blocker.holds(2);
    const waiting = Array.from({ length: 32 }, () => reasonOf(store.credentials.get(organizationId, id, NEVER)));
    const beyond = await Promise.all(Array.from({ length: 100 }, () => reasonOf(store.credentials.get(organizationId, id, NEVER))));
    expect(count(beyond, "OVERLOADED")).toBe(100);
    await blocker.release();
    expect(await Promise.all([...running, ...waiting])).toMatchObject(Array.from({ length: 34 }, () => ({ id })));
  });
});

describe("looking up API keys", () => {
  test("takes no connection from tenants, however many made-up keys are presented, and is refused beyond its queue", async () => {
    await using store = await openTestStore(database.applicationUrl, { poolSize: 2 });
    const organizationId = randomUUID();
    const { id } = await create(store, organizationId);
    const flood = Array.from({ length: 3_000 }, () => reasonOf(store.serviceAccounts.keyByPrefix(randomUUID())));
    expect(await store.credentials.get(organizationId, id, NEVER)).toMatchObject({ id });
    const outcomes = await Promise.all(flood);
    expect([count(outcomes, "OVERLOADED"), count(outcomes, undefined)]).toEqual([3_000 - 1_024 - UNDER_WAY, 1_024 + UNDER_WAY]);
  });

  test("gives each caller its own key where many wait, over two connections at most", async () => {
    await using store = await openTestStore(database.applicationUrl);
    const prefixes = [await key(store), await key(store)];
    await using blocker = await block(database.superuserUrl, "lock table service_account_key in access exclusive mode");
    const found = Array.from({ length: 1_000 }, (_, index) => store.serviceAccounts.keyByPrefix(prefixes[index] ?? randomUUID()));
    await blocker.holds(2);
    await blocker.release();
    expect((await Promise.all(found)).map((row) => row?.tokenPrefix)).toEqual(Array.from({ length: 1_000 }, (_, index) => prefixes[index]));
  });

  test("asks once for the same prefix, however many present it at the same time", async () => {
    await using store = await openTestStore(database.applicationUrl);
    const known = await key(store);
    const same = Array.from({ length: 1_000 }, () => reasonOf(store.serviceAccounts.keyByPrefix(known)));
    const others = Array.from({ length: 1_023 }, () => reasonOf(store.serviceAccounts.keyByPrefix(randomUUID())));
    const answers = await Promise.all(same);
    expect(new Set(answers).size).toBe(1);
    expect(answers[0]).toMatchObject({ tokenPrefix: known });
    expect(count(await Promise.all(others), undefined)).toBe(1_023);
    expect(await store.serviceAccounts.keyByPrefix(known)).toEqual(answers[0]);
  });
});

describe("recording refusals", () => {
  test("takes no connection from tenants, commits all that wait together, and is refused beyond its queue", async () => {
    await using store = await openTestStore(database.applicationUrl, { poolSize: 2 });
    const [organizationId, refusing] = [randomUUID(), randomUUID()];
    const { id } = await create(store, organizationId);
    const flood = Array.from({ length: 6_000 }, () => reasonOf(store.audit.append([refused(refusing)])));
    expect(await store.credentials.get(organizationId, id, NEVER)).toMatchObject({ id });
    const outcomes = await Promise.all(flood);
    expect([count(outcomes, "AUDIT_UNAVAILABLE"), count(outcomes, undefined)]).toEqual([6_000 - 4_096 - UNDER_WAY, 4_096 + UNDER_WAY]);
    await using superuser = await connect(database.superuserUrl);
    const { rows } = await superuser.query("select count(*)::integer as records, count(distinct link)::integer as links from audit_event where organization_id = $1", [refusing]);
    expect(rows).toEqual([{ records: 4_096 + UNDER_WAY, links: 4_096 / 256 + 2 }]);
  });
});
