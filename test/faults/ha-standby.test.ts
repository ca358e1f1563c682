import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { LATE, migrated, RECOVERY_MS, startReplicas, through } from "../support/ha.ts";
import { rest, token } from "../support/service.ts";
import { type Pair, startPair } from "../support/standby.ts";
import { allowed, create, LIMITS, newCredential, NEVER, openTestStore, reasonOf, resolve } from "../support/store.ts";
import { startProxy } from "../support/tcp-proxy.ts";

let pair: Pair;
beforeAll(async () => {
  pair = await startPair("synchronous", migrated);
});
afterAll(() => pair[Symbol.asyncDispose]());

/** Whether every commit is on the standby as soon as it is acknowledged. */
const synchronous = () => vi.waitFor(async () => expect(await pair.primary.run("select from pg_stat_replication where sync_state = 'sync' and state = 'streaming'")).toHaveLength(1), { timeout: RECOVERY_MS });
beforeEach(async () => {
  pair.link.heal();
  await synchronous();
});

test("a standby answers nobody, neither writes nor reads, and its connections are not kept", async () => {
  await using address = await startProxy(pair.primary.target);
  await using store = await openTestStore(through(address.target));
  const organizationId = randomUUID();
  const { id } = await create(store, organizationId);
  // Replicated, and still no answer: it might as well be old.
  await vi.waitFor(async () => expect(await pair.standby.run("select from credential where id = $1", [id])).toHaveLength(1), { timeout: 5_000 });

  address.cut();
  address.to(pair.standby.target);
  address.heal();
  await vi.waitFor(async () => expect(await reasonOf(store.credentials.get(organizationId, id, NEVER))).toBe("DATABASE_UNAVAILABLE"), { timeout: 5_000 });
  const calls = [
    () => store.credentials.get(organizationId, id, NEVER),
    () => store.credentials.list(organizationId, { userId: null, provider: null }, NEVER),
    () => create(store, organizationId),
    () => store.credentials.remove({ organizationId, id, expectedRevision: null, modifiedBy: "operator" }, allowed(organizationId, id, "delete_credential"), NEVER),
  ];
  for (let round = 0; round < 5; round++) expect(new Set(await Promise.all(calls.map((call) => reasonOf(call()))))).toEqual(new Set(["DATABASE_UNAVAILABLE"]));
  expect(await reasonOf(resolve(store, organizationId, id))).toBe("AUDIT_UNAVAILABLE");
  expect(await store.ping()).toBe(false);
  await expect(openTestStore(through(pair.standby.target))).rejects.toThrow("takes no writes");

  // Nobody cuts the connections that lead there: they are given up by themselves.
  address.to(pair.primary.target);
  await vi.waitFor(async () => {
    expect(await reasonOf(resolve(store, organizationId, id))).toMatchObject({ id });
    expect(await reasonOf(store.credentials.get(organizationId, id, NEVER))).toMatchObject({ id });
    expect(await store.ping()).toBe(true);
  }, { timeout: RECOVERY_MS, interval: 50 });
  await create(store, organizationId);
}, 60_000);

test("an idle connection is asked for a sign of life after seconds, so that a server that vanished is not found out by callers", async () => {
  await using store = await openTestStore(through(pair.primary.target));
  expect(await store.ping()).toBe(true);
  const port = Number(pair.primary.target.split(":")[1]).toString(16).toUpperCase().padStart(4, "0");
  // Columns of the kernel's list: the other end, the state (01 is established), and which timer runs (02 is keepalive) for how long, in hundredths of a second.
  const timers = () => readFileSync("/proc/net/tcp", "utf8").split("\n").map((line) => line.trim().split(/\s+/)).filter(([, , remote, state, , timer]) => remote === `0100007F:${port}` && state === "01" && timer?.startsWith("02:")).map((fields) => Number.parseInt(fields[5]?.slice(3) ?? "", 16));
  await vi.waitFor(() => expect(timers().length).toBeGreaterThanOrEqual(4), { timeout: 5_000 });
  expect(Math.max(...timers())).toBeLessThanOrEqual(500);
});

/** Sessions whose commit waits for the standby. */
const waiting = async (): Promise<number> => (await pair.primary.run("select from pg_stat_activity where wait_event = 'SyncRep'")).length;

test("a commit that no longer waits for the standby, because somebody else in its batch has gone, is acknowledged to nobody", async () => {
  await using store = await openTestStore(through(pair.primary.target));
  const organizationId = randomUUID();
  pair.link.freeze();
  const gone = new AbortController();
  // Both in one turn, so that they share a commit.
  const calls = [gone.signal, NEVER].map((signal) => {
    const row = newCredential(organizationId);
    return reasonOf(store.credentials.create(row, LIMITS, allowed(organizationId, row.id), signal));
  });
  await vi.waitFor(async () => expect(await waiting()).toBe(1), { timeout: 10_000, interval: 20 });
  gone.abort();
  expect((await Promise.all(calls)).at(-1)).toBe("DATABASE_UNAVAILABLE");
  pair.link.heal();
  await vi.waitFor(async () => expect(await reasonOf(create(store, organizationId))).toMatchObject({ organizationId }), { timeout: RECOVERY_MS });
}, 60_000);

test("while the only synchronous standby is away no write is acknowledged, and all goes on when it is back", async () => {
  await using replicas = await startReplicas(2, through(pair.primary.target), { CREDENTIALS_GRPC_DEADLINE_MS: "2000", CREDENTIALS_DATABASE_STATEMENT_TIMEOUT_MS: "1000" });
  const { load } = replicas;
  await load.until(200);
  pair.link.freeze();
  await vi.waitFor(async () => expect(await waiting()).toBeGreaterThan(0), { timeout: 10_000 });
  const organizationId = randomUUID();
  const user = await token("user", organizationId);
  const write = () => rest(replicas.running[0] as (typeof replicas.running)[number], "POST", "/integrations/credentials", { token: user, body: { provider: "sftp", credential_type: "user_password", credentials: { host: "h.example", username: "u", password: "p" } } });
  for (let n = 0; n < 3; n++) expect([503, 504]).toContain((await write()).status);
  pair.link.heal();
  await replicas.recovered();
  expect(await replicas.faults(pair.primary.run, LATE)).toEqual([]);
}, 90_000);
