import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { PROVIDERS } from "../../src/domain/credential.ts";
import type { Store } from "../../src/store/store.ts";
import { connect, freshDatabase, type FreshDatabase } from "../support/postgres.ts";
import { allowed, create, LIMITS, NEVER, newCredential, openTestStore, reasonOf } from "../support/store.ts";

let database: FreshDatabase;
let stores: (Store & AsyncDisposable)[];
beforeAll(async () => {
  database = await freshDatabase();
  stores = [await openTestStore(database.applicationUrl), await openTestStore(database.applicationUrl)];
});
afterAll(async () => {
  await Promise.all(stores.map((store) => store.close()));
  await database[Symbol.asyncDispose]();
});

const storeOf = (index: number): Store => stores[index % stores.length] as Store;

/** How many of each outcome there were. */
function tally(outcomes: readonly unknown[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const outcome of outcomes) {
    const name = typeof outcome === "string" ? outcome : typeof outcome === "object" ? "created" : String(outcome);
    counts[name] = (counts[name] ?? 0) + 1;
  }
  return counts;
}

/** Counters beside the counts they stand for. */
async function drift(organizationId: string): Promise<unknown[]> {
  await using superuser = await connect(database.superuserUrl);
  const { rows } = await superuser.query(
    `with counted as (
      select 'provider:' || provider as counter, count(*) as n from credential where organization_id = $1 and deleted_at is null group by 1
      union all select 'user:' || user_id, count(*) from credential where organization_id = $1 and deleted_at is null group by 1)
    select counter, k.n as counter_says, c.n as there_are from (select * from credential_counter where organization_id = $1) k
      full outer join counted c using (counter) where coalesce(k.n, 0) <> coalesce(c.n, 0)`,
    [organizationId],
  );
  return rows;
}

describe("limits on active credentials", () => {
  test("hold exactly when two hundred creations race over two stores", async () => {
    const organizationId = randomUUID();
    const outcomes = await Promise.all(Array.from({ length: 200 }, (_, index) => reasonOf(create(storeOf(index), organizationId))));
    expect(tally(outcomes)).toEqual({ created: 50, LIMIT_PER_PROVIDER_REACHED: 150 });
    expect(await storeOf(0).credentials.list(organizationId, { userId: null, provider: "sftp" }, NEVER)).toHaveLength(50);
    expect(await drift(organizationId)).toEqual([]);
  });

  test("hold for one user over all providers", async () => {
    const [organizationId, userId] = [randomUUID(), randomUUID()];
    const outcomes = await Promise.all(
      Array.from({ length: 140 }, (_, index) => reasonOf(create(storeOf(index), organizationId, { userId, provider: PROVIDERS[index % PROVIDERS.length] ?? "sftp" }))),
    );
    expect(tally(outcomes)).toEqual({ created: 100, LIMIT_PER_USER_REACHED: 40 });
    expect(await drift(organizationId)).toEqual([]);
  });

  test("are of one organization and do not touch another", async () => {
    const [full, userId] = [randomUUID(), randomUUID()];
    await Promise.all(Array.from({ length: 50 }, () => create(storeOf(0), full, { userId })));
    expect(await reasonOf(create(storeOf(0), full, { userId }))).toBe("LIMIT_PER_PROVIDER_REACHED");
    expect(await reasonOf(create(storeOf(1), randomUUID(), { userId }))).toMatchObject({ userId });
  });

  test("refused, leave nothing behind: no row, no count, no record", async () => {
    const [organizationId, userId] = [randomUUID(), randomUUID()];
    const limits = { perProvider: 1, perUser: 1 };
    const [first, second] = [newCredential(organizationId, { userId }), newCredential(organizationId, { userId, provider: "google" })];
    await storeOf(0).credentials.create(first, limits, allowed(organizationId, first.id), NEVER);
    expect(await reasonOf(storeOf(1).credentials.create(second, limits, allowed(organizationId, second.id), NEVER))).toBe("LIMIT_PER_USER_REACHED");
    expect(await drift(organizationId)).toEqual([]);
    await using superuser = await connect(database.superuserUrl);
    expect((await superuser.query("select credential_id from audit_event where organization_id = $1", [organizationId])).rows).toEqual([{ credential_id: first.id }]);
  });

  test("give room again when a credential is deleted, once however often it is deleted at the same time", async () => {
    const [organizationId, userId] = [randomUUID(), randomUUID()];
    const rows = await Promise.all(Array.from({ length: 50 }, () => create(storeOf(0), organizationId, { userId })));
    const id = rows[0]?.id as string;
    const removals = await Promise.all(
      Array.from({ length: 10 }, (_, index) =>
        storeOf(index).credentials.remove({ organizationId, id, expectedRevision: null, modifiedBy: userId }, allowed(organizationId, id, "delete_credential"), NEVER),
      ),
    );
    expect(removals.filter((outcome) => outcome === "removed")).toHaveLength(1);
    expect(await drift(organizationId)).toEqual([]);
    const again = await Promise.all(Array.from({ length: 3 }, (_, index) => reasonOf(create(storeOf(index), organizationId, { userId }))));
    expect(tally(again)).toEqual({ created: 1, LIMIT_PER_PROVIDER_REACHED: 2 });
  });

  test("keep counters and counts equal while creations and deletions of the same user race", async () => {
    const [organizationId, userId] = [randomUUID(), randomUUID()];
    const outcomes = await Promise.all(
      Array.from({ length: 60 }, async (_, index) => {
        const { id } = await create(storeOf(index), organizationId, { userId, provider: PROVIDERS[index % 3] ?? "sftp" });
        return storeOf(index + 1).credentials.remove({ organizationId, id, expectedRevision: 1, modifiedBy: userId }, allowed(organizationId, id, "delete_credential"), NEVER);
      }),
    );
    expect(tally(outcomes)).toEqual({ removed: 60 });
    expect(await drift(organizationId)).toEqual([]);
  });

  test("apply a limit of one", async () => {
    const organizationId = randomUUID();
    const rows = Array.from({ length: 5 }, () => newCredential(organizationId));
    const outcomes = await Promise.all(rows.map((row) => reasonOf(storeOf(0).credentials.create(row, { ...LIMITS, perProvider: 1 }, allowed(organizationId, row.id), NEVER))));
    expect(tally(outcomes)).toEqual({ created: 1, LIMIT_PER_PROVIDER_REACHED: 4 });
  });
});
