import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { NewCredential, Store } from "../../src/store/store.ts";
import { connect, freshDatabase, type FreshDatabase } from "../support/postgres.ts";
import { allowed, create, LIMITS, NEVER, newCredential, openTestStore, reasonOf, resolve, sealedBytes } from "../support/store.ts";

const [A, B] = [randomUUID(), randomUUID()];
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

const TENANT_TABLES = ["credential", "credential_counter", "organization_key", "service_account", "audit_event", "audit_head", "credential_event"];

describe("row-level security, for raw SQL of the application role", () => {
  beforeAll(async () => {
    for (const organizationId of [A, B]) {
      await create(store, organizationId);
      await store.organizationKeys.insertFirst({ organizationId, version: 1, wrapped: wrappedUnder("k"), masterKeyId: "k", commitment: Buffer.alloc(32) });
      await store.serviceAccounts.create({ organizationId, id: randomUUID(), name: "executor" }, allowed(organizationId, null, "create_service_account"));
    }
  });

  test("shows no row of any tenant table without an organization, also after one was set and reset", async () => {
    await using client = await connect(database.applicationUrl);
    await client.query("begin");
    await client.query("select set_config('app.organizations', $1, true)", [`{${A}}`]);
    await client.query("commit");
    for (const table of TENANT_TABLES) expect((await client.query(`select * from ${table}`)).rows, table).toEqual([]);
  });

  test("shows one organization its own rows only", async () => {
    await using client = await connect(database.applicationUrl);
    await client.query("select set_config('app.organizations', $1, false)", [`{${A}}`]);
    for (const table of TENANT_TABLES) {
      const { rows } = await client.query<{ organization_id: string }>(`select organization_id from ${table}`);
      expect(new Set(rows.map((row) => row.organization_id)), table).toEqual(new Set([A]));
    }
  });

  test("lets nothing be written for another organization, nor moved to one", async () => {
    await using client = await connect(database.applicationUrl);
    await client.query("select set_config('app.organizations', $1, false)", [`{${A}}`]);
    const insert = client.query("insert into credential_counter (organization_id, counter, n) values ($1, 'provider:google', 1)", [B]);
    await expect(insert).rejects.toMatchObject({ code: "42501" });
    expect((await client.query("update credential set name = 'x' where organization_id = $1", [B])).rowCount).toBe(0);
    await expect(client.query("update credential set organization_id = $1", [B])).rejects.toMatchObject({ code: "42501" });
  });

  test("binds the owner of the tables too", async () => {
    await using owner = await connect(database.ownerUrl);
    for (const table of TENANT_TABLES) expect((await owner.query(`select * from ${table}`)).rows, table).toEqual([]);
  });

  test("cannot be left by the application role, which is nobody special and may not delete", async () => {
    await using client = await connect(database.applicationUrl);
    const { rows } = await client.query("select rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, pg_has_role('credentials_owner', 'member') as owner from pg_roles where rolname = current_user");
    expect(rows).toEqual([{ rolsuper: false, rolbypassrls: false, rolcreaterole: false, rolcreatedb: false, owner: false }]);
    // Events end, and are removed by the service; those of organizations that are not named are not touched.
    await expect(client.query("delete from credential_event")).resolves.toMatchObject({ rowCount: 0 });
    for (const table of TENANT_TABLES) {
      if (table !== "credential_event") await expect(client.query(`delete from ${table}`), table).rejects.toMatchObject({ code: "42501" });
      await expect(client.query(`truncate ${table}`), table).rejects.toMatchObject({ code: "42501" });
    }
    for (const statement of ["set role credentials_owner", "alter table credential disable row level security", "create table t (n integer)", "update organization_key_place set master_key_id = 'x'"]) {
      await expect(client.query(statement), statement).rejects.toMatchObject({ code: "42501" });
    }
  });
});

