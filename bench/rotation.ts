/**
 * Measures the rotation of keys beside its two floors, in one run and on the same rows: what the cryptography alone takes,
 * and what PostgreSQL alone takes to rewrite the rows in one statement. Whatever the machine, the two together are what a
 * rotation without overlap cannot beat. And beside a loop that reads, seals and writes one row at a time.
 *
 * Overlapping needs two cores that are free. Where others use them, the times say what the others left; therefore the CPU time
 * of this process (PostgreSQL's is not in it) and the load of the machine are told as well.
 *
 *   npm run bench -- rotation [--rows 100000] [--rounds 3]
 */
import { randomBytes, randomUUID } from "node:crypto";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { signDevelopmentToken } from "../src/auth/development.ts";
import { createAdminClient } from "../src/client/admin.ts";
import { resealBatch, rewrapBatch } from "../src/crypto/move.ts";
import type { AuditEvent } from "../src/domain/access.ts";
import { NIL_UUID } from "../src/domain/credential.ts";
import { secret } from "../src/domain/secret.ts";
import { FIRST_KEY, type SealedRow, type WrappedRow } from "../src/store/rotation-rows.ts";
import { Hold } from "../src/vault/rotation-hold.ts";
import { moveKeys, moveSecrets } from "../src/vault/rotation-pass.ts";
import { run } from "./lib/load.ts";
import { resolveCredential } from "./lib/loads.ts";
import { compiled, startMeasured } from "./lib/process.ts";
import { median } from "./lib/report.ts";
import { type RotationData, rotationData } from "./lib/rotation-data.ts";
import { serviceEnvironment, World } from "./lib/world.ts";

const { values: args } = parseArgs({ options: { rows: { type: "string", default: "100000" }, rounds: { type: "string", default: "3" } }, allowPositionals: true });
const [rows, rounds] = [Number(args.rows), Number(args.rounds)];
if (!(Number.isInteger(rows) && rows >= 1_000 && Number.isInteger(rounds) && rounds > 0)) throw new Error("--rows must be at least 1000 and --rounds positive");

const BATCH = 1_000;
/** Rows of the loop that goes row by row; it is slow, and its time for one row does not change. */
const ONE_BY_ONE = Math.min(2_000, Math.floor(rows / 10));
/** Rows in a second while calls are measured beside a rotation. */
const THROTTLE = 500;
const MEASURE_SECONDS = 8;

/** Time of one row in µs, by what was done. */
interface Round {
  readonly crypto: number;
  readonly database: number;
  readonly rotation: number;
  readonly oneByOne: number;
  /** CPU time of this process during the cryptography alone, and during the rotation. */
  readonly cryptoCpu: number;
  readonly rotationCpu: number;
  /** Most memory of this process while it rotated, MB. */
  readonly megabytes: number;
}

/** Collects garbage, so that what is measured next does not inherit it. */
const collect: () => void = (() => {
  setFlagsFromString("--expose-gc");
  return runInNewContext("gc") as () => void;
})();

/** CPU time of this process since its start, in µs. */
const cpu = (): number => {
  const { user, system } = process.cpuUsage();
  return user + system;
};

/** Work on each page, with the time and the CPU time of it alone, without what reads the pages; in µs of one row. */
async function timed<Row>(pages: AsyncIterable<Row[]>, work: (page: Row[]) => Promise<unknown>): Promise<{ time: number; cpu: number; first: Row[] }> {
  let [time, used] = [0, 0];
  const first: Row[] = [];
  for await (const page of pages) {
    const [begun, before] = [performance.now(), cpu()];
    await work(page);
    time += (performance.now() - begun) * 1_000;
    used += cpu() - before;
    if (first.length < ONE_BY_ONE) first.push(...page.slice(0, ONE_BY_ONE - first.length));
  }
  return { time: time / rows, cpu: used / rows, first };
}

/** What a rotation takes of one row, and how much memory the process has meanwhile. */
async function rotate(count: number, work: () => Promise<unknown>): Promise<Pick<Round, "rotation" | "rotationCpu" | "megabytes">> {
  let [rotation, before] = [0, 0];
  const megabytes = await memory(async () => {
    before = cpu();
    rotation = await micros(count, work);
  });
  return { rotation, rotationCpu: (cpu() - before) / count, megabytes };
}

const micros = async (count: number, work: () => Promise<unknown>): Promise<number> => {
  const begun = performance.now();
  await work();
  return ((performance.now() - begun) * 1_000) / count;
};

const audit = (organizationId: string): AuditEvent => ({
  organizationId, requestId: "01JD8Z3NDEKTSV4RRFFQ69G5FA", actorKind: "operator", actorId: "bench", action: "rotate_master_key", outcome: "allowed",
  reason: null, credentialId: null, flowId: null, runId: null,
});

/** Runs work and gives how much memory the process had at most, MB. */
async function memory(work: () => Promise<void>): Promise<number> {
  collect();
  let most = 0;
  const timer = setInterval(() => (most = Math.max(most, process.memoryUsage().rss)), 20);
  await work();
  clearInterval(timer);
  return Math.max(most, process.memoryUsage().rss) / 2 ** 20;
}

