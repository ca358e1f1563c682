import { randomBytes, randomUUID } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { RotationState as State } from "../../gen/flow/credentials/v1/admin_service.ts";
import { awsKms } from "../../src/crypto/kms/aws.ts";
import { Breaker } from "../../src/crypto/kms/breaker.ts";
import { type KeyService, serviceMasterKey } from "../../src/crypto/kms/service.ts";
import { transitService } from "../../src/crypto/kms/transit.ts";
import { KeyRing, localMasterKey } from "../../src/crypto/ring.ts";
import { toKeyObject } from "../../src/crypto/derive.ts";
import { secret } from "../../src/domain/secret.ts";
import { createOperatorHttp } from "../../src/egress/operator-http.ts";
import { adminOf, keySettings, newMasterKeys, QUICK, reaches } from "../support/admin.ts";
import { awsKmsFake, type FakeKeyService, transitFake, type Trouble } from "../support/key-service-fakes.ts";
import { freshDatabase } from "../support/postgres.ts";
import { rest, serviceEnv, spawnService, startService, temporaryFolder, token } from "../support/service.ts";

// Many processes are started here, and a loaded machine takes seconds for each.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const TOKEN = "canary-transit-token";
const ACCESS = { id: "AKIATESTTESTTESTTEST", secret: "canary-aws-secret" };
const place = { organizationId: randomUUID(), version: 1 };

/** Each provider: its fake, and one of its keys by name. A new provider gets an entry here, and all of the suite with it. */
const PROVIDERS: Record<string, { start(): Promise<FakeKeyService>; key(fake: FakeKeyService, name: string): KeyService; settings(fake: FakeKeyService): Record<string, string> }> = {
  transit: {
    start: () => transitFake(TOKEN),
    key: ({ url }, key) => transitService({ url, mount: "transit", key, namespace: undefined, token: secret(TOKEN), http: createOperatorHttp() }),
    settings: ({ url }) => ({ CREDENTIALS_KMS: "transit", CREDENTIALS_KMS_TRANSIT_URL: url, CREDENTIALS_KMS_TRANSIT_TOKEN: TOKEN }),
  },
  aws: {
    start: () => awsKmsFake(ACCESS.id, ACCESS.secret),
    key: ({ url }, key) =>
      awsKms({ region: "eu-central-1", endpoint: url, credentials: { accessKeyId: ACCESS.id, secretAccessKey: secret(ACCESS.secret), sessionToken: undefined }, http: createOperatorHttp() })(key),
    settings: ({ url }) => ({
      CREDENTIALS_KMS: "aws",
      CREDENTIALS_KMS_AWS_REGION: "eu-central-1",
      CREDENTIALS_KMS_AWS_ENDPOINT: url,
      CREDENTIALS_KMS_AWS_ACCESS_KEY_ID: ACCESS.id,
      CREDENTIALS_KMS_AWS_SECRET_ACCESS_KEY: ACCESS.secret,
    }),
  },
};

test("what a key service has to load first takes nothing of the time of its first request", async () => {
  const load = Promise.withResolvers<void>();
  const aborted: boolean[] = [];
  const service: KeyService = { identity: "slow to load", ready: () => load.promise, wrap: async (key, _context, signal) => (aborted.push(signal.aborted), key), unwrap: async (blob) => blob };
  const wrapping = serviceMasterKey("k1", service, { timeoutMs: 20, breaker: new Breaker() }).wrap(randomBytes(32), place);
  setTimeout(load.resolve, 200);
  await wrapping;
  expect(aborted).toEqual([false]);
});

