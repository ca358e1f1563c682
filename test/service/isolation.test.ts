import { afterAll, beforeAll, expect, test } from "vitest";
import { connect } from "../support/postgres.ts";
import { foreignCalls, foreignMetadata, foreignRoutes, gates, METHODS, ownCalls, STILL, World } from "../support/isolation.ts";
import { rest, startFresh } from "../support/service.ts";
import { QUICK, watch } from "../support/watching.ts";

let service: Awaited<ReturnType<typeof startFresh>>;
let world: World;
let victim: Awaited<ReturnType<World["tenant"]>>;
let stranger: Awaited<ReturnType<World["tenant"]>>;

beforeAll(async () => {
  service = await startFresh({ ...STILL, ...QUICK, CREDENTIALS_GOOGLE_CLIENT_ID: "client", CREDENTIALS_GOOGLE_CLIENT_SECRET: "client-secret", CREDENTIALS_TESTS_BURST: "10000", CREDENTIALS_RATE_TESTS_PER_CALLER: "10000", CREDENTIALS_RATE_TESTS_PER_ORGANIZATION: "10000", CREDENTIALS_RATE_WRITES_PER_CALLER: "1000" });
  world = await World.open(service, service.database);
  [victim, stranger] = await Promise.all([world.tenant(), world.tenant()]);
});
afterAll(async () => {
  await world[Symbol.asyncDispose]();
  await service[Symbol.asyncDispose]();
});

test("every RPC there is is looked at", () => {
  expect(METHODS.length).toBeGreaterThan(35);
});

test("no RPC tells a caller of another organization anything, or lets it change anything, whatever ids it names", async () => {
  await foreignCalls(world, victim, stranger);
  expect(world.found()).toEqual([]);
}, 120_000);

test("no metadata moves a caller to another organization", async () => {
  await foreignMetadata(world, victim, stranger);
  expect(world.found()).toEqual([]);
}, 60_000);

test("no route does, and what is another organization's is answered as what is not there", async () => {
  await foreignRoutes(world, service, victim, stranger);
  expect(world.found()).toEqual([]);
}, 60_000);

test("whoever may not do something in the organization itself is refused, and that is recorded", async () => {
  await gates(world, victim);
  expect(world.found()).toEqual([]);
}, 60_000);

test("raw SQL of the application role sees no row of any table with row-level security without an organization", async () => {
  await using superuser = await connect(service.database.superuserUrl);
  const { rows } = await superuser.query<{ name: string }>("select relname as name from pg_class where relnamespace = 'public'::regnamespace and relforcerowsecurity order by 1");
  expect(rows.length).toBeGreaterThan(8);
  await using application = await connect(service.database.applicationUrl);
  for (const { name } of rows) {
    expect((await superuser.query(`select count(*)::integer as n from ${name}`)).rows[0].n, name).toBeGreaterThanOrEqual(0);
    expect((await application.query(`select * from ${name}`)).rows, name).toEqual([]);
  }
});

test("whoever watches from another organization is told nothing of what happens in this one, through whatever is written there", async () => {
  const listeners = [stranger.callers.machine, stranger.callers.key].map((as) => watch(service.grpc, as));
  const own = watch(service.grpc, victim.callers.machine);
  await Promise.all([...listeners, own].map((each) => each.bookmarked()));
  const { json } = await rest(service, "POST", "/integrations/credentials", { token: victim.callers.user, body: { provider: "sftp", credential_type: "user_password", credentials: { host: "h", username: victim.canary, password: victim.canary }, name: victim.canary } });
  await rest(service, "DELETE", `/integrations/credentials/${json.id}`, { token: victim.callers.user });
  await own.until(({ told }) => told().join() === "created,deleted");
  await Promise.all(listeners.map((each) => each.bookmarked()));
  for (const each of listeners) expect(each.told()).toEqual([]);
  for (const each of [...listeners, own]) each.cancel();
});

test("the same requests of the organization's own callers are served, and recorded", async () => {
  await ownCalls(world, victim);
  expect(world.found()).toEqual([]);
}, 60_000);