/** PostgreSQL alone: every row rewritten in one statement, and taken back. */
async function databaseAlone({ superuser }: RotationData, table: string, statement: string, values: unknown[]): Promise<number> {
  await superuser.query(`vacuum ${table}`);
  await superuser.query("checkpoint");
  await superuser.query("begin");
  const time = await micros(rows, () => superuser.query(statement, values));
  await superuser.query("rollback");
  await superuser.query(`vacuum ${table}`);
  await superuser.query("checkpoint");
  return time;
}

async function held(data: RotationData, id: string): Promise<Hold> {
  const holder = randomUUID();
  const rotation = await data.store.rotations.claim(holder, 600_000);
  if (rotation?.id !== id) throw new Error("another rotation was claimed");
  return new Hold(data.store.rotations, rotation, { holder, leaseMs: 600_000, stop: new AbortController().signal });
}

/** Credentials of one organization, sealed anew under a new key of it. */
async function credentialRound(data: RotationData): Promise<Round> {
  const { store, envelope, organizationId, superuser } = data;
  const version = ((await store.organizationKeys.newestVersion(organizationId)) ?? 0) + 1;
  const id = randomUUID();
  const key = await envelope.keys.draw({ organizationId, version });
  await store.rotations.begin.organizationKey({ id, rowsPerSecond: null, startedBy: "bench", rollsBack: null, key }, audit(organizationId));
  envelope.evict(organizationId);
  const database = await databaseAlone(data, "credential", "update credential set sealed = set_byte(sealed, 6, $2) where organization_id = $1", [organizationId, version]);
  async function* pages(): AsyncGenerator<SealedRow[]> {
    for (let page = await store.rotationRows.secrets("credential", organizationId, NIL_UUID, BATCH); page.length > 0; ) {
      yield page;
      page = await store.rotationRows.secrets("credential", organizationId, page.at(-1)?.place.credentialId ?? "", BATCH);
    }
  }
  const { time: crypto, cpu: cryptoCpu, first: slow } = await timed(pages(), (page) => resealBatch(envelope.keys, organizationId, version, page));
  const oneByOne = await micros(slow.length, async () => {
    for (const { place } of slow) {
      const { rows: [row] } = await superuser.query("select sealed from credential where organization_id = $1 and id = $2", [organizationId, place.credentialId]);
      const [moved] = await resealBatch(envelope.keys, organizationId, version, [{ place, sealed: row.sealed }]);
      if (!moved || !("value" in moved)) throw new Error("a row did not open");
      await superuser.query("update credential set sealed = $3 where organization_id = $1 and id = $2 and secret_version = $4", [organizationId, place.credentialId, moved.value, place.secretVersion]);
    }
  });
  const hold = await held(data, id);
  const moved = await rotate(rows - slow.length, () => moveSecrets({ rows: store.rotationRows, keys: envelope.keys, ring: data.ring }, hold, organizationId, version));
  await hold.conclude("proving");
  await hold.conclude("incomplete");
  await finish(data, id);
  return { crypto, cryptoCpu, database, oneByOne, ...moved };
}

/** Organization keys, one of each organization, wrapped anew under the other master key. */
async function keyRound(data: RotationData): Promise<Round> {
  const { store, ring, superuser } = data;
  const to = ring.primaryId === "k1" ? "k2" : "k1";
  const id = randomUUID();
  await store.rotations.begin.masterKey({ id, rowsPerSecond: null, startedBy: "bench", rollsBack: null, masterKeyId: to }, audit("00000000-0000-0000-0000-000000000000"));
  ring.assign({ primaryId: to, retiredIds: [] });
  const database = await databaseAlone(data, "organization_key", "update organization_key set wrapped = set_byte(wrapped, 5, ascii(right($1, 1))), master_key_id = $1", [to]);
  await superuser.query("vacuum organization_key_place");
  async function* pages(): AsyncGenerator<WrappedRow[]> {
    for (let page = await store.rotationRows.keysNotUnder(to, FIRST_KEY, BATCH); page.length > 0; ) {
      yield page;
      page = await store.rotationRows.keysNotUnder(to, page.at(-1) ?? FIRST_KEY, BATCH);
    }
  }
  const { time: crypto, cpu: cryptoCpu, first: slow } = await timed(pages(), (page) => rewrapBatch(ring, to, page));
  const oneByOne = await micros(slow.length, async () => {
    for (const { organizationId, version } of slow) {
      const { rows: [row] } = await superuser.query("select wrapped, commitment from organization_key where organization_id = $1 and version = $2", [organizationId, version]);
      const [moved] = await rewrapBatch(ring, to, [{ organizationId, version, wrapped: row.wrapped, commitment: row.commitment }]);
      if (!moved || !("value" in moved)) throw new Error("a key did not open");
      await superuser.query("update organization_key set wrapped = $3, master_key_id = $4 where organization_id = $1 and version = $2", [organizationId, version, moved.value, to]);
    }
  });
  const hold = await held(data, id);
  const moved = await rotate(rows - slow.length, () => moveKeys({ rows: store.rotationRows, keys: data.envelope.keys, ring }, hold, to));
  await hold.conclude("proving");
  await hold.conclude("incomplete");
  await finish(data, id);
  return { crypto, cryptoCpu, database, oneByOne, ...moved };
}