describe.each(Object.entries(PROVIDERS))("a master key that %s keeps", (_, provider) => {
  let fake: FakeKeyService;
  let now = 0;
  const ringOf = (...names: string[]) => {
    const breaker = new Breaker(() => now);
    return new KeyRing(names.map((name) => serviceMasterKey(name, provider.key(fake, `${name}-key`), { timeoutMs: 1_000, breaker })), names[0] as string);
  };
  beforeEach(async () => {
    fake = await provider.start();
  });
  afterEach(() => fake[Symbol.asyncDispose]());

  const outcome = (work: Promise<Buffer>) => work.then((key) => key.length, (error: { code?: string; reason?: string }) => error.reason ?? error.code);

  test("wraps and unwraps, and sends the key to nobody in the open but to the service", async () => {
    const ring = ringOf("k1");
    const key = randomBytes(32);
    const wrapped = await ring.wrap(key, place);
    expect((await ring.unwrap(wrapped, place)).equals(key)).toBe(true);
    expect(wrapped.includes(key)).toBe(false);
    expect(wrapped.subarray(0, 6)).toEqual(Buffer.from([0xc4, 1, 2, 2, 0x6b, 0x31]));
    // The same key under another spelling of the organization's id.
    expect((await ring.unwrap(wrapped, { ...place, organizationId: place.organizationId.toUpperCase() })).equals(key)).toBe(true);
    expect(inspect(ring, { depth: 9, showHidden: true })).not.toMatch(/canary/);
  });

  test("does not unwrap for another organization or version, nor altered bytes, nor under another key of the service", async () => {
    const ring = ringOf("k1", "k2");
    const wrapped = await ring.wrap(randomBytes(32), place);
    expect(await outcome(ring.unwrap(wrapped, { ...place, organizationId: randomUUID() }))).toBe("wrapped_key_not_authentic");
    expect(await outcome(ring.unwrap(wrapped, { ...place, version: 2 }))).toBe("wrapped_key_not_authentic");
    const altered = Buffer.from(wrapped);
    altered[altered.length - 9] = (altered.at(-9) ?? 0) ^ 1;
    expect(await outcome(ring.unwrap(altered, place))).toBe("wrapped_key_not_authentic");
    const renamed = Buffer.from(wrapped);
    renamed.write("k2", 4);
    expect(await outcome(ring.unwrap(renamed, place))).toBe("wrapped_key_not_authentic");
    expect(await outcome(ring.unwrap(wrapped.subarray(0, 6), place))).toBe("wrapped_key_malformed");
    const local = new KeyRing([localMasterKey("k1", toKeyObject(randomBytes(32)))], "k1");
    expect(await outcome(local.unwrap(wrapped, place))).toBe("wrapped_key_malformed");
    expect(await outcome(ring.unwrap(await local.wrap(randomBytes(32), place), place))).toBe("wrapped_key_malformed");
  });

  test("refuses what is not 32 bytes long", async () => {
    const ring = ringOf("k1");
    const wrapped = await ring.wrap(randomBytes(32), place);
    fake.trouble = "short_key";
    expect(await outcome(ring.unwrap(wrapped, place))).toBe("wrapped_key_not_authentic");
  });

  test("opens what older versions of the service's key sealed, until the service is told not to", async () => {
    const ring = ringOf("k1");
    const wrapped = await ring.wrap(randomBytes(32), place);
    fake.rotate("k1-key");
    expect(await outcome(ring.unwrap(wrapped, place))).toBe(32);
    fake.retireOld("k1-key");
    expect(await outcome(ring.unwrap(wrapped, place))).toBe("KEYS_UNAVAILABLE");
  });

  test.each<Trouble>(["throttled", "hanging", "forbidden", "broken"])("fails closed while the service is %s, and recovers alone", async (trouble) => {
    const ring = ringOf("k1");
    const wrapped = await ring.wrap(randomBytes(32), place);
    fake.trouble = trouble;
    const error: unknown = await ring.unwrap(wrapped, place).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ reason: "KEYS_UNAVAILABLE", message: "The key that this needs cannot be used now; try again" });
    expect(await outcome(ring.wrap(randomBytes(32), place))).toBe("KEYS_UNAVAILABLE");
    fake.trouble = "none";
    expect(await outcome(ring.unwrap(wrapped, place))).toBe(32);
  });

  test("is left alone after failures in a row, tried again after a while by one call, and used again when it answers", async () => {
    const ring = ringOf("k1");
    const wrapped = await ring.wrap(randomBytes(32), place);
    fake.trouble = "broken";
    for (let n = 0; n < 5; n++) await outcome(ring.unwrap(wrapped, place));
    const before = fake.asked.length;
    expect(await Promise.all(Array.from({ length: 20 }, () => outcome(ring.unwrap(wrapped, place))))).toEqual(Array.from({ length: 20 }, () => "KEYS_UNAVAILABLE"));
    expect(fake.asked.length).toBe(before);
    now += 5_001;
    await Promise.all(Array.from({ length: 20 }, () => outcome(ring.unwrap(wrapped, place))));
    expect(fake.asked.length).toBe(before + 1);
    fake.trouble = "none";
    now += 5_001;
    expect(await outcome(ring.unwrap(wrapped, place))).toBe(32);
    expect(await Promise.all([ring.unwrap(wrapped, place), ring.unwrap(wrapped, place)].map(outcome))).toEqual([32, 32]);
  });

  test("keeps a whole service going: it starts, seals, rotates to another key of the service, and survives an outage with what is cached", async () => {
    await using database = await freshDatabase();
    const { CREDENTIALS_MASTER_KEYS: _, ...plain } = serviceEnv(database, { ...QUICK, CREDENTIALS_KEY_CACHE_SECONDS: "2", ...provider.settings(fake), CREDENTIALS_KMS_TIMEOUT_MS: "400", CREDENTIALS_KMS_KEYS: "k1=one,k2=two", CREDENTIALS_PRIMARY_KEY_ID: "k1", CREDENTIALS_REST_RESOLVE: "on" });
    await using service = await startService(plain);
    const organization = randomUUID();
    const [user, machine] = [await token("user", organization), await token("service_account", organization)];
    const body = { provider: "google", credential_type: "api_key", credentials: { api_key: "canary-api-key" } };
    const { json } = await rest(service, "POST", "/integrations/credentials", { token: user, body });
    using admin = await adminOf(service);
    // An outage in the middle of a rotation makes no row a broken one: it goes on when the service answers again.
    fake.trouble = "throttled";
    const { rotation } = await admin.rotateMasterKey({ masterKeyId: "k2" });
    await expect.poll(() => service.output(), { timeout: 10_000 }).toContain("a rotation was interrupted; it goes on by itself");
    expect((await admin.getRotation({ rotationId: rotation?.id ?? "" })).rotation).toMatchObject({ state: State.ROTATION_STATE_RUNNING, rowsLeft: 1n, rowsFailed: 0n });
    fake.trouble = "none";
    expect(await reaches(admin, rotation?.id ?? "", State.ROTATION_STATE_PROVEN)).toMatchObject({ rowsMoved: 1n, rowsFailed: 0n });
    const resolve = () => rest(service, "GET", `/integrations/credentials/${json.id}/credentials`, { token: machine });
    await expect.poll(async () => (await resolve()).status).toBe(200);
    fake.trouble = "broken";
    // With the cache's age over, the key has to be unwrapped again.
    await expect.poll(async () => (await resolve()).status, { timeout: 10_000 }).toBe(503);
    fake.trouble = "none";
    await expect.poll(async () => (await resolve()).status, { timeout: 15_000 }).toBe(200);
    expect(service.output()).not.toContain("canary");
    fake.trouble = "forbidden";
    const { ended, output } = spawnService(plain);
    expect(await ended).toBe(1);
    expect(output()).toContain('master key "k1" is kept by a key service that does not answer');
  }, 60_000);
});

