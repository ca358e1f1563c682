import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { AuditEvent, SystemAction } from "../../src/domain/access.ts";
import type { Renewal } from "../../src/domain/credential.ts";
import type { Lease, Settlement } from "../../src/store/refresh.ts";
import type { Store } from "../../src/store/store.ts";
import { connect, freshDatabase, type FreshDatabase } from "../support/postgres.ts";
import { allowed, create, NEVER, openTestStore, resolve, sealedBytes } from "../support/store.ts";

let database: FreshDatabase;
let store: Store & AsyncDisposable;
beforeAll(async () => {
  database = await freshDatabase();
  store = await openTestStore(database.applicationUrl, { backgroundPoolSize: 8 });
});
afterAll(async () => {
  await store.close();
  await database[Symbol.asyncDispose]();
});

const LEASE_MS = 30_000;
const BACKOFF = { firstMs: 60_000, longestMs: 600_000 };
const system = (organizationId: string, id: string, action: SystemAction, reason: string | null = null): AuditEvent => ({
  ...allowed(organizationId, id), actorKind: "system", actorId: "refresh", action, outcome: reason === null ? "allowed" : "failed", reason,
});

/** A Google grant that is due now. */
async function dueGrant(renewal: Renewal = "due", endsInMs = 30_000, organizationId = randomUUID()) {
  const row = await create(store, organizationId, { provider: "google", credentialType: "oauth2", renewal, tokenExpiresAt: new Date(Date.now() + endsInMs) });
  return { organizationId, id: row.id, row };
}

const begin = (lease: Lease) => store.refresh.begin(lease, LEASE_MS, [system(lease.organizationId, lease.credentialId, "refresh_credential"), system(lease.organizationId, lease.credentialId, "mark_in_doubt")]);
const keep = (lease: Lease, sentVersion = 1n, sealed = sealedBytes()) =>
  store.refresh.keep(lease, { sentVersion, sealed, tokenExpiresAt: new Date(Date.now() + 3_600_000), reason: null }, [system(lease.organizationId, lease.credentialId, "mark_active")]);
const settle = (lease: Lease, settlement: Partial<Settlement>) =>
  store.refresh.settle(lease, { sentVersion: 1n, mark: null, dueInMs: 0, inDoubt: false, failed: true, ...settlement }, [
    system(lease.organizationId, lease.credentialId, "refresh_credential", "provider_unavailable"), ...(settlement.mark ? [system(lease.organizationId, lease.credentialId, `mark_${settlement.mark.status}`)] : []),
  ]);
async function lease(organizationId: string, id: string): Promise<Lease> {
  const claim = await store.refresh.claim(organizationId, id, LEASE_MS, true);
  if (claim?.lease === undefined) throw new Error("the lease is not free");
  return claim.lease;
}
/** Lets the time of a lease run out. */
async function runOut(id: string): Promise<void> {
  await using superuser = await connect(database.superuserUrl);
  await superuser.query("update credential_refresh set lease_until = now() - interval '1 second' where credential_id = $1", [id]);
}
async function schedule(id: string) {
  await using superuser = await connect(database.superuserUrl);
  const { rows } = await superuser.query("select due_at, attempts, lease_token, intent_version, extract(epoch from due_at - now()) as due_in from credential_refresh where credential_id = $1", [id]);
  return rows[0];
}
async function trail(organizationId: string) {
  await using superuser = await connect(database.superuserUrl);
  const audit = await superuser.query("select actor_kind, action, outcome, reason from audit_event where organization_id = $1 and actor_kind = 'system' order by link, position", [organizationId]);
  const events = await store.outbox.after(organizationId, 0n, 100);
  return { audit: audit.rows.map((row) => [row.action, row.outcome, row.reason]), events: events.map((event) => [Number(event.revision), event.kind, event.status, event.statusReason]) };
}

