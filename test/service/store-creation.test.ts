import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { Store } from "../../src/store/store.ts";
import { block } from "../support/blocker.ts";
import { connect, freshDatabase, type FreshDatabase } from "../support/postgres.ts";
import { allowed, create, LIMITS, NEVER, newCredential, openTestStore, reasonOf } from "../support/store.ts";

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

async function query<T extends object>(text: string, values: readonly unknown[]): Promise<T[]> {
  await using superuser = await connect(database.superuserUrl);
  return (await superuser.query<T>(text, [...values])).rows;
}

const one = (organizationId: string, overrides: Parameters<typeof newCredential>[1] = {}, signal: AbortSignal = NEVER) => {
  const row = newCredential(organizationId, overrides);
  return { row, outcome: reasonOf(store.credentials.create(row, LIMITS, allowed(organizationId, row.id), signal)) };
};

describe("creations at once", () => {
  test("share a commit, and each is stored, counted, announced and recorded as it was asked for", async () => {
    const organizations = Array.from({ length: 4 }, () => randomUUID());
    const due = new Date(Date.now() + 3_600_000);
    const asked = Array.from({ length: 60 }, (_, index) => one(organizations[index % 4] as string, index % 3 === 0 ? { provider: "google", credentialType: "google_oauth", tokenExpiresAt: due, renewal: "scheduled" } : { name: `number ${index}` }));
    const made = (await Promise.all(asked.map(({ outcome }) => outcome))) as { id: string; organizationId: string; name: string; tokenExpiresAt: Date | null }[];
    expect(made.map(({ id, organizationId, name, tokenExpiresAt }) => [id, organizationId, name, tokenExpiresAt])).toEqual(asked.map(({ row }) => [row.id, row.organizationId, row.name, row.tokenExpiresAt]));
    const stored = await query<{ id: string; sealed: Buffer }>("select id, sealed from credential where organization_id = any($1)", [organizations]);
    expect(new Map(stored.map(({ id, sealed }) => [id, sealed.toString("hex")]))).toEqual(new Map(asked.map(({ row }) => [row.id, row.sealed.toString("hex")])));
    const scheduled = await query<{ credential_id: string }>("select credential_id from credential_refresh where organization_id = any($1)", [organizations]);
    expect(new Set(scheduled.map((row) => row.credential_id))).toEqual(new Set(asked.flatMap(({ row }) => (row.tokenExpiresAt ? [row.id] : []))));
    for (const organization of organizations) {
      const events = await query<{ revision: string; credential_id: string }>("select revision, credential_id from credential_event where organization_id = $1 order by revision", [organization]);
      expect(events.map(({ revision }) => Number(revision))).toEqual(Array.from({ length: 15 }, (_, index) => index + 1));
      expect(new Set(events.map((event) => event.credential_id)).size).toBe(15);
      const records = await query<{ link: string; credential_id: string }>("select link, credential_id from audit_event where organization_id = $1", [organization]);
      expect(new Set(records.map((record) => record.credential_id)).size).toBe(15);
      // A link of the trail is one commit.
      expect(new Set(records.map(({ link }) => link)).size).toBeLessThan(15);
      expect(await query("select counter, n from credential_counter where organization_id = $1 and counter like 'provider:%' order by 1", [organization])).toEqual([{ counter: "provider:google", n: 5 }, { counter: "provider:sftp", n: 10 }]);
    }
  });

  test("of one organization wait for no commit but that ahead of theirs, however slow commits are", async () => {
    const organization = randomUUID();
    await one(organization).outcome;
    await query(`create function slow_commit() returns trigger language plpgsql as $$ begin perform pg_sleep(0.3); return null; end $$`, []);
    await query("create constraint trigger slow_commit after update on audit_head deferrable initially deferred for each row execute function slow_commit()", []);
    try {
      const limits = { perProvider: 1_000, perUser: 1_000 };
      const outcomes: Promise<unknown>[] = [];
      for (let count = 0; count < 150; count += 1) {
        const row = newCredential(organization);
        outcomes.push(reasonOf(store.credentials.create(row, limits, allowed(organization, row.id), NEVER)));
        await new Promise((resolve) => setTimeout(resolve, 4));
      }
      expect((await Promise.all(outcomes)).filter((outcome) => typeof outcome !== "object")).toEqual([]);
      // Together, and not each by itself.
      expect((await query("select distinct link from audit_event where organization_id = $1", [organization])).length).toBeLessThan(20);
    } finally {
      await query("drop function slow_commit cascade", []);
    }
  });

  test("do not fail because of one that is refused", async () => {
    const [full, free] = [randomUUID(), randomUUID()];
    await Promise.all(Array.from({ length: 49 }, () => create(store, full)));
    const outcomes = await Promise.all([one(free), one(full), one(free), one(full), one(free)].map(({ outcome }) => outcome));
    expect(outcomes.map((outcome) => (typeof outcome === "object" ? "created" : outcome)).toSorted()).toEqual(["LIMIT_PER_PROVIDER_REACHED", "created", "created", "created", "created"]);
    expect(await query("select organization_id, n from credential_counter where organization_id = any($1) and counter = 'provider:sftp' order by n", [[full, free]])).toEqual([{ organization_id: free, n: 3 }, { organization_id: full, n: 50 }]);
  });

  test("do not wait for one whose organization is locked", async () => {
    const [stuck, free] = [randomUUID(), randomUUID()];
    await create(store, stuck);
    await using blocker = await connect(database.superuserUrl);
    await blocker.query("begin");
    await blocker.query("select from audit_head where organization_id = $1 for update", [stuck]);
    const waits = one(stuck);
    expect(await one(free).outcome).toMatchObject({ organizationId: free });
    await blocker.query("rollback");
    expect(await waits.outcome).toMatchObject({ organizationId: stuck });
  });

  test("under one idempotency key take effect once", async () => {
    const organizationId = randomUUID();
    const idempotency = { keyHash: "ab".repeat(32), requestHash: "cd".repeat(32), keyVersion: 1 };
    const actorId = randomUUID();
    const outcomes = await Promise.all(Array.from({ length: 10 }, () => {
      const row = newCredential(organizationId);
      return reasonOf(store.credentials.create(row, LIMITS, { ...allowed(organizationId, row.id), actorId, idempotency }, NEVER));
    }));
    expect(outcomes.filter((outcome) => outcome !== "IDEMPOTENCY_IN_FLIGHT")).toMatchObject([{ organizationId }]);
    const [kept] = await query<{ answer: { id: string } }>("select answer from idempotency_record where organization_id = $1", [organizationId]);
    expect(await query("select id from credential where organization_id = $1", [organizationId])).toEqual([{ id: kept?.answer.id }]);
  });
});

