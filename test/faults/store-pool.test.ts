import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { isConnectionLoss } from "../../src/store/errors.ts";
import { type Blocker, block } from "../support/blocker.ts";
import { connect, freshDatabase, type FreshDatabase } from "../support/postgres.ts";
import { create, NEVER, openTestStore, reasonOf } from "../support/store.ts";

let database: FreshDatabase;
beforeAll(async () => {
  database = await freshDatabase();
});
afterAll(() => database[Symbol.asyncDispose]());

/** Ends the sessions that wait. */
async function terminate(blocker: Blocker): Promise<void> {
  await using superuser = await connect(database.superuserUrl);
  await superuser.query("select pg_terminate_backend(pid) from unnest($1::integer[]) pid", [await blocker.waiting()]);
}

describe("when PostgreSQL ends a connection of the pool in the middle of a call", () => {
  test("a read is tried again and answered", async () => {
    await using store = await openTestStore(database.applicationUrl);
    const organizationId = randomUUID();
    const { id } = await create(store, organizationId);
    await using blocker = await block(database.superuserUrl, "lock table credential in access exclusive mode");
    const reads = [
      reasonOf(store.credentials.get(organizationId, id, NEVER)),
      reasonOf(store.credentials.list(organizationId, { userId: null, provider: null }, NEVER)),
    ];
    await blocker.holds(2);
    await terminate(blocker);
    await blocker.holds(2);
    await blocker.release();
    expect(await Promise.all(reads)).toMatchObject([{ id }, [{ id }]]);
  });

  test("a write is not, because nobody knows whether it took effect", async () => {
    await using store = await openTestStore(database.applicationUrl);
    const organizationId = randomUUID();
    await using blocker = await block(database.superuserUrl, "lock table credential in access exclusive mode");
    const write = reasonOf(create(store, organizationId));
    await blocker.holds(1);
    await terminate(blocker);
    expect(await write).toBe("DATABASE_UNAVAILABLE");
    await blocker.release();
    expect(await store.credentials.list(organizationId, { userId: null, provider: null }, NEVER)).toEqual([]);
  });

  test("a lost connection is known by the driver's sentence, also where Knex puts the statement before it", () => {
    const sentences = ["Connection terminated unexpectedly", "Client has encountered a connection error and is not queryable", "Client was closed and is not queryable", "Query read timeout"];
    for (const sentence of sentences) {
      expect([sentence, `ROLLBACK - ${sentence}`, `select * from "credential" where "id" = ? - ${sentence}`].map((text) => isConnectionLoss(new Error(text))), sentence).toEqual([true, true, true]);
    }
    expect(isConnectionLoss(new Error("relation Connection terminated"))).toBe(false);
    expect(isConnectionLoss(Object.assign(new Error("x - Connection terminated"), { code: "23505" }))).toBe(false);
  });
});