describe("a lease", () => {
  test("is had by one of many who ask at once, and the others see that it is held", async () => {
    const { organizationId, id } = await dueGrant();
    const claims = await Promise.all(Array.from({ length: 20 }, () => store.refresh.claim(organizationId, id, LEASE_MS, true)));
    expect(claims.filter((claim) => claim?.lease !== undefined)).toHaveLength(1);
    expect(claims.filter((claim) => claim?.held)).toHaveLength(19);
  });

  test("is not had of what is not due, of another organization's, nor of what is deleted", async () => {
    const later = await dueGrant("scheduled", 3_600_000);
    expect(await store.refresh.claim(later.organizationId, later.id, LEASE_MS, true)).toMatchObject({ lease: undefined, held: false });
    const { organizationId, id } = await dueGrant();
    expect(await store.refresh.claim(randomUUID(), id, LEASE_MS, true)).toBeUndefined();
    expect(await store.refresh.claim(organizationId, id, LEASE_MS, false)).toMatchObject({ lease: undefined, held: true });
    await store.credentials.remove({ organizationId, id, expectedRevision: null, modifiedBy: "system" }, allowed(organizationId, id, "delete_credential"), NEVER);
    expect(await store.refresh.claim(organizationId, id, LEASE_MS, true)).toBeUndefined();
    expect(await schedule(id)).toBeUndefined();
  });

  test("of a loser writes nothing after it ran out and somebody else began: neither success nor refusal", async () => {
    const { organizationId, id, row } = await dueGrant();
    const paused = await lease(organizationId, id);
    await begin(paused);
    await runOut(id);
    const winner = await lease(organizationId, id);
    expect(await settle(paused, { mark: { status: "reauth_required", reason: "invalid_grant" } })).toBe(false);
    await begin(winner);
    expect(await keep(paused)).toBe(false);
    expect(await settle(paused, { mark: { status: "reauth_required", reason: "invalid_grant" } })).toBe(false);
    expect(await resolve(store, organizationId, id)).toMatchObject({ secretVersion: 1n, sealed: row.sealed });
    const sealed = sealedBytes();
    expect(await keep(winner, 1n, sealed)).toBe(true);
    expect(await keep(paused)).toBe(false);
    expect(await settle(paused, { mark: { status: "reauth_required", reason: "invalid_grant" } })).toBe(false);
    await store.refresh.release(paused, BACKOFF);
    expect(await resolve(store, organizationId, id)).toMatchObject({ status: "active", secretVersion: 2n, sealed });
  });

  test("that ran out still stores what was renewed while whoever has it now has not begun, and that one does not begin", async () => {
    const { organizationId, id } = await dueGrant();
    const late = await lease(organizationId, id);
    expect(late.takenOver).toBe(false);
    await begin(late);
    await runOut(id);
    const second = await lease(organizationId, id);
    expect(second.takenOver).toBe(true);
    const sealed = sealedBytes();
    expect(await keep(late, 1n, sealed)).toBe(true);
    expect([await begin(second), await keep(second), await keep(late, 2n)]).toEqual([undefined, false, false]);
    expect(await resolve(store, organizationId, id)).toMatchObject({ status: "active", secretVersion: 2n, sealed });
    expect(await schedule(id)).toMatchObject({ lease_token: null, intent_version: null });
  });

  test("is taken over from nobody where the outcome was stored, and from nobody who only had it", async () => {
    const { organizationId, id } = await dueGrant();
    const first = await lease(organizationId, id);
    await begin(first);
    await settle(first, { inDoubt: true });
    const second = await lease(organizationId, id);
    await store.refresh.release(second, { firstMs: -1_000, longestMs: 0 });
    expect([second.takenOver, (await lease(organizationId, id)).takenOver]).toEqual([false, false]);
  });

  test("writes nothing over an update or a delete that came in between", async () => {
    const { organizationId, id } = await dueGrant();
    const mine = await lease(organizationId, id);
    await begin(mine);
    const sealed = sealedBytes();
    const change = { organizationId, id, expectedRevision: 1, credentialType: "oauth2", name: null, accountEmail: null, tokenExpiresAt: new Date(Date.now() + 3_600_000), status: "active", modifiedBy: "system", secretVersion: 2n, sealed, renewal: "scheduled" } as const;
    await store.credentials.replace(change, allowed(organizationId, id, "update_credential"), NEVER);
    expect([await keep(mine), await settle(mine, { mark: { status: "reauth_required", reason: "invalid_grant" } }), await begin(mine)]).toEqual([false, false, undefined]);
    expect(await resolve(store, organizationId, id)).toMatchObject({ status: "active", secretVersion: 2n, sealed });
    const second = await dueGrant();
    const other = await lease(second.organizationId, second.id);
    await begin(other);
    await store.credentials.remove({ organizationId: second.organizationId, id: second.id, expectedRevision: null, modifiedBy: "system" }, allowed(second.organizationId, second.id, "delete_credential"), NEVER);
    expect([await keep(other), await settle(other, { mark: { status: "refresh_failed", reason: "x" } })]).toEqual([false, false]);
    expect(await resolve(store, second.organizationId, second.id)).toBeUndefined();
  });

  test("changes what a refresh changes and nothing that belongs to callers", async () => {
    const { organizationId, id } = await dueGrant();
    const before = await store.credentials.get(organizationId, id, NEVER);
    const mine = await lease(organizationId, id);
    await begin(mine);
    await keep(mine);
    const after = await store.credentials.get(organizationId, id, NEVER);
    expect(after).toEqual({ ...before, secretVersion: 2n, tokenExpiresAt: after?.tokenExpiresAt });
    expect(await schedule(id)).toMatchObject({ attempts: 0, lease_token: null, intent_version: null });
    expect(await trail(organizationId)).toEqual({ audit: [["refresh_credential", "allowed", null]], events: [[1, "created", "active", null], [2, "rotated", "active", null]] });
  });
});

