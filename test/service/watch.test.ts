import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createAdminClient } from "../../src/client/admin.ts";
import { connect, type FreshDatabase, freshDatabase } from "../support/postgres.ts";
import { administratorToken, operatorToken, rest, type Service, serviceEnv, startService, token } from "../support/service.ts";
import { kindOf, QUICK, watch } from "../support/watching.ts";

let database: FreshDatabase;
let superuser: Awaited<ReturnType<typeof connect>>;
let replicas: Service[];
let env: Record<string, string>;

beforeAll(async () => {
  database = await freshDatabase();
  superuser = await connect(database.superuserUrl);
  env = serviceEnv(database, { ...QUICK, CREDENTIALS_WATCH_PER_ORGANIZATION: "3" });
  replicas = await Promise.all([startService(env), startService(env)]);
});
afterAll(async () => {
  await Promise.all(replicas.map((replica) => replica.stop()));
  await superuser[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

/** Polls for longer than a loaded machine needs. */
const soon = <T>(what: () => T) => expect.poll(what, { timeout: 15_000 });

const replica = (n: number): Service => replicas[n % replicas.length] as Service;
const sftp = (password: string) => ({ provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password } });

/** An organization with a user, an administrator and a machine that only its token tells of. */
async function world() {
  const organization = randomUUID();
  const [user, admin, machine] = await Promise.all([token("user", organization), administratorToken(organization), token("service_account", organization)]);
  return {
    organization, user, admin, machine,
    async create(through = 0, body: object = sftp("p")): Promise<string> {
      const answer = await rest(replica(through), "POST", "/integrations/credentials", { token: user, body });
      expect(answer.status).toBe(201);
      return answer.json.id as string;
    },
    async update(id: string, through = 0) {
      const { provider: _, ...change } = sftp("q");
      expect((await rest(replica(through), "PATCH", `/integrations/credentials/${id}`, { token: user, body: change })).status).toBe(200);
    },
    async remove(id: string, through = 0) {
      expect((await rest(replica(through), "DELETE", `/integrations/credentials/${id}`, { token: user })).status).toBe(204);
    },
    /** A service account that is kept here, and a key of it. */
    async account() {
      const { json: account } = await rest(replica(0), "POST", "/service-accounts", { token: admin, body: { name: "executor" } });
      const { json: key } = await rest(replica(0), "POST", `/service-accounts/${account.id}/api-keys`, { token: admin, body: { name: "key" } });
      const change = (method: string, path: string, body?: object) => rest(replica(0), method, `/service-accounts/${account.id}${path}`, { token: admin, ...(body ? { body } : {}) });
      return { id: account.id as string, key: key.token as string, keyId: key.id as string, change };
    },
  };
}

test("what happens through one replica is told through the other, in order, without a secret, and to nobody else", async () => {
  const [mine, other] = [await world(), await world()];
  const before = await mine.create();
  const [watcher, stranger] = [watch(replica(1).grpc, mine.machine), watch(replica(1).grpc, other.machine)];
  await Promise.all([watcher.bookmarked(), stranger.bookmarked()]);
  expect(watcher.messages[0]).toMatchObject({ message: { $case: "bookmark", value: { revision: 1n } } });
  const id = await mine.create();
  await mine.update(id);
  await mine.remove(before);
  await watcher.until(({ events }) => events().length === 3);
  expect(watcher.events().map((event) => [kindOf(event), event.credentialId, event.revision, event.secretVersion, event.etag])).toEqual([
    ["created", id, 2n, 1n, "r1"], ["updated", id, 3n, 2n, "r2"], ["deleted", before, 4n, 1n, "r2"],
  ]);
  await stranger.bookmarked();
  expect(stranger.told()).toEqual([]);
  expect(JSON.stringify(watcher.messages, (_, value) => (typeof value === "bigint" ? String(value) : value))).not.toMatch(/password|sftp\.example/);
  const { rows } = await superuser.query("select actor_kind, outcome, action from audit_event where organization_id = $1 and action = 'watch_credentials'", [mine.organization]);
  expect(rows).toEqual([{ actor_kind: "service_account", outcome: "allowed", action: "watch_credentials" }]);
  for (const each of [watcher, stranger]) each.cancel();
});

test("a resume misses nothing and repeats nothing, at another replica too, and more than a page of it", async () => {
  const mine = await world();
  const first = watch(replica(0).grpc, mine.machine);
  await first.bookmarked();
  const id = await mine.create();
  await first.until(({ events }) => events().length === 1);
  first.cancel();
  // As many as three pages hold, written as the service's own statement numbers them.
  await superuser.query(
    `with head as (update credential_event_head set revision = revision + 1200 where organization_id = $1 returning revision)
    insert into credential_event (organization_id, revision, occurred_at, kind, credential_id, provider, credential_type, status, status_since, secret_version)
    select $1, head.revision - 1200 + n, now(), 'updated', $2, 'sftp', 'user_password', 'active', now(), 1 from head, generate_series(1, 1200) n`,
    [mine.organization, id],
  );
  await mine.update(id);
  const second = watch(replica(1).grpc, mine.machine, first.position());
  await second.until(({ events }) => events().length === 1_201);
  await second.bookmarked();
  expect(second.events().map(({ revision }) => Number(revision))).toEqual(Array.from({ length: 1_201 }, (_, n) => n + 2));
  expect(second.messages.slice(0, 1_201).every(({ message }) => message?.$case === "event")).toBe(true);
  const third = watch(replica(0).grpc, mine.machine, second.position());
  await third.bookmarked();
  expect(third.told()).toEqual([]);
  for (const each of [second, third]) each.cancel();
});

test("what was pruned cannot be gone on from, nor what is not of this history; what webhooks have not delivered is not pruned", async () => {
  const mine = await world();
  const watcher = watch(replica(0).grpc, mine.machine);
  await watcher.bookmarked();
  const start = watcher.position();
  const id = await mine.create();
  await mine.update(id);
  await watcher.until(({ events }) => events().length === 2);
  const end = watcher.position();
  await superuser.query("update credential_event set occurred_at = now() - interval '8 days' where organization_id = $1 and revision = 1", [mine.organization]);
  await using pruning = await startService({ ...env, CREDENTIALS_PURGE_INTERVAL_MS: "100" });
  const kept = async () => (await superuser.query("select array_agg(revision order by revision) as r from credential_event where organization_id = $1", [mine.organization])).rows[0].r as string[];
  await soon(kept).toEqual(["2"]);
  await pruning.stop();
  expect(await watch(replica(1).grpc, mine.machine, start).ended).toBe("WATCH_POSITION_LOST");
  expect(await watch(replica(1).grpc, mine.machine, end.replace(/^2/, "3")).ended).toBe("WATCH_POSITION_LOST");
  const good = watch(replica(1).grpc, mine.machine, end);
  await good.bookmarked();
  expect(good.told()).toEqual([]);
  good.cancel();
  // Here webhooks are configured and go nowhere.
  await superuser.query("update credential_event set occurred_at = now() - interval '8 days' where organization_id = $1", [mine.organization]);
  const secret = `whsec_${Buffer.alloc(32, 7).toString("base64")}`;
  await using delivering = await startService({ ...env, CREDENTIALS_PURGE_INTERVAL_MS: "100", CREDENTIALS_WEBHOOK_URL: "http://127.0.0.1:9/", CREDENTIALS_WEBHOOK_SECRET: secret });
  const other = await world();
  const purged = await other.create();
  await other.remove(purged);
  await superuser.query("update purge_due set since = now() - interval '40 days' where credential_id = $1", [purged]);
  await superuser.query("update credential set deleted_at = now() - interval '40 days' where id = $1", [purged]);
  await soon(async () => (await superuser.query("select sealed is null as gone from credential where id = $1", [purged])).rows[0].gone).toBe(true);
  expect(await kept()).toEqual(["2"]);
  expect(delivering.output()).not.toContain("could not be cleared away");
  watcher.cancel();
}, 60_000);

test("a narrowed account is told so, then only of what it is granted, and also where it was away meanwhile", async () => {
  const mine = await world();
  const { key, change } = await mine.account();
  const [kept, taken] = [await mine.create(), await mine.create(0, { provider: "aws_ses", credential_type: "api_key", credentials: { access_key_id: "AK", secret_access_key: "s", region: "eu-central-1" } })];
  const watcher = watch(replica(1).grpc, key);
  await watcher.bookmarked();
  const before = watcher.position();
  expect((await change("PUT", "/access", { everything: false, providers: ["sftp"], credential_ids: [] })).status).toBe(200);
  await watcher.until(({ told }) => told().includes("access_changed"));
  await mine.remove(taken);
  await mine.update(kept);
  await watcher.until(({ events }) => events().length === 1);
  expect(watcher.events()).toMatchObject([{ credentialId: kept, revision: 4n }]);
  const later = watch(replica(0).grpc, key, before);
  await later.bookmarked();
  expect(later.told()).toEqual(["access_changed", "updated"]);
  for (const each of [watcher, later]) each.cancel();
});

test("a revoked key, a disabled account, an ended token and a destroyed organization end their streams; the records say why", async () => {
  const [mine, gone] = [await world(), await world()];
  const [revoked, disabled] = [await mine.account(), await mine.account()];
  await gone.create();
  // The skew that clocks may have is added to a token's end.
  await using strict = await startService({ ...env, CREDENTIALS_JWT_CLOCK_SKEW_SECONDS: "0" });
  const brief = await token("service_account", mine.organization, undefined, 2);
  const ends = [watch(replica(0).grpc, revoked.key), watch(replica(1).grpc, disabled.key), watch(strict.grpc, brief), watch(replica(0).grpc, gone.machine)];
  await Promise.all(ends.map((each) => each.bookmarked()));
  expect((await revoked.change("DELETE", `/api-keys/${revoked.keyId}`)).status).toBe(204);
  expect((await disabled.change("PATCH", "", { status: "inactive" })).status).toBe(200);
  using admin = createAdminClient({ target: replica(1).grpc, token: await operatorToken(), tls: undefined, deadlineMs: 10_000 });
  await admin.destroyOrganization({ organizationId: gone.organization });
  expect(await Promise.all(ends.map(({ ended }) => ended))).toEqual(["INVALID_TOKEN", "INVALID_TOKEN", "INVALID_TOKEN", "ORGANIZATION_DESTROYED"]);
  const records = async () => (await superuser.query("select outcome, reason from audit_event where organization_id = any($1) and action = 'watch_credentials' and outcome <> 'allowed' order by reason", [[mine.organization, gone.organization]])).rows;
  const refused = (reason: string) => ({ outcome: "refused", reason });
  await soon(records).toEqual([refused("INVALID_TOKEN"), refused("INVALID_TOKEN"), refused("INVALID_TOKEN"), refused("ORGANIZATION_DESTROYED")]);
  // A key that was revoked is told nothing at all, although it was good a moment ago.
  const late = watch(replica(1).grpc, disabled.key);
  expect([await late.ended, late.messages]).toEqual(["INVALID_TOKEN", []]);
}, 60_000);

test("an organization has so many watches and no more; a place is free again once its watch is gone", async () => {
  const [mine, other] = [await world(), await world()];
  const three = [0, 1, 2].map(() => watch(replica(0).grpc, mine.machine));
  await Promise.all(three.map((each) => each.bookmarked()));
  expect(await watch(replica(0).grpc, mine.machine).ended).toBe("WATCH_LIMIT_REACHED");
  const elsewhere = [watch(replica(0).grpc, other.machine), watch(replica(1).grpc, mine.machine)];
  await Promise.all(elsewhere.map((each) => each.bookmarked()));
  three[0]?.cancel();
  await soon(async () => {
    const again = watch(replica(0).grpc, mine.machine);
    return Promise.race([again.ended, again.bookmarked().then(() => "told", () => "ended")]);
  }).toBe("told");
  for (const each of [...three, ...elsewhere]) each.cancel();
});

test("a reader that takes in nothing is ended, and goes on from where it stood", async () => {
  const mine = await world();
  await using narrow = await startService({ ...env, CREDENTIALS_WATCH_BUFFER: "4" });
  const id = await mine.create();
  const slow = watch(narrow.grpc, mine.machine);
  await slow.bookmarked();
  slow.stream.pause();
  const flood = async (n: number) =>
    void (await superuser.query(
      `with head as (update credential_event_head set revision = revision + $3 where organization_id = $1 returning revision)
      insert into credential_event (organization_id, revision, occurred_at, kind, credential_id, provider, credential_type, status, status_reason, status_since, secret_version)
      select $1, head.revision - $3 + n, now(), 'updated', $2, 'sftp', 'user_password', 'active', repeat('x', 4000), now(), 1 from head, generate_series(1, $3::integer) n`,
      [mine.organization, id, n],
    ));
  await flood(400);
  const quick = watch(narrow.grpc, mine.machine);
  await quick.bookmarked();
  await flood(1);
  await quick.until(({ events }) => events().length === 1);
  slow.stream.resume();
  expect(await slow.ended).toBe("WATCH_TOO_SLOW");
  const again = watch(narrow.grpc, mine.machine, slow.position());
  await again.bookmarked();
  expect(slow.events()).toHaveLength(400);
  expect([...slow.events(), ...again.events()].map(({ revision }) => Number(revision))).toEqual(Array.from({ length: 401 }, (_, n) => n + 2));
  for (const each of [quick, again]) each.cancel();
}, 60_000);

test("a replica that stops ends its streams as UNAVAILABLE, and one that cannot see tells nothing and then ends them too", async () => {
  const mine = await world();
  const stopping = await startService(env);
  const watcher = watch(stopping.grpc, mine.machine);
  await watcher.bookmarked();
  expect(await stopping.stop()).toBe(0);
  expect(await watcher.ended).toBe("SHUTTING_DOWN");
  const blind = watch(replica(0).grpc, mine.machine);
  await blind.bookmarked();
  await superuser.query("revoke select on credential_event_head from credentials_app");
  try {
    expect(await blind.ended).toBe("DATABASE_UNAVAILABLE");
  } finally {
    await superuser.query("grant select on credential_event_head to credentials_app");
  }
  const again = watch(replica(0).grpc, mine.machine, blind.position());
  await again.bookmarked();
  again.cancel();
}, 60_000);

test("a history that was set back, or has a hole, is not gone on with as if nothing were", async () => {
  const mine = await world();
  const id = await mine.create();
  for (let n = 0; n < 3; n++) await mine.update(id);
  const watcher = watch(replica(0).grpc, mine.machine);
  await watcher.bookmarked();
  const end = watcher.position();
  await superuser.query("delete from credential_event where organization_id = $1 and revision = 3", [mine.organization]);
  expect(await watch(replica(1).grpc, mine.machine, end.replace(/^4/, "2")).ended).toBe("WATCH_POSITION_LOST");
  // As after a restore of the database from a backup.
  await superuser.query("delete from credential_event where organization_id = $1 and revision > 2", [mine.organization]);
  await superuser.query("update credential_event_head set revision = 2 where organization_id = $1", [mine.organization]);
  expect(await watcher.ended).toBe("WATCH_POSITION_LOST");
  expect(await watch(replica(1).grpc, mine.machine, end).ended).toBe("WATCH_POSITION_LOST");
  const anew = watch(replica(1).grpc, mine.machine);
  await anew.bookmarked();
  await mine.update(id);
  await anew.until(({ events }) => events().length === 1);
  expect(anew.events()).toMatchObject([{ revision: 3n }]);
  anew.cancel();
});