/** Ends a rotation whose proof is not measured, so that the next may begin. */
async function finish({ superuser }: RotationData, id: string): Promise<void> {
  await superuser.query("update rotation set state = 'retired' where id = $1", [id]);
}

function report(name: string, all: readonly Round[]): void {
  const middle = (pick: (round: Round) => number) => median(all.map(pick));
  const seconds = (value: number) => ((value * rows) / 1e6).toFixed(2);
  const share = middle((round) => (round.crypto + round.database) / round.rotation);
  process.stdout.write(
    `${name}, ${rows} rows, median of ${all.length}:\n` +
      `  cryptography alone ${seconds(middle(({ crypto }) => crypto))} s, PostgreSQL alone ${seconds(middle(({ database }) => database))} s, rotation ${seconds(middle(({ rotation }) => rotation))} s` +
      ` (${(1e6 / middle(({ rotation }) => rotation)).toFixed(0)} rows/s), row by row ${seconds(middle(({ oneByOne }) => oneByOne))} s\n` +
      `  (cryptography + PostgreSQL) / rotation: ${(share * 100).toFixed(0)} % (goal 90 %); row by row / rotation: ${middle((round) => round.oneByOne / round.rotation).toFixed(1)} x (goal 12 x)\n` +
      `  CPU time of this process: cryptography alone ${seconds(middle(({ cryptoCpu }) => cryptoCpu))} s, rotation ${seconds(middle(({ rotationCpu }) => rotationCpu))} s; load of the machine ${loadavg()[0]?.toFixed(1)} on ${cpus().length} cores\n` +
      `  memory of this process, at most: ${all.map(({ megabytes }) => megabytes.toFixed(0)).join(", ")} MB in the rounds\n`,
  );
}

/** The p99 of resolve calls in a quiet service and beside a throttled rotation, in turn. */
async function besideCalls(data: RotationData, folder: string): Promise<void> {
  const jwtSecret = randomBytes(32).toString("base64url");
  const env = { ...serviceEnvironment(join(folder, "unused"), jwtSecret), CREDENTIALS_DATABASE_URL: data.applicationUrl, CREDENTIALS_MASTER_KEYS: data.masterKeys, CREDENTIALS_PRIMARY_KEY_ID: "k1" };
  const server = await startMeasured(compiled("src/main.ts"), env, join(folder, "log"));
  try {
    const world = await World.make(jwtSecret);
    await world.fill(server);
    const token = await signDevelopmentToken({ secret: secret(jwtSecret), issuer: "flow-credentials-dev", audience: "flow-credentials-operator", subject: "bench", organizationId: null, kind: "operator", expiresInSeconds: 3_600 });
    using admin = createAdminClient({ target: server.target, token, tls: undefined, deadlineMs: 15_000 });
    const load = resolveCredential(world, server);
    await run(load, 16, MEASURE_SECONDS);
    const { rotation } = await admin.rotateOrganizationKey({ organizationId: data.organizationId, rowsPerSecond: THROTTLE });
    const rotationId = rotation?.id ?? "";
    const ratios: number[] = [];
    for (let round = 0; round < rounds; round++) {
      await admin.controlRotation({ rotationId, paused: true });
      await sleep(1_000);
      const quiet = await run(load, 16, MEASURE_SECONDS);
      await admin.controlRotation({ rotationId, paused: false });
      await sleep(1_000);
      const busy = await run(load, 16, MEASURE_SECONDS);
      ratios.push(busy.p99Ms / quiet.p99Ms);
      process.stdout.write(`  resolve p99 quiet ${quiet.p99Ms.toFixed(2)} ms, beside ${THROTTLE} rows/s ${busy.p99Ms.toFixed(2)} ms (p50 ${quiet.p50Ms.toFixed(2)} and ${busy.p50Ms.toFixed(2)} ms, ${quiet.rate.toFixed(0)} and ${busy.rate.toFixed(0)} calls/s)\n`);
    }
    process.stdout.write(`resolve p99 beside a rotation of ${THROTTLE} rows/s / quiet: ${median(ratios).toFixed(2)} x (goal 1.5 x)\n`);
  } finally {
    await server.stop();
  }
}

const folder = mkdtempSync(join(tmpdir(), "flow-credentials-bench-"));
chmodSync(folder, 0o755);
try {
  await using data = await rotationData(join(folder, "data"), rows);
  process.stderr.write("filled\n");
  const [credentials, keys]: [Round[], Round[]] = [[], []];
  for (let round = 1; round <= rounds; round++) {
    credentials.push(await credentialRound(data));
    keys.push(await keyRound(data));
    process.stderr.write(`round ${round} of ${rounds}\n`);
  }
  report("credentials under a new organization key", credentials);
  report("organization keys under another master key", keys);
  await besideCalls(data, folder);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
