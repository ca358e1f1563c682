import { randomUUID } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { type EmbeddedPostgres, startEmbedded } from "../../src/store/embedded.ts";
import { migrate } from "../../src/store/migrate.ts";
import { connect, freshDatabase, type FreshDatabase } from "../support/postgres.ts";
import { allowed, create, NEVER, openTestStore, reasonOf, resolve } from "../support/store.ts";

let database: FreshDatabase;
beforeAll(async () => {
  database = await freshDatabase();
});
afterAll(() => database[Symbol.asyncDispose]());

const isAnswer = (id: string) => (outcome: unknown) => outcome === "AUDIT_UNAVAILABLE" || (typeof outcome === "object" && (outcome as { id?: string } | null)?.id === id);

/** Ends every connection of the application role. */
async function terminateAll(): Promise<void> {
  await using superuser = await connect(database.superuserUrl);
  await superuser.query("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'credentials_app' and datname = current_database()");
}

describe("when PostgreSQL ends the connections of the resolve path", () => {
  test("calls under way are answered or fail cleanly, and the next ones are answered", async () => {
    await using store = await openTestStore(database.applicationUrl);
    const organizationId = randomUUID();
    const { id } = await create(store, organizationId);
    for (let round = 0; round < 5; round++) {
      const calls = Array.from({ length: 200 }, () => reasonOf(resolve(store, organizationId, id)));
      await Promise.all([terminateAll(), ...calls]);
      const outcomes = await Promise.all(calls);
      expect(outcomes.filter((outcome) => !isAnswer(id)(outcome))).toEqual([]);
      await vi.waitFor(async () => expect(await resolve(store, organizationId, id)).toMatchObject({ id }), { timeout: 5_000, interval: 5 });
    }
  });

  test("every answer has its record, though some records may have no answer", async () => {
    await using store = await openTestStore(database.applicationUrl, { resolveBatch: 5 });
    const organizationId = randomUUID();
    const { id } = await create(store, organizationId);
    const calls = Array.from({ length: 2_000 }, () => reasonOf(resolve(store, organizationId, id)));
    await terminateAll();
    const answered = (await Promise.all(calls)).filter((outcome) => typeof outcome === "object").length;
    await using superuser = await connect(database.superuserUrl);
    const { rows } = await superuser.query<{ n: number }>("select count(*)::integer as n from audit_event where organization_id = $1 and action = 'resolve_credential'", [organizationId]);
    expect(rows[0]?.n).toBeGreaterThanOrEqual(answered);
  });
});

