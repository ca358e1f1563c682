/**
 * Measures every kind of call beside an empty grpc-js call, and REST beside a bare `node:http` server, in one run: one server
 * process each, rounds that alternate. Rates on a shared machine swing; the ratios to the empty call of the same round, and
 * server CPU above all, are what to compare between runs.
 *
 * gRPC is driven by h2load, where it is installed, and by grpc-js, one connection for each 64 calls in flight; REST by h2load, or
 * else by `node:http`, a connection for each. h2load repeats one request, so its creations are all of one organization.
 *
 *   npm run bench -- [--seconds 300] [--rounds 3] [--concurrency 1,16,64,256] [--drivers h2load,grpc-js] [--reference]
 *
 * With --reference the results and the chart are kept in docs/ as well, to be committed.
 */
import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { chart } from "./lib/chart.ts";
import { bareInserts, createBesideInserts, warmAuthentication } from "./lib/floors.ts";
import { goalsTable, type Results } from "./lib/goals.ts";
import { h2loadVersion, runH2load, runH2loadHttp } from "./lib/h2load.ts";
import { type HttpLoad, runHttp } from "./lib/http-load.ts";
import { type Load, run } from "./lib/load.ts";
import * as loads from "./lib/loads.ts";
import { refusedCalls } from "./lib/metrics.ts";
import type { Measured } from "./lib/process.ts";
import { median, table } from "./lib/report.ts";
import { type Group, measure, type Row } from "./lib/rounds.ts";
import { machine, newestResult, Session, writeResult } from "./lib/session.ts";
import { serviceEnvironment, World } from "./lib/world.ts";

const COLD_STARTS = 5;
const INSERTS = "one-row insert";

const { values: args } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: "string", default: "300" }, rounds: { type: "string", default: "3" },
    concurrency: { type: "string", default: "1,16,64,256" }, drivers: { type: "string", default: "h2load,grpc-js" },
    reference: { type: "boolean", default: false },
  },
});
const [seconds, rounds] = [Number(args.seconds), Number(args.rounds)];
const concurrency = args.concurrency.split(",").map(Number);
if (!(seconds > 0 && Number.isInteger(rounds) && rounds > 0)) throw new Error("--seconds and --rounds must be positive numbers");
if (!concurrency.every((inFlight) => Number.isInteger(inFlight) && inFlight > 0)) throw new Error("--concurrency is a list of numbers");

const version = h2loadVersion();
const drivers = args.drivers.split(",").filter((driver) => driver !== "h2load" || version !== undefined);
if (version === undefined) process.stderr.write("h2load is not there (Debian: nghttp2-client); the goals are set for it\n");

const grpcRow = (load: Load, driver: string): Row => ({ method: load.name, run: (inFlight, time) => (driver === "h2load" ? runH2load : run)(load, inFlight, time) });
const httpRow = (load: HttpLoad): Row => ({ method: load.name, run: (inFlight, time) => (version === undefined ? runHttp : runH2loadHttp)(load, inFlight, time) });

function groupsOf(world: World, service: Measured, empty: Measured, http: Measured, insert: Row): Group[] {
  const grpc = drivers.map((driver): Group => {
    const every = [loads.resolveCredential, loads.resolveOAuth, loads.listCredentials, loads.createCredential];
    // h2load repeats one request, and so mixes nothing.
    const these = driver === "h2load" ? every : [...every, loads.mixedCalls];
    return { driver, concurrency, rows: [grpcRow(loads.emptyCall(world, empty), driver), ...these.map((load) => grpcRow(load(world, service), driver))] };
  });
  const httpDriver = version === undefined ? "node:http" : "h2load, HTTP/1.1";
  return [
    ...grpc.slice(0, 1),
    { driver: "pg", concurrency: [1], rows: [insert] },
    ...grpc.slice(1),
    { driver: httpDriver, concurrency, rows: [httpRow(loads.httpEcho(world, http, "GET")), httpRow(loads.restRead(world, service))] },
    { driver: httpDriver, concurrency, rows: [httpRow(loads.httpEcho(world, http, "POST")), httpRow(loads.restCreate(world, service))] },
  ];
}

/** Starts on the data that is there, beside the bare server: time to `ready`, and memory a second later. */
async function coldStarts(session: Session, env: Record<string, string>): Promise<Results["cold"]> {
  const seen: { startMs: number; bareMs: number; ratio: number; idleMegabytes: number }[] = [];
  for (let count = 0; count < COLD_STARTS; count += 1) {
    const bare = await session.start("bench/lib/echo-server.ts");
    await bare.stop();
    const service = await session.start("src/main.ts", env);
    await sleep(1_000);
    seen.push({ startMs: service.startMs, bareMs: bare.startMs, ratio: service.startMs / bare.startMs, idleMegabytes: service.rssMegabytes() });
    await service.stop();
  }
  const middle = (pick: (start: (typeof seen)[number]) => number) => median(seen.map(pick));
  return { startMs: middle(({ startMs }) => startMs), bareMs: middle(({ bareMs }) => bareMs), ratio: middle(({ ratio }) => ratio), idleMegabytes: middle(({ idleMegabytes }) => idleMegabytes) };
}

await using session = new Session();
const database = await session.database();
await using inserts = await bareInserts(database);
const jwtSecret = randomBytes(32).toString("base64url");
const env = { ...serviceEnvironment(join(session.folder, "unused"), jwtSecret), CREDENTIALS_DATABASE_URL: database.applicationUrl };
const [service, empty, http] = [await session.start("src/main.ts", env), await session.start("bench/lib/echo-server.ts"), await session.start("bench/lib/http-echo-server.ts")];
const world = await World.make(jwtSecret);
await world.fill(service);
const lines = await measure(groupsOf(world, service, empty, http, { method: INSERTS, run: (_, time) => inserts.alone(time) }), seconds, rounds);
const rssMegabytes = service.rssMegabytes();
const refused = await refusedCalls(service);
await Promise.all([empty.stop(), service.stop(), http.stop()]);

const cold = await coldStarts(session, env);
const results: Results = {
  date: new Date().toISOString(), machine: machine(database), drivers: { h2load: version ?? null, grpc: "grpc-js" }, seconds, rounds, lines, refused, rssMegabytes, cold,
  create: await createBesideInserts(database, inserts, Math.min(seconds / 10, 30), rounds), authenticationMicros: await warmAuthentication(rounds),
};
process.stdout.write(`\n${table(lines)}\n\nRSS after load ${rssMegabytes.toFixed(0)} MB; cold start to ready ${cold.startMs.toFixed(0)} ms, bare server ${cold.bareMs.toFixed(0)} ms; idle RSS ${cold.idleMegabytes.toFixed(0)} MB\n\n`);
process.stdout.write(`${goalsTable(results, newestResult)}\n\n`);
const name = `calls-${results.date.slice(0, 10)}`;
const [json, svg] = [`${JSON.stringify(results, null, 2)}\n`, chart(results)];
process.stdout.write(`written to ${writeResult(`${name}.json`, json)} and ${writeResult(`${name}.svg`, svg)}\n`);
if (args.reference) {
  writeFileSync("docs/benchmarks.json", json);
  writeFileSync("docs/benchmarks.svg", svg);
}
for (const { method, code, calls } of refused) process.stdout.write(`the service answered ${calls} calls of ${method} with ${code}\n`);
if (refused.length > 0 || lines.some(({ errors }) => errors > 0)) process.exitCode = 1;
