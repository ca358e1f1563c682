import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { migrate } from "../../src/store/migrate.ts";
import { MIGRATIONS } from "../../src/store/migrations/index.ts";
import { SEALED_COLUMNS, SECRET_TABLES } from "../../src/store/sealed-columns.ts";
import { TABLES_WITHOUT_TENANT } from "../../src/store/tables.ts";
import { describeSchema, SCHEMA_FILE } from "../support/describe-schema.ts";
import { connect, freshDatabase, type FreshDatabase } from "../support/postgres.ts";
import { create, openTestStore, resolve } from "../support/store.ts";

let database: FreshDatabase;
beforeAll(async () => {
  database = await freshDatabase();
});
afterAll(() => database[Symbol.asyncDispose]());

const asApplication = (url: string) => migrate({ url, applicationRole: "credentials_app" });

describe("the schema", () => {
  test("is the one that is committed in test/schema.sql", async () => {
    await using client = await connect(database.superuserUrl);
    expect(await describeSchema(client)).toBe(readFileSync(SCHEMA_FILE, "utf8"));
  });

  test("forces row-level security, with a policy for reading and writing, on every table that is not listed", async () => {
    await using client = await connect(database.superuserUrl);
    const { rows } = await client.query<{ name: string; safe: boolean; organization: boolean }>(`
      select c.relname as name, c.relrowsecurity and c.relforcerowsecurity and exists (select from pg_policy p where p.polrelid = c.oid
        and p.polcmd = '*' and p.polqual is not null and p.polwithcheck is not null) as safe
      from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') order by c.relname`);
    expect(rows.filter(({ safe }) => !safe).map(({ name }) => name)).toEqual(Object.keys(TABLES_WITHOUT_TENANT).toSorted());
  });

  test("leads the key of every tenant table with the organization", async () => {
    await using client = await connect(database.superuserUrl);
    const { rows } = await client.query<{ name: string; first: string }>(`
      select c.relname as name, a.attname as first from pg_index i join pg_class c on c.oid = i.indrelid join pg_attribute a on a.attrelid = c.oid and a.attnum = i.indkey[0]
      where i.indisprimary and c.relforcerowsecurity`);
    expect(rows.length).toBeGreaterThan(5);
    expect(rows.filter(({ first }) => first !== "organization_id")).toEqual([]);
  });

  test("names every constraint after its rule and comments every table of ours", async () => {
    await using client = await connect(database.superuserUrl);
    const { rows } = await client.query<{ name: string }>(`
      select c.relname as name from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
        and c.relname not like 'schema_migration%' and obj_description(c.oid) is null
      union all select conname from pg_constraint where connamespace = 'public'::regnamespace and contype in ('c', 'u') and conname ~ '_(check|key)$'`);
    expect(rows).toEqual([]);
  });

  test("keeps sealed values only in columns of the type ciphertext, and each of them comes through a rotation", async () => {
    await using client = await connect(database.superuserUrl);
    expect(await unregistered(client)).toEqual([]);
    await client.query("create table forgotten (organization_id uuid, secret ciphertext)");
    expect(await unregistered(client)).toEqual(["forgotten.secret"]);
    await client.query("drop table forgotten");
    const { rows } = await client.query<{ name: string }>("select table_name || '.' || column_name as name from information_schema.columns where table_schema = 'public' and domain_name = 'ciphertext'");
    expect(Object.keys(SEALED_COLUMNS).toSorted()).toEqual(rows.map(({ name }) => name).toSorted());
    const moved = Object.entries(SEALED_COLUMNS).filter(([, column]) => column.under === "organization_key" && column.moved === "anew").map(([name]) => name);
    expect(moved).toEqual(SECRET_TABLES.map((table) => `${table}.sealed`));
  });

  test("reads the version of every value that is moved from its bytes, indexes it, and lets no value in under a closed key", async () => {
    await using client = await connect(database.superuserUrl);
    const { rows } = await client.query<{ name: string; generated: string; indexed: boolean }>(`
      select c.relname as name, pg_get_expr(d.adbin, d.adrelid) as generated, exists (select from pg_index i where i.indrelid = c.oid and i.indkey[1] = a.attnum
        and i.indkey[0] = (select attnum from pg_attribute where attrelid = c.oid and attname = 'organization_id')) as indexed
      from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'key_version' and a.attgenerated = 's'
        join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum where c.relnamespace = 'public'::regnamespace order by c.relname`);
    expect(rows).toEqual(SECRET_TABLES.toSorted().map((name) => ({ name, generated: "sealed_key_version((sealed)::bytea)", indexed: true })));
    const guarded = await client.query<{ name: string }>(`
      select c.relname as name from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_proc p on p.oid = t.tgfoid
      where p.proname = 'refuse_closed_key' and t.tgtype & 7 = 7 order by 1`);
    const sealedByOrganization = Object.entries(SEALED_COLUMNS).filter(([, { under }]) => under === "organization_key").map(([name]) => name.split(".")[0]);
    expect(guarded.rows.map(({ name }) => name)).toEqual(sealedByOrganization.toSorted());
  });
});

/** Columns with sealed bytes that no rotation knows of. */
async function unregistered(client: Awaited<ReturnType<typeof connect>>): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(`
    select table_name || '.' || column_name as name from information_schema.columns where table_schema = 'public' and domain_name = 'ciphertext' order by 1`);
  return rows.map(({ name }) => name).filter((name) => !(name in SEALED_COLUMNS));
}