describe("when another session holds a lock that the resolve path needs", () => {
  test("from the first call of a connection on, that one alone fails: those behind it, which took its statement for prepared, run again", async () => {
    await using store = await openTestStore(database.applicationUrl, { resolveBatch: 1 });
    const organizationId = randomUUID();
    const { id } = await create(store, organizationId);
    await using blocker = await connect(database.superuserUrl);
    await blocker.query("begin; lock table credential in access exclusive mode");
    const outcome = () => reasonOf(resolve(store, organizationId, id));
    const chains = [1, 2].map(async (call) => {
      const first = await outcome();
      if (call === 1) await blocker.query("rollback");
      return [first, await outcome()];
    });
    const outcomes = (await Promise.all(chains)).flat();
    expect(outcomes.filter((it) => it === "AUDIT_UNAVAILABLE").length).toBeLessThanOrEqual(1);
    expect(outcomes.filter((it) => it !== "AUDIT_UNAVAILABLE")).toEqual(expect.arrayContaining([expect.objectContaining({ id })]));
    expect(outcomes.every(isAnswer(id))).toBe(true);
  });

  test("the calls that need it fail in time, and others are served then", async () => {
    await using store = await openTestStore(database.applicationUrl, { statementTimeoutMs: 400 });
    const [stuck, free] = [randomUUID(), randomUUID()];
    const [{ id: stuckId }, { id: freeId }] = [await create(store, stuck), await create(store, free)];
    await using blocker = await connect(database.superuserUrl);
    await blocker.query("begin");
    await blocker.query("select from audit_head where organization_id = $1 for update", [stuck]);
    expect(await reasonOf(resolve(store, stuck, stuckId))).toBe("AUDIT_UNAVAILABLE");
    expect(await resolve(store, free, freeId)).toMatchObject({ id: freeId });
    await blocker.query("rollback");
    expect(await resolve(store, stuck, stuckId)).toMatchObject({ id: stuckId });
  });

  test("a batch goes on without the organization whose trail is locked", async () => {
    await using store = await openTestStore(database.applicationUrl);
    const [stuck, free, other] = [randomUUID(), randomUUID(), randomUUID()];
    const rows = [await create(store, stuck), await create(store, free), await create(store, other)];
    await using blocker = await connect(database.superuserUrl);
    await blocker.query("begin");
    await blocker.query("select from audit_head where organization_id = $1 for update", [stuck]);
    const outcomes = await Promise.all(rows.flatMap(({ organizationId, id }) => [reasonOf(resolve(store, organizationId, id)), reasonOf(resolve(store, organizationId, randomUUID()))]));
    expect(outcomes.map((outcome) => (typeof outcome === "object" ? (outcome as { id: string }).id : outcome))).toEqual([
      "AUDIT_UNAVAILABLE", "AUDIT_UNAVAILABLE", rows[1]?.id, undefined, rows[2]?.id, undefined,
    ]);
    const appended = rows.map(({ organizationId, id }) => reasonOf(store.audit.append([allowed(organizationId, id, "get_credential")])));
    expect(await Promise.all(appended)).toEqual(["AUDIT_UNAVAILABLE", undefined, undefined]);
    await blocker.query("rollback");
    const { rows: trail } = await blocker.query("select organization_id, count(*)::integer as n from audit_event where organization_id = any($1) group by 1", [rows.map((row) => row.organizationId)]);
    expect(new Map(trail.map((row) => [row.organization_id, row.n]))).toEqual(new Map([[stuck, 1], [free, 3], [other, 3]]));
  });

  test("a server that no longer answers at all is given up, and the reserve connection takes over", async () => {
    await using store = await openTestStore(database.applicationUrl, { statementTimeoutMs: 300 });
    const organizationId = randomUUID();
    const { id } = await create(store, organizationId);
    await resolve(store, organizationId, id);
    await using superuser = await connect(database.superuserUrl);
    const { rows } = await superuser.query<{ pid: number }>(
      "select pid from pg_stat_activity where usename = 'credentials_app' and datname = current_database() and query like '%as refusal%' order by state_change desc limit 1",
    );
    const pid = rows[0]?.pid as number;
    process.kill(pid, "SIGSTOP");
    try {
      expect(await reasonOf(resolve(store, organizationId, id))).toBe("AUDIT_UNAVAILABLE");
      expect(await resolve(store, organizationId, id)).toMatchObject({ id });
    } finally {
      process.kill(pid, "SIGCONT");
    }
  });
});

test("a store survives that its server is killed and started again", async () => {
  const folder = mkdtempSync("/tmp/flow-restart-");
  const socketFolder = ({ applicationUrl }: EmbeddedPostgres) => decodeURIComponent(/host=([^&]+)/.exec(applicationUrl)?.[1] ?? "");
  const settings = { fsync: "off" };
  const killed = await startEmbedded(folder, { settings });
  await migrate({ url: killed.ownerUrl, applicationRole: "credentials_app" });
  const store = await openTestStore(killed.applicationUrl);
  const organizationId = randomUUID();
  const { id } = await create(store, organizationId);

  process.kill(Number(readFileSync(path.join(killed.dataDir, "postmaster.pid"), "utf8").split("\n")[0]), "SIGKILL");
  await vi.waitFor(async () => expect(await store.ping()).toBe(false));
  await vi.waitFor(async () => expect(await reasonOf(resolve(store, organizationId, id))).toBe("AUDIT_UNAVAILABLE"));
  expect(await reasonOf(store.credentials.get(organizationId, id, NEVER))).toBe("DATABASE_UNAVAILABLE");
  expect(await reasonOf(create(store, organizationId))).toBe("DATABASE_UNAVAILABLE");

  const server = await startEmbedded(folder, { settings });
  // The store keeps the address it was given; the server has a new one.
  symlinkSync(socketFolder(server), socketFolder(killed));
  await vi.waitFor(async () => expect(await resolve(store, organizationId, id)).toMatchObject({ id }), { timeout: 15_000, interval: 20 });
  expect(await store.credentials.get(organizationId, id, NEVER)).toMatchObject({ id });
  await store.close();
  await server.stop();
  for (const at of [folder, socketFolder(killed)]) rmSync(at, { recursive: true, force: true });
});
