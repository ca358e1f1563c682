/**
 * Measures the client's cache: a resolve from memory beside one that asks, in the same rounds, and how long after a change was
 * acknowledged by one replica a client of another is told of it.
 *
 *   npm run bench -- client-cache [--rounds 5] [--changes 300]
 */
import { randomBytes, randomUUID } from "node:crypto";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { signDevelopmentToken } from "../src/auth/development.ts";
import { createCredentialClient, CredentialType, Provider } from "../src/client/index.ts";
import { secret } from "../src/domain/secret.ts";
import { compiled, startMeasured } from "./lib/process.ts";
import { median } from "./lib/report.ts";
import { serviceEnvironment } from "./lib/world.ts";

const { values: args } = parseArgs({ options: { rounds: { type: "string", default: "5" }, changes: { type: "string", default: "300" } }, allowPositionals: true });
const [rounds, changes] = [Number(args.rounds), Number(args.changes)];
if (!(Number.isInteger(rounds) && rounds > 0 && Number.isInteger(changes) && changes > 0)) throw new Error("--rounds and --changes must be positive");

/** Secrets in the cache; calls of one round, from memory and by asking. */
const CREDENTIALS = 500;
const CACHED = 200_000;
const ASKED = 300;
/** What the goals are. */
const GOAL = { cachedMicros: 5, delayMs: 1_000 } as const;

const folder = mkdtempSync(join(tmpdir(), "flow-credentials-bench-"));
chmodSync(folder, 0o711);
try {
  const jwtSecret = randomBytes(32).toString("hex");
  const env = { ...serviceEnvironment(join(folder, "data"), jwtSecret), CREDENTIALS_RATE_WRITES_PER_CALLER: "100000", CREDENTIALS_RATE_WRITES_PER_ORGANIZATION: "100000" };
  const first = await startMeasured(compiled("src/main.ts"), env, join(folder, "first.log"));
  const second = await startMeasured(compiled("src/main.ts"), env, join(folder, "second.log"));
  const organizationId = randomUUID();
  const bearer = (kind: "user" | "service_account") =>
    signDevelopmentToken({ secret: secret(jwtSecret), issuer: "flow-credentials-dev", audience: "flow-credentials", subject: randomUUID(), organizationId, kind, expiresInSeconds: 3_600 });
  const user = createCredentialClient({ target: first.target, token: await bearer("user") });
  const client = createCredentialClient({ target: second.target, token: await bearer("service_account"), cache: {} });
  const plain = createCredentialClient({ target: second.target, token: await bearer("service_account") });
  const secretOf = () => ({ host: "sftp.example.com", username: "reports", password: randomUUID() });
  const ids: string[] = [];
  for (let n = 0; n < CREDENTIALS; n += 1) {
    const { credential } = await user.createCredential({ provider: Provider.PROVIDER_SFTP, credentialType: CredentialType.CREDENTIAL_TYPE_USER_PASSWORD, credentials: secretOf() });
    ids.push(credential?.id ?? "");
  }
  const cache = client.cache;
  if (!cache) throw new Error("the client has no cache");
  await cache.ready();
  const id = (n: number): string => ids[n % CREDENTIALS] as string;
  const each = async (count: number, call: (n: number) => Promise<unknown>): Promise<number> => {
    const begun = performance.now();
    for (let n = 0; n < count; n += 1) await call(n);
    return ((performance.now() - begun) * 1_000) / count;
  };
  for (const credentialId of ids) await client.resolveCredential({ credentialId });
  const samples = { cached: [] as number[], named: [] as number[], asked: [] as number[] };
  await each(CACHED, (n) => client.resolveCredential({ credentialId: id(n) }));
  const misses = cache.status().misses;
  for (let round = 0; round < rounds; round += 1) {
    samples.cached.push(await each(CACHED, (n) => client.resolveCredential({ credentialId: id(n) })));
    samples.named.push(await each(CACHED, (n) => client.resolveCredential({ credentialId: id(n) }, { flowId: "invoices", runId: `run-${n % 50}` })));
    samples.asked.push(await each(ASKED, (n) => plain.resolveCredential({ credentialId: id(n) })));
    process.stderr.write(`round ${round + 1} of ${rounds}\n`);
  }
  const askedByCache = cache.status().misses - misses;

  const arrived = new Map<bigint, number>();
  const over = new AbortController();
  const reading = (async () => {
    for await (const { message } of plain.watchCredentials({ position: "" }, { signal: over.signal })) if (message?.$case === "event") arrived.set(message.value.secretVersion, performance.now());
  })().catch(() => {});
  await sleep(1_000);
  const delays: number[] = [];
  for (let n = 0; n < changes; n += 1) {
    await user.updateCredential({ credentialId: ids[0] as string, credentialType: CredentialType.CREDENTIAL_TYPE_USER_PASSWORD, credentials: secretOf(), etag: "" });
    const [version, done] = [BigInt(n + 2), performance.now()];
    while (!arrived.has(version)) await sleep(1);
    delays.push((arrived.get(version) as number) - done);
    await sleep(Math.random() * 50);
  }
  over.abort();
  await reading;
  const sorted = delays.toSorted((a, b) => a - b);
  const at = (part: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] as number;
  const report = {
    at: new Date().toISOString(), node: process.version, cpu: cpus()[0]?.model, cores: cpus().length,
    cachedMicros: median(samples.cached), cachedWithFlowMicros: median(samples.named), askedMicros: median(samples.asked), askedByCache,
    told: { changes, p50Ms: at(0.5), p99Ms: at(0.99), mostMs: sorted.at(-1) }, goals: GOAL,
  };
  mkdirSync("bench/results", { recursive: true });
  writeFileSync(`bench/results/client-cache-${report.at.slice(0, 10)}.json`, `${JSON.stringify(report, null, 2)}\n`);
  process.stdout.write(
    [
      "resolve                      µs per call",
      `from memory                  ${report.cachedMicros.toFixed(2).padStart(11)}   goal: under ${GOAL.cachedMicros}`,
      `from memory, flow and run    ${report.cachedWithFlowMicros.toFixed(2).padStart(11)}`,
      `asked                        ${report.askedMicros.toFixed(0).padStart(11)}`,
      `calls to the service by ${rounds * 2 * CACHED} resolves from memory: ${askedByCache}`,
      "",
      `told by another replica after ${changes} changes: p50 ${report.told.p50Ms.toFixed(0)} ms, p99 ${report.told.p99Ms.toFixed(0)} ms, most ${report.told.mostMs?.toFixed(0)} ms   goal: p99 under ${GOAL.delayMs}`,
      "",
    ].join("\n"),
  );
  for (const each of [user, client, plain]) await each[Symbol.asyncDispose]();
  await second.stop();
  await first.stop();
} finally {
  rmSync(folder, { recursive: true, force: true });
}
