import { randomUUID } from "node:crypto";
import pg from "pg";
import { describe, expect, test } from "vitest";
import { runTransaction, type Session, type Statement } from "../../src/store/transaction.ts";
import { connect, connectionOf, freshDatabase } from "../support/postgres.ts";

const timeouts = { statementMs: 10_000, lockMs: 1_000 };
const ORGANIZATION = randomUUID();
const INSERT: Statement = { name: "item_insert", text: "insert into item (id, after) values ($1, $2) returning id" };
const SEEN: Statement = { name: "seen", text: "select current_setting('app.organizations') as organizations, txid_current()::text as id" };

/** A database with a table of the application's own, and a connection in pipeline mode. */
async function setUp() {
  const database = await freshDatabase("empty");
  await using owner = await connect(database.ownerUrl);
  await owner.query("create table item (id integer primary key, after integer, foreign key (after) references item deferrable initially deferred)");
  await owner.query("grant select, insert on item to public");
  const client = new pg.Client({ ...connectionOf(database.applicationUrl), pipeline: true });
  await client.connect();
  const ids = async () => (await client.query("select id from item order by id")).rows.map(({ id }) => id as number);

  return {
    client, ids,
    async [Symbol.asyncDispose]() {
      await client.end();
      await database[Symbol.asyncDispose]();
    },
  };
}

describe.each([["prepared", true], ["not prepared", false]])("a statement that is %s", (_how, prepared) => {
  const session: Session = { prepared, timeouts };

  test("runs with its context in one transaction, which leaves nothing of it behind", async () => {
    await using db = await setUp();
    const runs = await Promise.all(Array.from({ length: 3 }, () => runTransaction(db.client, session, [ORGANIZATION], SEEN, [])));
    expect(runs.map(([row]) => row?.["organizations"])).toEqual(Array.from({ length: 3 }, () => `{${ORGANIZATION}}`));
    expect(new Set(runs.map(([row]) => row?.["id"])).size).toBe(3);
    const { rows } = await db.client.query("select current_setting('app.organizations', true) as organizations, current_setting('enable_seqscan') as scans");
    expect(rows).toEqual([{ organizations: "", scans: "on" }]);
  });

  test("gives every transaction its own answer where several are under way, and one that fails undoes itself alone", async () => {
    await using db = await setUp();
    const insert = (id: number, after: number | null) => runTransaction(db.client, session, [ORGANIZATION], INSERT, [id, after]);
    const outcomes = await Promise.allSettled([insert(1, null), insert(1, null), insert(2, 1), insert(3, 99), insert(4, null)]);
    expect(outcomes.map((it) => (it.status === "fulfilled" ? it.value : (it.reason as { code?: string }).code))).toEqual([
      [{ id: 1 }], "23505", [{ id: 2 }],
      // The statement succeeds, and its commit does not.
      "23503",
      [{ id: 4 }],
    ]);
    expect(await db.ids()).toEqual([1, 2, 4]);
  });

  test("runs again after its first run on a connection failed before it, and none that came behind took effect half", async () => {
    await using db = await setUp();
    const broken: Session = { prepared, timeouts: { statementMs: -1, lockMs: 1 } };
    const outcomes = await Promise.allSettled([runTransaction(db.client, broken, [], INSERT, [1, null]), runTransaction(db.client, session, [], INSERT, [2, null])]);
    expect(outcomes[0]).toMatchObject({ status: "rejected", reason: { code: "22023" } });
    // It relied on the statement that the one before was to prepare, which the store takes for a conflict and tries again.
    if (prepared) expect(outcomes[1]).toMatchObject({ status: "rejected", reason: { code: "26000" } });
    expect(await runTransaction(db.client, session, [], INSERT, [3, null])).toEqual([{ id: 3 }]);
    expect(await db.ids()).toEqual(prepared ? [3] : [2, 3]);
  });
});