test("a creation does not wait for the commit of another organization's", async () => {
  const slow = randomUUID();
  await create(store, slow);
  await query("create function slow_head() returns trigger language plpgsql as $$ begin perform pg_sleep(2); return null; end $$", []);
  await query(`create constraint trigger slow_head after update on audit_head deferrable initially deferred for each row when (new.organization_id = '${slow}') execute function slow_head()`, []);
  await using watcher = await block(database.superuserUrl, "select 1");
  const ended: string[] = [];
  const held = one(slow).outcome.then(() => ended.push("slow"));
  await watcher.holds(1);
  await one(randomUUID()).outcome.then(() => ended.push("quick"));
  await held;
  await query("drop function slow_head cascade", []);
  expect(ended).toEqual(["quick", "slow"]);
});

test("a creation that nobody waits for any more is not begun", async () => {
  const organizationId = randomUUID();
  const leaving = new AbortController();
  const { outcome } = one(organizationId, {}, leaving.signal);
  leaving.abort();
  expect([await outcome, await one(organizationId, {}, leaving.signal).outcome]).toEqual(["CANCELLED", "CANCELLED"]);
  expect(await query("select id from credential where organization_id = $1", [organizationId])).toEqual([]);
});

test("creations at once keep each to its own limits", async () => {
  const organizationId = randomUUID();
  await create(store, organizationId);
  const underLimit = (perProvider: number) => {
    const row = newCredential(organizationId);
    return reasonOf(store.credentials.create(row, { perProvider, perUser: 100 }, allowed(organizationId, row.id), NEVER));
  };
  const [wide, narrow] = await Promise.all([underLimit(50), underLimit(1)]);
  expect([typeof wide, narrow]).toEqual(["object", "LIMIT_PER_PROVIDER_REACHED"]);
});

