import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { RotationState as State } from "../../gen/flow/credentials/v1/admin_service.ts";
import type { AdminClient } from "../../src/client/admin.ts";
import { adminOf, keySettings, newMasterKeys, QUICK } from "../support/admin.ts";
import { connect, type FreshDatabase, freshDatabase } from "../support/postgres.ts";
import { envelopeOf, ringOf, storeMany } from "../support/rotation.ts";
import { rest, type Service, serviceEnv, startService, token } from "../support/service.ts";
import { openTestStore } from "../support/store.ts";

const LONG = process.env["FLOW_TEST_LONG"] !== undefined;
const ROWS = LONG ? 100_000 : 600;
const KILLS = LONG ? 50 : 3;
/** Slow enough that every kill comes while rows are being moved. */
const ROWS_PER_SECOND = LONG ? 1_200 : 150;
const OTHERS = LONG ? 300 : 20;

const KEYS = newMasterKeys("k1", "k2");
const ORGANIZATION = randomUUID();
let database: FreshDatabase;
let env: Record<string, string>;
const replicas: (Service | undefined)[] = [];
let ids: string[] = [];

beforeAll(async () => {
  database = await freshDatabase();
  env = serviceEnv(database, {
    ...QUICK, ...keySettings(KEYS, "k1"), CREDENTIALS_REST_RESOLVE: "on", CREDENTIALS_LIMIT_PER_PROVIDER: "1000000", CREDENTIALS_LIMIT_PER_USER: "1000000", CREDENTIALS_LOG_LEVEL: "warn",
  });
  replicas.push(await startService(env), await startService(env), await startService(env));
  await using store = await openTestStore(database.applicationUrl);
  const envelope = envelopeOf(store, ringOf(KEYS, "k1"));
  ids = await storeMany(database.superuserUrl, envelope, ORGANIZATION, ROWS);
  for (let n = 0; n < OTHERS; n++) await storeMany(database.superuserUrl, envelope, randomUUID(), 1);
}, 300_000);
afterAll(async () => {
  await Promise.all(replicas.map((replica) => replica?.stop()));
  await database[Symbol.asyncDispose]();
});

type Answer = Awaited<ReturnType<typeof rest>>;

/** Calls any replica that is there, and another one where it dies meanwhile, as a client behind a balancer does. */
async function anywhere(...call: Parameters<typeof rest> extends [unknown, ...infer Rest] ? Rest : never): Promise<Answer> {
  for (;;) {
    const alive = replicas.filter((replica) => replica !== undefined);
    const chosen = alive[Math.floor(Math.random() * alive.length)];
    if (chosen === undefined) await sleep(20);
    else {
      try {
        const answer = await rest(chosen, ...call);
        // REST says so while its own gRPC side is being killed.
        if (answer.status !== 503 || replicas.includes(chosen)) return answer;
      } catch {
        await sleep(5);
      }
    }
  }
}

/** Kills a replica at a random moment and starts another in its place, again and again. */
async function killing(kills: number): Promise<void> {
  for (let n = 0; n < kills; n++) {
    await sleep(200 + Math.random() * 900);
    const at = Math.floor(Math.random() * replicas.length);
    const victim = replicas[at];
    replicas[at] = undefined;
    await victim?.stop("SIGKILL");
    replicas[at] = await startService(env);
  }
}