describe("what was cut off", () => {
  test("is in doubt for whoever takes the lease next, with an event and a record, and once only", async () => {
    const { organizationId, id } = await dueGrant();
    await begin(await lease(organizationId, id));
    expect((await resolve(store, organizationId, id))?.status).toBe("active");
    for (let round = 0; round < 2; round++) {
      await runOut(id);
      expect(await begin(await lease(organizationId, id))).toMatchObject({ interrupted: true });
    }
    expect(await trail(organizationId)).toEqual({
      audit: [["refresh_credential", "allowed", null], ["refresh_credential", "allowed", null], ["mark_in_doubt", "allowed", null], ["refresh_credential", "allowed", null]],
      events: [[1, "created", "active", null], [2, "status_changed", "in_doubt", "renewal_interrupted"]],
    });
  });

  test("is not in doubt where the outcome was stored, or the secret replaced", async () => {
    const { organizationId, id } = await dueGrant();
    const first = await lease(organizationId, id);
    await begin(first);
    await settle(first, { mark: { status: "refresh_failed", reason: "provider_unavailable" } });
    const second = await lease(organizationId, id);
    expect(await begin(second)).toMatchObject({ interrupted: false, attempts: 1 });
    await settle(second, { mark: { status: "refresh_failed", reason: "provider_unavailable" }, inDoubt: true });
    expect(await begin(await lease(organizationId, id))).toMatchObject({ interrupted: true, attempts: 2 });
    expect((await trail(organizationId)).events.slice(1)).toEqual([[2, "status_changed", "refresh_failed", "provider_unavailable"], [3, "status_changed", "in_doubt", "renewal_interrupted"]]);
  });
});

describe("the schedule", () => {
  test("comes before the end by five minutes or a tenth, at most half, spread", async () => {
    for (const [endsIn, least, most] of [[3600, 3600 - 360, 3600 - 0.8 * 360], [600, 300, 360], [60, 30, 36], [86_400 * 30, 86_400 * 27, 86_400 * 27.6]] as const) {
      const { id } = await dueGrant("scheduled", endsIn * 1000);
      const { due_in: dueIn } = await schedule(id);
      expect(Number(dueIn), `${endsIn}`).toBeGreaterThan(least - 5);
      expect(Number(dueIn), `${endsIn}`).toBeLessThan(most + 5);
    }
    const idle = await create(store, randomUUID(), { provider: "google", credentialType: "oauth2", renewal: "scheduled" });
    expect(Number((await schedule(idle.id)).due_in) / 86_400).toBeGreaterThan(5.5);
    const plain = await create(store, randomUUID());
    expect(await schedule(plain.id)).toBeUndefined();
  });

  test("gives what is due to several who ask at once without overlap, within the quota", async () => {
    const organizationId = randomUUID();
    const ids = await Promise.all(Array.from({ length: 30 }, async () => (await dueGrant("due", 1_000, organizationId)).id));
    const taken: string[] = [];
    while (taken.length < 30) {
      const leases = await Promise.all(Array.from({ length: 3 }, () => store.refresh.claimDue([{ provider: "google", limit: 4 }, { provider: "microsoft", limit: 4 }], LEASE_MS, [])));
      for (const part of leases) expect(part.length).toBeLessThanOrEqual(4);
      taken.push(...leases.flat().map(({ credentialId }) => credentialId).filter((id) => ids.includes(id)));
    }
    expect(taken.toSorted()).toEqual(ids.toSorted());
  });

  test("gives each organization its turn, however much of another is due before, and nothing of those that are passed over", async () => {
    await using superuser = await connect(database.superuserUrl);
    const [big, small, unwell] = [randomUUID(), randomUUID(), randomUUID()];
    for (const [organization, count, hours] of [[big, 40, 9], [unwell, 40, 8], [small, 2, 7]] as const) {
      await superuser.query("insert into credential_refresh (organization_id, credential_id, provider, due_at) select $1, gen_random_uuid(), 'sharepoint', now() - $3 * interval '1 hour' from generate_series(1, $2)", [organization, count, hours]);
    }
    const taken: string[] = [];
    for (let look = 0; look < 2; look++) taken.push(...(await store.refresh.claimDue([{ provider: "sharepoint", limit: 4 }], LEASE_MS, [unwell])).map(({ organizationId }) => organizationId));
    expect(taken.toSorted()).toEqual([...Array(6).fill(big), ...Array(2).fill(small)].toSorted());
    await superuser.query("delete from credential_refresh where organization_id = any($1)", [[big, small, unwell]]);
  });

  test("puts off what could not be begun, longer each time", async () => {
    const { organizationId, id } = await dueGrant();
    for (const [n, least, most] of [[1, 30, 60], [2, 60, 120], [3, 120, 240]] as const) {
      await using superuser = await connect(database.superuserUrl);
      await superuser.query("update credential_refresh set due_at = now() where credential_id = $1", [id]);
      await store.refresh.release(await lease(organizationId, id), BACKOFF);
      const { attempts, due_in: dueIn, lease_token: token } = await schedule(id);
      expect([attempts, token]).toEqual([n, null]);
      expect(Number(dueIn)).toBeGreaterThan(least - 5);
      expect(Number(dueIn)).toBeLessThan(most + 5);
    }
  });

  test("reads no more than it takes, in a table of many", async () => {
    await using superuser = await connect(database.superuserUrl);
    await superuser.query("insert into credential_refresh (organization_id, credential_id, provider, due_at) select gen_random_uuid(), gen_random_uuid(), 'sharepoint', now() + n * interval '1 second' from generate_series(-50, 20000) n");
    await superuser.query("analyze credential_refresh");
    const leases = await store.refresh.claimDue([{ provider: "sharepoint", limit: 100 }], LEASE_MS, []);
    expect(leases.length).toBeGreaterThanOrEqual(50);
    expect(leases.length).toBeLessThan(100);
  });
});