describe("migrations", () => {
  test("raced by twenty processes all succeed, and each is applied once", async () => {
    await using empty = await freshDatabase("empty");
    const applied = await Promise.all(Array.from({ length: 20 }, () => asApplication(empty.ownerUrl)));
    expect(applied.flat()).toEqual(MIGRATIONS.map(({ name }) => name));
    await using store = await openTestStore(empty.applicationUrl);
    expect(await store.ping()).toBe(true);
  });

  test("go on where a migration was killed that held the runner's own lock", async () => {
    await using fresh = await freshDatabase();
    {
      await using owner = await connect(fresh.ownerUrl);
      await owner.query("update schema_migration_lock set is_locked = 1");
    }
    expect(await asApplication(fresh.ownerUrl)).toEqual([]);
  });

  test("leave a database as it is that is ahead of the code, and the store works with it, until it has taken away what the code needs", async () => {
    await using fresh = await freshDatabase();
    await using owner = await connect(fresh.ownerUrl);
    await owner.query("insert into schema_migration (name, batch, migration_time) values ('9999_from_the_future', 9, now())");
    await owner.query("create table of_the_future ()");
    await owner.query("grant select on of_the_future to credentials_app");
    expect(await asApplication(fresh.ownerUrl)).toEqual([]);
    {
      await using store = await openTestStore(fresh.applicationUrl);
      expect(await store.ping()).toBe(true);
      await using application = await connect(fresh.applicationUrl);
      expect((await application.query("select from of_the_future")).rows).toEqual([]);
    }
    await owner.query("update schema_compatibility set needs = '9999_from_the_future'");
    await expect(asApplication(fresh.ownerUrl)).rejects.toThrow(/ahead of this version.*9999_from_the_future/);
    await expect(openTestStore(fresh.applicationUrl)).rejects.toThrow(/ahead of this version/);
  });

  test("leave a database alone whose application role is missing", async () => {
    await using empty = await freshDatabase("empty");
    await expect(migrate({ url: empty.ownerUrl, applicationRole: 'no"body' })).rejects.toThrow(/application role does not exist/);
    await using owner = await connect(empty.ownerUrl);
    expect((await owner.query("select to_regclass('public.credential') as credential")).rows).toEqual([{ credential: null }]);
  });
});

describe("a migration that finds another one under way", () => {
  /** Holds the lock of the migrations, found by its key in the list of locks. */
  const migrating = async (url: string) => {
    const holder = await connect(url);
    await holder.query("select pg_advisory_lock(7310596872934125)");
    return holder;
  };

  test("waits for it", async () => {
    await using empty = await freshDatabase("empty");
    await using holder = await migrating(empty.ownerUrl);
    const waiting = asApplication(empty.ownerUrl);
    await holder.query("select pg_advisory_unlock(7310596872934125)");
    expect(await waiting).toEqual(MIGRATIONS.map(({ name }) => name));
  });

  test("says so when it has waited for too long, or is told to give up, and has changed nothing", async () => {
    await using empty = await freshDatabase("empty");
    await using holder = await migrating(empty.ownerUrl);
    const options = { url: empty.ownerUrl, applicationRole: "credentials_app" };
    await expect(migrate({ ...options, lockWaitMs: 1 })).rejects.toThrow(/another process has been migrating/);
    await expect(migrate({ ...options, signal: AbortSignal.abort() })).rejects.toThrow(/was given up/);
    const later = new AbortController();
    const waiting = migrate({ ...options, signal: later.signal });
    later.abort();
    await expect(waiting).rejects.toThrow(/was given up/);
    expect((await holder.query("select to_regclass('public.credential') as credential")).rows).toEqual([{ credential: null }]);
  });
});

test("the application role makes no tables, temporary ones neither, and names mean the tables of the schema", async () => {
  await using empty = await freshDatabase("empty");
  await asApplication(empty.ownerUrl);
  await using client = await connect(empty.applicationUrl);
  for (const statement of ["create table t (n integer)", "create temporary table credential (n integer)", "create schema s"]) {
    await expect(client.query(statement), statement).rejects.toMatchObject({ code: "42501" });
  }
  await using superuser = await connect(empty.superuserUrl);
  await superuser.query("create schema credentials_app authorization credentials_app create table audit_head (n integer)");
  await using store = await openTestStore(empty.applicationUrl);
  const organizationId = randomUUID();
  const { id } = await create(store, organizationId);
  expect(await resolve(store, organizationId, id)).toMatchObject({ id });
});

describe("the store refuses to open", () => {
  test("as a superuser", async () => {
    await expect(openTestStore(database.superuserUrl)).rejects.toThrow(/is a superuser/);
  });

  test("as the owner of the tables, or a role that may become it", async () => {
    await expect(openTestStore(database.ownerUrl)).rejects.toThrow(/owns tables/);
  });

  test("as a role that bypasses row-level security", async () => {
    await using superuser = await connect(database.superuserUrl);
    await superuser.query("create role test_bypass login bypassrls");
    try {
      await expect(openTestStore(database.superuserUrl.replace("postgres@", "test_bypass@"))).rejects.toThrow(/bypasses row-level security/);
    } finally {
      await superuser.query("drop role test_bypass");
    }
  });

  test("on a database without a schema, and with part of it", async () => {
    await using empty = await freshDatabase("empty");
    await expect(openTestStore(empty.applicationUrl)).rejects.toThrow(/no schema yet/);
    await using partial = await freshDatabase();
    {
      await using owner = await connect(partial.ownerUrl);
      await owner.query("delete from schema_migration where id = (select max(id) from schema_migration)");
    }
    await expect(openTestStore(partial.applicationUrl)).rejects.toThrow(`lacks the migration ${MIGRATIONS.at(-1)?.name ?? ""}`);
  });

  test("where there is no database, without repeating the URL", async () => {
    const opened = openTestStore("postgresql://app:p4ssw0rd-canary@127.0.0.1:1/db");
    await expect(opened).rejects.toThrow(/ECONNREFUSED/);
    await expect(opened).rejects.not.toThrow(/canary/);
  });
});