test("the environment is no second source beside a key service", async () => {
  await using database = await freshDatabase();
  const settings = { CREDENTIALS_KMS: "transit", CREDENTIALS_KMS_KEYS: "k1=one", CREDENTIALS_KMS_TRANSIT_URL: "http://127.0.0.1:1", CREDENTIALS_KMS_TRANSIT_TOKEN: TOKEN };
  const both = spawnService(serviceEnv(database, settings));
  expect([await both.ended, both.output()]).toEqual([1, expect.stringContaining("CREDENTIALS_MASTER_KEYS and CREDENTIALS_KMS are both set")]);
});

test("an installation moves from keys of its own to a key service, and the environment is then no longer needed", async () => {
  await using fake = await transitFake(TOKEN);
  await using database = await freshDatabase();
  const keys = newMasterKeys("own");
  const own = keySettings(keys, "own");
  const organization = randomUUID();
  const body = { provider: "google", credential_type: "api_key", credentials: { api_key: "k" } };
  let id = "";
  {
    await using before = await startService(serviceEnv(database, own));
    id = (await rest(before, "POST", "/integrations/credentials", { token: await token("user", organization), body })).json.id;
  }
  const { CREDENTIALS_MASTER_KEYS: _, ...plain } = serviceEnv(database, { ...QUICK, ...PROVIDERS["transit"]?.settings(fake), CREDENTIALS_KMS_KEYS: "bao=one", CREDENTIALS_PRIMARY_KEY_ID: "bao", CREDENTIALS_REST_RESOLVE: "on" });
  const machine = await token("service_account", organization);
  const status = async (service: Parameters<typeof rest>[0]) => (await rest(service, "GET", `/integrations/credentials/${id}/credentials`, { token: machine })).status;
  const early = spawnService(plain);
  expect([await early.ended, early.output()]).toEqual([1, expect.stringContaining('master key "own" is not loaded, and 1 row(s)')]);
  {
    await using between = await startService({ ...plain, CREDENTIALS_KMS_FORMER_MASTER_KEYS: own["CREDENTIALS_MASTER_KEYS"] as string });
    expect(await status(between)).toBe(200);
    using admin = await adminOf(between);
    const { rotation } = await admin.rotateMasterKey({ masterKeyId: "bao" });
    await reaches(admin, rotation?.id ?? "", State.ROTATION_STATE_PROVEN);
    await admin.retireRotatedKeys({ rotationId: rotation?.id ?? "" });
  }
  await using after = await startService(plain);
  expect(await status(after)).toBe(200);
});