describe("a batch of resolve calls", () => {
  test("of many organizations gives each caller its own secret and nothing of another", async () => {
    const organizations = Array.from({ length: 40 }, () => randomUUID());
    const created: NewCredential[] = [];
    for (const organizationId of organizations) {
      created.push(...(await Promise.all(Array.from({ length: 5 }, () => create(store, organizationId, { sealed: sealedBytes(Buffer.from(organizationId)) })))));
    }
    const calls = Array.from({ length: 5_000 }, (_, index) => {
      const credential = created[(index * 7) % created.length] as NewCredential;
      const stranger = organizations[(index * 13) % organizations.length] as string;
      return { credential, asked: index % 3 === 0 ? stranger : credential.organizationId };
    });
    const answers = await Promise.all(calls.map(({ credential, asked }) => reasonOf(resolve(store, asked, credential.id))));
    const wrong = calls.filter(({ credential, asked }, index) => {
      const answer = answers[index] as { id?: string; organizationId?: string; sealed?: Buffer } | string | undefined;
      if (answer === "OVERLOADED") return false;
      if (asked !== credential.organizationId) return answer !== undefined;
      return typeof answer !== "object" || answer.id !== credential.id || !answer.sealed?.equals(credential.sealed) || answer.organizationId !== asked;
    });
    expect(wrong).toEqual([]);
    expect(answers.filter((answer) => typeof answer === "object").length).toBeGreaterThan(2_000);
  });

  test("records exactly the calls that found something", async () => {
    const organizationId = randomUUID();
    const { id } = await create(store, organizationId);
    await Promise.all([resolve(store, organizationId, id), resolve(store, organizationId, randomUUID()), resolve(store, randomUUID(), id), resolve(store, organizationId, id)]);
    await using superuser = await connect(database.superuserUrl);
    const { rows } = await superuser.query("select credential_id, action from audit_event where organization_id = $1 order by link, position", [organizationId]);
    expect(rows).toEqual(["create_credential", "resolve_credential", "resolve_credential"].map((action) => ({ credential_id: id, action })));
  });

  test("is not sunk by a call whose data PostgreSQL would refuse", async () => {
    const organizationId = randomUUID();
    const { id } = await create(store, organizationId);
    const odd = { ...allowed(organizationId, id, "resolve_credential"), actorId: "nul\0byte" };
    const [good, nul, long, notAnId, stillGood] = await Promise.all([
      reasonOf(resolve(store, organizationId, id)),
      reasonOf(store.credentials.resolve(organizationId, id, odd)),
      reasonOf(store.credentials.resolve(organizationId, id, { ...odd, actorId: "x".repeat(5_000) })),
      reasonOf(resolve(store, organizationId, "not an id")),
      reasonOf(resolve(store, organizationId, id)),
    ]);
    expect([nul, long, notAnId]).toEqual(["INTERNAL", "INTERNAL", "INTERNAL"]);
    expect([good, stillGood]).toMatchObject([{ id }, { id }]);
  });

  test("larger than the queue is refused beyond it, and the rest is served", async () => {
    await using small = await openTestStore(database.applicationUrl, { resolveQueue: 10, resolveBatch: 3 });
    const organizationId = randomUUID();
    const { id } = await create(small, organizationId);
    const answers = await Promise.all(Array.from({ length: 30 }, () => reasonOf(resolve(small, organizationId, id))));
    expect(answers.filter((answer) => answer === "OVERLOADED")).toHaveLength(20);
    expect(answers.filter((answer) => typeof answer === "object")).toHaveLength(10);
  });
});

test("without prepared statements, as behind a transaction pooler, everything works the same", async () => {
  await using plain = await openTestStore(database.applicationUrl, { prepared: false });
  const organizationId = randomUUID();
  const row = newCredential(organizationId);
  await plain.credentials.create(row, LIMITS, allowed(organizationId, row.id), NEVER);
  expect(await resolve(plain, organizationId, row.id)).toMatchObject({ organizationId, id: row.id, secretVersion: 1n, sealed: row.sealed });
});

function wrappedUnder(id: string): Buffer {
  return Buffer.concat([Buffer.from([0xc4, 1, 1, id.length]), Buffer.from(id), Buffer.alloc(60)]);
}