test(`${ROWS} rows and ${OTHERS + 1} keys are moved under continuous load with ${KILLS} kills: no read fails, nothing is left, nothing is lost`, async () => {
  const [user, machine] = [await token("user", ORGANIZATION, ORGANIZATION, 36_000), await token("service_account", ORGANIZATION, undefined, 36_000)];
  const body = (password: string) => ({ provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password } });
  const begin = async <T>(work: (admin: AdminClient) => Promise<T>): Promise<T> => {
    using admin = await adminOf(replicas[0] as Service);
    return await work(admin);
  };
  const rotations = await begin(async (admin) => [
    (await admin.rotateOrganizationKey({ organizationId: ORGANIZATION, rowsPerSecond: ROWS_PER_SECOND })).rotation?.id ?? "",
    (await admin.rotateMasterKey({ masterKeyId: "k2", rowsPerSecond: Math.max(1, Math.floor(OTHERS / 6)) })).rotation?.id ?? "",
  ]);
  const stopped = new AbortController();
  const failed: string[] = [];
  let reads = 0;
  /** Each lane writes to its own rows and reads everybody's; what another lane may have changed by now is not compared. */
  const LANES = 4;
  const passwords = ids.map((_, n) => `p${n}`);
  /** What each goes back to, where its last change has kept it. */
  const kept = new Map<number, string>();
  const deleted = new Set<number>();
  const lane = async (own: number) => {
    for (let n = 0; !stopped.signal.aborted; n++) {
      const any = Math.floor(Math.random() * ids.length);
      const mine = any - (any % LANES) + own;
      if (mine >= ids.length || deleted.has(mine)) continue;
      const path = `/integrations/credentials/${ids[mine]}`;
      if (n % 10 === 3) {
        // A call whose answer was lost may have taken effect: it is made again under its key, and takes effect once.
        const { provider: _, ...change } = body(`changed-${mine}-${n}`);
        const { status, text } = await anywhere("PATCH", path, { token: user, body: { ...change, keep_previous_seconds: 3_600 }, headers: { "idempotency-key": randomUUID() } });
        if (status === 200) {
          kept.set(mine, passwords[mine] as string);
          passwords[mine] = `changed-${mine}-${n}`;
        } else failed.push(`update ${status} ${text}`);
      } else if (n % 10 === 8 && kept.size > 0) {
        const [back = 0, password = ""] = [...kept].find(([index]) => index % LANES === own && !deleted.has(index)) ?? [];
        if (password === "") continue;
        const { status, text } = await anywhere("POST", `/integrations/credentials/${ids[back]}/rollback`, { token: user, headers: { "idempotency-key": randomUUID() } });
        if (status === 200) passwords[back] = password;
        else failed.push(`rollback ${status} ${text}`);
        kept.delete(back);
      } else if (n % 10 === 6) {
        const created = await anywhere("POST", "/integrations/credentials", { token: user, body: body(`new-${own}-${n}`) });
        if (created.status !== 201) failed.push(`create ${created.status} ${created.text}`);
      } else if (n % 40 === 9) {
        const { status, text } = await anywhere("DELETE", path, { token: user });
        if (status !== 204 && status !== 404) failed.push(`delete ${status} ${text}`);
        deleted.add(mine);
      } else {
        const { status, json, text } = await anywhere("GET", `${path}/credentials`, { token: machine });
        reads++;
        if (status !== 200 || json.password !== passwords[mine]) failed.push(`read ${status} ${text}`);
      }
    }
  };
  const lanes = Array.from({ length: LANES }, (_, own) => lane(own));
  await killing(KILLS);
  for (const id of rotations) {
    for (let state: number | undefined; state !== State.ROTATION_STATE_PROVEN; await sleep(100)) {
      state = await begin(async (admin) => (await admin.getRotation({ rotationId: id })).rotation?.state).catch(() => undefined);
      if (state !== undefined && ![State.ROTATION_STATE_RUNNING, State.ROTATION_STATE_PROVING, State.ROTATION_STATE_PROVEN].some((one) => one === state)) throw new Error(`ended in state ${state}`);
    }
  }
  stopped.abort();
  await Promise.all(lanes);
  expect(failed).toEqual([]);
  expect(reads).toBeGreaterThan(100);
  await using superuser = await connect(database.superuserUrl);
  expect((await superuser.query("select distinct key_version from credential where organization_id = $1", [ORGANIZATION])).rows).toEqual([{ key_version: "2" }]);
  expect((await superuser.query("select count(*)::integer as n from credential_previous where key_version <> 2")).rows).toEqual([{ n: 0 }]);
  expect((await superuser.query("select distinct master_key_id from organization_key")).rows).toEqual([{ master_key_id: "k2" }]);
  const proofs = await superuser.query("select r.id from rotation r join audit_event e on e.flow_id = r.id::text and e.run_id = encode(r.proof, 'hex') and e.action = 'prove_rotation' where r.state = 'proven'");
  expect(proofs.rows.map(({ id }) => id).toSorted()).toEqual(rotations.toSorted());
  const sample = LONG ? 2_000 : ids.length;
  for (let n = 0; n < sample; n++) {
    if (deleted.has(n)) continue;
    const { json } = await anywhere("GET", `/integrations/credentials/${ids[n]}/credentials`, { token: machine });
    expect(json.password).toBe(passwords[n]);
  }
  // What was kept has come through as well.
  for (const [n, password] of [...kept].filter(([index]) => !deleted.has(index)).slice(0, sample)) {
    expect((await anywhere("POST", `/integrations/credentials/${ids[n]}/rollback`, { token: user })).status).toBe(200);
    const { json } = await anywhere("GET", `/integrations/credentials/${ids[n]}/credentials`, { token: machine });
    expect(json.password).toBe(password);
  }
  // Counters are what they count, whatever died when.
  const wrong = await superuser.query(`select from credential_counter k where counter = 'provider:sftp' and n <> (select count(*) from credential c where c.organization_id = k.organization_id and deleted_at is null)`);
  expect(wrong.rows).toEqual([]);
}, LONG ? 1_800_000 : 120_000);