test("creations beyond the queue are refused at once, and the others are made", async () => {
  await using narrow = await openTestStore(database.applicationUrl, { createQueue: 2 });
  const rows = Array.from({ length: 5 }, () => newCredential(randomUUID()));
  const outcomes = await Promise.all(rows.map((row) => reasonOf(narrow.credentials.create(row, LIMITS, allowed(row.organizationId, row.id), NEVER))));
  expect(outcomes.map((outcome) => (typeof outcome === "object" ? "created" : outcome))).toEqual(["created", "created", "OVERLOADED", "OVERLOADED", "OVERLOADED"]);
});

test("an organization may have all the room there is to wait", async () => {
  await using narrow = await openTestStore(database.applicationUrl, { createQueue: 4 });
  const organizationId = randomUUID();
  const rows = Array.from({ length: 6 }, () => newCredential(organizationId));
  const outcomes = await Promise.all(rows.map((row) => reasonOf(narrow.credentials.create(row, LIMITS, allowed(organizationId, row.id), NEVER))));
  expect(outcomes.map((outcome) => (typeof outcome === "object" ? "created" : outcome))).toEqual([...Array<string>(4).fill("created"), "OVERLOADED", "OVERLOADED"]);
});

test("creations go to the connection that is left while one cannot be made, and are made together", async () => {
  await using server = await freshDatabase();
  await using broken = await openTestStore(server.applicationUrl);
  await using superuser = await connect(server.superuserUrl);
  const fresh = () => {
    const row = newCredential(randomUUID());
    return reasonOf(broken.credentials.create(row, LIMITS, allowed(row.organizationId, row.id), NEVER));
  };
  // Each connection is known by its statement once it has made one.
  await Promise.all([fresh(), fresh()]);
  const lanes = (await superuser.query<{ pid: number }>("select pid from pg_stat_activity where datname = current_database() and query like '%per_provider%' and pid <> pg_backend_pid()")).rows;
  expect(lanes).toHaveLength(2);
  const { rows: [{ name } = { name: "" }] } = await superuser.query<{ name: string }>("select current_database() as name");
  await superuser.query(`alter database ${name} connection limit 0`);
  await superuser.query("select pg_terminate_backend($1)", [lanes[0]?.pid]);
  await vi.waitFor(() => expect(broken.load().lanes.find((lane) => lane.name === "create")?.up).toBe(false), { timeout: 5_000, interval: 5 });
  const outcomes = await Promise.all(Array.from({ length: 40 }, fresh));
  expect(outcomes.filter((outcome) => typeof outcome !== "object")).toEqual([]);
  const { rows: [made] } = await superuser.query<{ transactions: number }>("select count(distinct xmin::text)::integer as transactions from credential");
  // The first two in one each, and the forty in a few.
  expect(made?.transactions).toBeLessThan(10);
});

test("a limit of none admits none", async () => {
  const organizationId = randomUUID();
  const row = newCredential(organizationId);
  expect(await reasonOf(store.credentials.create(row, { perProvider: 0, perUser: 100 }, allowed(organizationId, row.id), NEVER))).toBe("LIMIT_PER_PROVIDER_REACHED");
});

test("creations go on while their own connection is gone, and share one again when it is back", async () => {
  const organizationId = randomUUID();
  for (let round = 0; round < 5; round++) {
    const calls = Array.from({ length: 20 }, () => one(randomUUID()));
    await query("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'credentials_app' and datname = current_database()", []);
    const outcomes = await Promise.all(calls.map(({ outcome }) => outcome));
    for (const [index, outcome] of outcomes.entries()) if (typeof outcome !== "object") expect([index, outcome]).toEqual([index, "DATABASE_UNAVAILABLE"]);
    // What was answered is there; of the rest nobody knows.
    const ids = calls.flatMap(({ row }, index) => (typeof outcomes[index] === "object" ? [row.id] : []));
    expect(await query("select id from credential where id = any($1)", [ids])).toHaveLength(ids.length);
    await vi.waitFor(() => create(store, organizationId), { timeout: 5_000, interval: 5 });
  }
  await vi.waitFor(async () => {
    const fresh = randomUUID();
    await Promise.all(Array.from({ length: 20 }, () => one(fresh).outcome));
    const [{ links } = { links: 20 }] = await query<{ links: number }>("select count(distinct link)::integer as links from audit_event where organization_id = $1", [fresh]);
    expect(links).toBeLessThan(20);
  }, { timeout: 10_000, interval: 100 });
});
