import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import type { Action, Call } from "../../src/domain/access.ts";
import { CHAIN_BEGINNING, ChainReader } from "../../src/domain/audit-chain.ts";
import type { Store } from "../../src/store/store.ts";
import { LimitedCalls } from "../../src/vault/limited-calls.ts";
import { connect, freshDatabase, type FreshDatabase } from "../support/postgres.ts";
import { NEVER, openTestStore } from "../support/store.ts";

let database: FreshDatabase;
let store: Store & AsyncDisposable;
let limited: LimitedCalls;
let organizationId: string;
beforeAll(async () => {
  database = await freshDatabase();
  store = await openTestStore(database.applicationUrl);
});
afterAll(async () => {
  await store.close();
  await database[Symbol.asyncDispose]();
});
beforeEach(() => {
  limited = new LimitedCalls(store.audit);
  organizationId = randomUUID();
});

const REQUESTS = ["01JD8Z3NDEKTSV4RRFFQ69G5FA", "01JD8Z3NDEKTSV4RRFFQ69G5FB", "01JD8Z3NDEKTSV4RRFFQ69G5FC"] as const;
const callOf = (id: string, requestId: string = REQUESTS[0], organization = organizationId): Call => ({
  caller: { kind: "service_account", id, organizationId: organization, role: null }, requestId, flowId: "flow", runId: null, signal: NEVER,
});
const records = async (organization = organizationId) => {
  const found = await store.trail.records(organization, 0, 10_000, NEVER);
  const reader = new ChainReader(CHAIN_BEGINNING);
  for (const record of found) expect(reader.next(record)).toBeUndefined();
  expect(reader.end()).toBeUndefined();
  return found.map(({ actorId, action, outcome, reason, requestId, flowId, calls }) => ({ actorId, action, outcome, reason, requestId, flowId, calls }));
};
const refused = (actorId: string, action: Action, calls: number | null, requestId: string = REQUESTS[0]) => ({ actorId, action, outcome: "refused", reason: "RATE_LIMITED", requestId, flowId: "flow", calls });

test("the first refusal of a period is recorded at once, and one record stands for all the others", async () => {
  const id = randomUUID();
  await limited.note(callOf(id), "resolve_credential");
  expect(await records()).toEqual([refused(id, "resolve_credential", null)]);
  for (const requestId of REQUESTS) await limited.note(callOf(id, requestId), "resolve_credential");
  expect(await records()).toHaveLength(1);
  await limited.record();
  expect(await records()).toEqual([refused(id, "resolve_credential", null), refused(id, "resolve_credential", 3, REQUESTS[2])]);
  await limited.record();
  expect(await records()).toHaveLength(2);
  // A new period begins with a record of its own, and leaves no second one where nothing follows.
  await limited.note(callOf(id), "resolve_credential");
  await limited.record();
  expect((await records()).map(({ calls }) => calls)).toEqual([null, 3, null]);
});

test("callers, and kinds of calls that are limited apart, are recorded apart", async () => {
  const [one, two] = [randomUUID(), randomUUID()];
  const notes: [string, Action][] = [[one, "update_credential"], [one, "delete_credential"], [one, "test_credential"], [two, "update_credential"]];
  for (const [id, action] of notes) await limited.note(callOf(id), action);
  await limited.record();
  expect((await records()).toSorted((a, b) => a.actorId.localeCompare(b.actorId))).toEqual(
    [refused(one, "update_credential", null), refused(one, "test_credential", null), refused(one, "delete_credential", 1), refused(two, "update_credential", null)].toSorted((a, b) => a.actorId.localeCompare(b.actorId)),
  );
});

test("an organization whose callers are many leaves few records, which count every call, and takes no other one's place", async () => {
  for (let round = 0; round < 2; round++) {
    await Promise.all(Array.from({ length: 1_000 }, () => limited.note(callOf(randomUUID()), "resolve_credential")));
  }
  const stranger = randomUUID();
  await limited.note(callOf(stranger, REQUESTS[0], stranger), "resolve_credential");
  await limited.record();
  const found = await records();
  expect(found.length).toBeLessThanOrEqual(102);
  expect(found.reduce((sum, { calls }) => sum + (calls ?? 1), 0)).toBe(2_000);
  expect(await records(stranger)).toEqual([refused(stranger, "resolve_credential", null)]);
});

test("what cannot be recorded is counted, and recorded when it can be", async () => {
  const id = randomUUID();
  await using superuser = await connect(database.superuserUrl);
  await superuser.query("revoke insert on audit_event from credentials_app");
  try {
    for (let n = 0; n < 5; n++) await limited.note(callOf(id), "resolve_credential");
    await limited.record();
    await limited.note(callOf(id), "resolve_credential");
  } finally {
    await superuser.query("grant insert on audit_event to credentials_app");
  }
  expect(await records()).toEqual([]);
  await limited.record();
  expect(await records()).toEqual([refused(id, "resolve_credential", 6)]);
});
