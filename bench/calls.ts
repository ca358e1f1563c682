/**
 * Measures ResolveCredential and CreateCredential beside an empty grpc-js call, in one run: the same driver (grpc-js, one
 * connection, in this process), one server process each, rounds that alternate. Rates on a shared machine swing; the
 * ratios to the empty call of the same round, and server CPU above all, are what to compare between runs.
 *
 *   npm run bench -- [--seconds 60] [--rounds 3]
 *   npm run bench -- tests     what other calls notice of connection tests; see tests.ts
 *   npm run bench -- refresh   what other calls notice of renewals; see refresh.ts
 */
import { randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { run, type Load, type Sample } from "./lib/load.ts";
import { startMeasured, type Measured } from "./lib/process.ts";
import { median, summarize, table, type Line } from "./lib/report.ts";
import { serviceEnvironment, World } from "./lib/world.ts";
import { besideText } from "./lib/beside.ts";
import { measureRefresh, startProvider } from "./refresh.ts";
import { measureTests, TEST_SETTINGS } from "./tests.ts";

const CONCURRENCY = [1, 16, 64];
const COLD_STARTS = 3;

const { values: args, positionals } = parseArgs({ allowPositionals: true, options: { seconds: { type: "string", default: "60" }, rounds: { type: "string", default: "3" } } });
const [seconds, rounds] = [Number(args.seconds), Number(args.rounds)];
const what = positionals[0] ?? "calls";
if (positionals.length > 1 || !["calls", "tests", "refresh"].includes(what)) throw new Error("there is no such benchmark; see bench/run.ts");
if (!(seconds > 0 && Number.isInteger(rounds) && rounds > 0)) throw new Error("--seconds and --rounds must be positive numbers");

/** Runs every load at every concurrency, side by side, once to warm up and then `rounds` times. */
async function measure(loads: readonly Load[]): Promise<Line[]> {
  const cell = seconds / (loads.length * CONCURRENCY.length * (rounds + 0.5));
  const samples = new Map<string, Sample[]>();
  const key = (load: Load, concurrency: number) => `${load.name} ${concurrency}`;
  for (let round = 0; round <= rounds; round += 1) {
    for (const concurrency of CONCURRENCY) {
      for (const load of loads) {
        const sample = await run(load, concurrency, round === 0 ? cell / 2 : cell);
        if (round > 0) samples.set(key(load, concurrency), [...(samples.get(key(load, concurrency)) ?? []), sample]);
      }
    }
    process.stderr.write(round === 0 ? "warmed up\n" : `round ${round} of ${rounds}\n`);
  }
  const of = (load: Load | undefined, concurrency: number) => (load ? (samples.get(key(load, concurrency)) ?? []) : []);
  return CONCURRENCY.flatMap((concurrency) => loads.map((load) => summarize(load.name, concurrency, of(load, concurrency), of(loads[0], concurrency))));
}

/** Starts on the data that is there: time to `ready`, and memory a second later. */
async function coldStarts(start: () => Promise<Measured>): Promise<{ startMs: number; idleMegabytes: number }> {
  const seen: { startMs: number; idleMegabytes: number }[] = [];
  for (let count = 0; count < COLD_STARTS; count += 1) {
    const service = await start();
    await sleep(1_000);
    seen.push({ startMs: service.startMs, idleMegabytes: service.rssMegabytes() });
    await service.stop();
  }
  return { startMs: median(seen.map(({ startMs }) => startMs)), idleMegabytes: median(seen.map(({ idleMegabytes }) => idleMegabytes)) };
}

const folder = mkdtempSync(join(tmpdir(), "flow-credentials-bench-"));
// The embedded database runs as another user where this one is root.
chmodSync(folder, 0o755);
const running = new Set<Measured>();
async function started(script: string, env: Record<string, string> = {}): Promise<Measured> {
  const server = await startMeasured(script, env, join(folder, "log"));
  const stop = async () => {
    if (running.delete(server)) await server.stop();
  };
  running.add(server);
  return { ...server, stop };
}

/** Resolve beside connection tests. */
async function tests(): Promise<void> {
  const jwtSecret = randomBytes(32).toString("base64url");
  const [service, world] = [await started("src/main.ts", { ...serviceEnvironment(join(folder, "data"), jwtSecret), ...TEST_SETTINGS }), await World.make(jwtSecret)];
  await world.fill(service);
  const report = await measureTests(world, service, seconds, rounds);
  await service.stop();
  process.stdout.write(besideText(`${report.tests} tests`, report));
}

/** Resolve beside renewals. */
async function refresh(): Promise<void> {
  const jwtSecret = randomBytes(32).toString("base64url");
  await using provider = await startProvider();
  const [service, world] = [await started("src/main.ts", { ...serviceEnvironment(join(folder, "data"), jwtSecret), ...provider.settings }), await World.make(jwtSecret)];
  await world.fill(service);
  const report = await measureRefresh(world, service, seconds, rounds);
  await service.stop();
  process.stdout.write(besideText(`${report.renewed} renewals (${provider.calls()} calls of the provider)`, report));
}

/** Resolve and Create beside an empty call, and cold starts. */
async function calls(): Promise<void> {
  const jwtSecret = randomBytes(32).toString("base64url");
  const env = serviceEnvironment(join(folder, "data"), jwtSecret);
  const start = () => started("src/main.ts", env);
  const [service, echo, world] = [await start(), await started("bench/lib/echo-server.ts"), await World.make(jwtSecret)];
  await world.fill(service);
  const lines = await measure([world.echo(echo), world.resolve(service), world.create(service)]);
  await Promise.all([echo.stop(), service.stop()]);
  const cold = await coldStarts(start);
  process.stdout.write(`\n${table(lines)}\n\ncold start to ready ${cold.startMs.toFixed(0)} ms, idle RSS ${cold.idleMegabytes.toFixed(0)} MB (medians of ${COLD_STARTS})\n`);
  mkdirSync("bench/results", { recursive: true });
  const date = new Date().toISOString();
  const machine = { node: process.version, cpu: cpus()[0]?.model, cores: cpus().length, memoryGiB: Math.round(totalmem() / 2 ** 30) };
  const file = `bench/results/${date.slice(0, 10)}.json`;
  writeFileSync(file, `${JSON.stringify({ date, machine, driver: "grpc-js, one connection", seconds, rounds, lines, cold }, null, 2)}\n`);
  process.stdout.write(`written to ${file}\n`);
  if (lines.some(({ errors }) => errors > 0)) process.exitCode = 1;
}

try {
  await { calls, tests, refresh }[what as "calls" | "tests" | "refresh"]();
} finally {
  for (const server of running) await server.stop().catch(() => undefined);
  rmSync(folder, { recursive: true, force: true });
}