describe("a restored credential", () => {
  test("is looked after and told of again", async () => {
    const { organizationId, id } = await dueGrant("scheduled", 3_600_000);
    await store.credentials.remove({ organizationId, id, expectedRevision: null, modifiedBy: "system" }, allowed(organizationId, id, "delete_credential"), NEVER);
    expect(await schedule(id)).toBeUndefined();
    await store.maintenance.restore(organizationId, id, { perProvider: 50, perUser: 100 }, allowed(organizationId, id, "restore_credential"));
    expect(Number((await schedule(id)).due_in)).toBeGreaterThan(3_000);
    expect((await trail(organizationId)).events.map(([revision, kind]) => [revision, kind])).toEqual([[1, "created"], [2, "deleted"], [3, "restored"]]);
  });
});

describe("the outbox", () => {
  test("numbers an organization's events without gaps, however many write at once and whatever is refused", async () => {
    const organizationId = randomUUID();
    const rows = await Promise.all(Array.from({ length: 40 }, () => create(store, organizationId)));
    await Promise.allSettled(Array.from({ length: 30 }, () => create(store, organizationId)));
    await Promise.all(rows.slice(0, 20).map(({ id }) => store.credentials.remove({ organizationId, id, expectedRevision: null, modifiedBy: "system" }, allowed(organizationId, id, "delete_credential"), NEVER)));
    const events = await store.outbox.after(organizationId, 0n, 1_000);
    expect(events.map(({ revision }) => Number(revision))).toEqual(Array.from({ length: 50 + 20 }, (_, n) => n + 1));
    expect(events.filter(({ kind }) => kind === "created")).toHaveLength(50);
    expect(events.filter(({ kind }) => kind === "deleted")).toHaveLength(20);
    expect(await store.outbox.after(randomUUID(), 0n, 10)).toEqual([]);
  });

  test("is delivered under a lease that is lost when its time is over", async () => {
    const organizationId = randomUUID();
    await create(store, organizationId);
    const mine = async (ms: number) => (await store.outbox.claim(1_000, ms)).find((lease) => lease.organizationId === organizationId);
    const first = await mine(-1_000);
    expect(first).toMatchObject({ sent: 0n, attempts: 0 });
    const second = await mine(LEASE_MS);
    if (!first || !second) throw new Error("not claimed");
    expect(await store.outbox.advance(first, 1n, LEASE_MS)).toBe(false);
    expect(await mine(LEASE_MS)).toBeUndefined();
    await store.outbox.release(second, 0, true);
    const third = await mine(LEASE_MS);
    expect(third).toMatchObject({ sent: 0n, attempts: 1 });
    expect(third && (await store.outbox.advance(third, 1n, LEASE_MS))).toBe(true);
    if (third) await store.outbox.release(third, 0, false);
    expect(await mine(LEASE_MS)).toBeUndefined();
    await create(store, organizationId);
    expect(await mine(LEASE_MS)).toMatchObject({ sent: 1n, attempts: 0 });
  });
});