test("a file of keys is read again on SIGHUP; one that cannot be right changes nothing", async () => {
  await using database = await freshDatabase();
  using folder = temporaryFolder();
  const file = join(folder.path, "keys");
  const keys = newMasterKeys("k1", "k2");
  const write = (...ids: (keyof typeof keys)[]) => writeFileSync(file, `${keySettings(keys, "k1", ids)["CREDENTIALS_MASTER_KEYS"]}\n`, { mode: 0o600 });
  write("k1");
  const { CREDENTIALS_MASTER_KEYS: _, ...env } = serviceEnv(database, { ...QUICK, CREDENTIALS_MASTER_KEYS_FILE: file, CREDENTIALS_PRIMARY_KEY_ID: "k1" });
  await using service = await startService(env);
  using admin = await adminOf(service);
  const body = { provider: "google", credential_type: "api_key", credentials: { api_key: "k" } };
  expect((await rest(service, "POST", "/integrations/credentials", { token: await token("user", randomUUID()), body })).status).toBe(201);
  const loaded = async () => (await admin.getKeyStatus({})).replicas.map(({ masterKeyIds }) => masterKeyIds.join());
  const reload = (...ids: (keyof typeof keys)[]) => {
    write(...ids);
    service.process.kill("SIGHUP");
  };
  reload("k1", "k2");
  await expect.poll(loaded, { timeout: 10_000 }).toEqual(["k1,k2"]);
  writeFileSync(file, "k1:nonsense\n");
  service.process.kill("SIGHUP");
  await expect.poll(() => service.output(), { timeout: 10_000 }).toContain("the master keys were not loaded again");
  expect(await loaded()).toEqual(["k1,k2"]);
  const { rotation } = await admin.rotateMasterKey({ masterKeyId: "k2" });
  await reaches(admin, rotation?.id ?? "", State.ROTATION_STATE_PROVEN);
  for (const key of Object.values(keys)) expect(service.output()).not.toContain(key);
});
