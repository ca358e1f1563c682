/**
 * Measures calls at growing numbers of credentials: a database for each number, all on one server, and a service for each, so that
 * rounds alternate between them. One call in flight, driven by grpc-js through the service, credentials at random. Beside the credentials stands
 * what their creations left: counters, events, audit records.
 *
 *   npm run bench -- scale [--sizes 1000,100000,1000000,5000000] [--seconds 120] [--rounds 5]
 */
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Load, run, type Sample } from "./lib/load.ts";
import * as loads from "./lib/loads.ts";
import { COUNTING, explain, pagesOf, scansDuring } from "./lib/plans.ts";
import type { Measured } from "./lib/process.ts";
import { type Column, median, textTable } from "./lib/report.ts";
import { anotherDatabase, fillUp, type Size, sizesOf } from "./lib/scale-data.ts";
import { type BenchDatabase, machine, Session, writeResult } from "./lib/session.ts";
import { serviceEnvironment, World } from "./lib/world.ts";

/** Credentials of the one large organization: what the default limits allow of the seven providers. */
const LARGE = 350;
/** The smallest size must have room for the organizations that calls are about. */
const SMALLEST = 1_000;

/** For how long calls are made whose pages are counted, s. */
const PAGES_SECONDS = 1;

const { values: args } = parseArgs({
  allowPositionals: true,
  options: { sizes: { type: "string", default: "1000,100000,1000000,5000000" }, seconds: { type: "string", default: "120" }, rounds: { type: "string", default: "5" } },
});
const [seconds, rounds] = [Number(args.seconds), Number(args.rounds)];
const sizes = args.sizes.split(",").map(Number);
if (!(seconds > 0 && Number.isInteger(rounds) && rounds > 0)) throw new Error("--seconds and --rounds must be positive numbers");
if (!sizes.every((size) => Number.isInteger(size) && size >= SMALLEST)) throw new Error(`--sizes is a list of numbers of at least ${SMALLEST}`);

const OPERATIONS = ["resolve", "list", "listLarge", "create"] as const;
type Operation = (typeof OPERATIONS)[number];

/** One size: its database, filled, and a service on it. */
interface Place {
  readonly credentials: number;
  readonly database: BenchDatabase;
  readonly service: Measured;
  readonly loads: Readonly<Record<Operation, Load>>;
  readonly fillSeconds: number;
  /** What a restart of the service needs. */
  readonly start: () => Promise<Measured>;
}

async function placeOf(session: Session, server: BenchDatabase, credentials: number): Promise<Place> {
  const database = await anotherDatabase(server, `scale_${credentials}`);
  const jwtSecret = randomBytes(32).toString("base64url");
  const env = { ...serviceEnvironment(join(session.folder, "unused"), jwtSecret), CREDENTIALS_DATABASE_URL: database.applicationUrl };
  const start = () => session.start("src/main.ts", env);
  const maker = await start();
  const world = await World.make(jwtSecret, { readers: credentials >= 100_000 ? 256 : 16, writers: 64, credentials: 20 });
  const large = await World.make(jwtSecret, { readers: 1, writers: 0, credentials: LARGE });
  for (const each of [world, large]) await each.fill(maker);
  await maker.stop();
  const begun = performance.now();
  await fillUp(database, credentials);
  const fillSeconds = (performance.now() - begun) / 1_000;
  process.stderr.write(`${credentials} credentials filled in ${fillSeconds.toFixed(0)} s\n`);
  const service = await start();
  const of = { resolve: loads.resolveCredential(world, service), list: loads.listCredentials(world, service), listLarge: loads.listCredentials(large, service), create: loads.createCredential(world, service) };
  return { credentials, database, service, loads: of, fillSeconds, start };
}

/** How each method's statements reach their rows, by the plans that PostgreSQL chose for the service's own calls. */
async function plansOf({ database, start, loads: of }: Place): Promise<Record<Operation, Record<string, number>>> {
  await explain(database, true);
  const service = await start();
  const entries: [Operation, Record<string, number>][] = [];
  for (const operation of OPERATIONS) {
    const load = { ...of[operation], server: service };
    await run(load, 1, 0.2);
    entries.push([operation, Object.fromEntries(await scansDuring(database, () => run(load, 1, 0.2)))]);
  }
  await service.stop();
  await explain(database, false);
  return Object.fromEntries(entries) as Record<Operation, Record<string, number>>;
}

await using session = new Session();
const server = await session.database(COUNTING);
const places: Place[] = [];
for (const size of sizes.toSorted((a, b) => a - b)) places.push(await placeOf(session, server, size));

const onDisk: Size[][] = [];
for (const { database } of places) onDisk.push(await sizesOf(database));
const samples = new Map<Load, Sample[]>();
const cell = Math.max(0.5, seconds / (places.length * OPERATIONS.length * (rounds + 0.5)));
for (let round = 0; round <= rounds; round += 1) {
  for (const operation of OPERATIONS) {
    for (const place of places) {
      const load = place.loads[operation];
      const sample = await run(load, 1, round === 0 ? cell / 2 : cell);
      if (round > 0) samples.set(load, [...(samples.get(load) ?? []), sample]);
    }
  }
  process.stderr.write(round === 0 ? "warmed up\n" : `round ${round} of ${rounds}\n`);
}
const pages = new Map<Load, number>();
for (const { database, loads: of } of places) for (const load of Object.values(of)) pages.set(load, await pagesOf(database, () => run(load, 1, PAGES_SECONDS)));
const measured = places.map((place, index) => {
  const of = (operation: Operation) => {
    const [mine, first] = [samples.get(place.loads[operation]) ?? [], samples.get((places[0] as Place).loads[operation]) ?? []];
    return { p50Ms: median(mine.map(({ p50Ms }) => p50Ms)), p99Ms: median(mine.map(({ p99Ms }) => p99Ms)), ofFirst: median(mine.map(({ p50Ms }, round) => p50Ms / (first[round] as Sample).p50Ms)), pages: pages.get(place.loads[operation]) ?? Number.NaN, errors: mine.reduce((sum, { errors }) => sum + errors, 0) };
  };
  return { credentials: place.credentials, fillSeconds: place.fillSeconds, sizes: onDisk[index] as Size[], resolve: of("resolve"), list: of("list"), listLarge: of("listLarge"), create: of("create") };
});
for (const { service } of places) await service.stop();
const plans = await plansOf(places.at(-1) as Place);
for (const { database } of places) await database.superuser.end();

type Line = (typeof measured)[number];
const pagesOfAll = (line: Line) => OPERATIONS.map((operation) => line[operation].pages.toFixed(0)).join(", ");
const cellOf = (operation: Operation) => (line: Line) => `${line[operation].p50Ms.toFixed(2)} / ${line[operation].p99Ms.toFixed(2)} (${line[operation].ofFirst.toFixed(2)} x)`;
const megabytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MB`;
const columns: readonly Column<Line>[] = [
  ["credentials", ({ credentials }) => String(credentials)],
  ["resolve ms", cellOf("resolve")], ["list 21", cellOf("list")], [`list ${LARGE + 1}`, cellOf("listLarge")], ["create", cellOf("create")],
  ["pages a call of each", pagesOfAll],
  ...["credential", "audit_event"].map((table): Column<Line> => [`${table}, indexes`, ({ sizes }) => { const size = sizes.find((it) => it.table === table); return size ? `${megabytes(size.rows)}, ${megabytes(size.indexes)}` : ""; }]),
  ["filled in s", ({ fillSeconds }) => fillSeconds.toFixed(0)],
];
process.stdout.write(`\np50 / p99 ms through the service, 1 in flight, and p50 over that of the fewest\n${textTable(columns, measured)}\n\nplans at ${places.at(-1)?.credentials} credentials\n`);
for (const [operation, scans] of Object.entries(plans)) process.stdout.write(`  ${operation}: ${Object.keys(scans).toSorted().join(", ")}\n`);
const report = { date: new Date().toISOString(), machine: machine(server), driver: "grpc-js", rounds, sizes: measured, plans };
process.stdout.write(`written to ${writeResult(`scale-${report.date.slice(0, 10)}.json`, `${JSON.stringify(report, null, 2)}\n`)}\n`);
if (Object.values(plans).some((scans) => Object.keys(scans).some((scan) => /^Seq Scan on (?:credential|audit_event|credential_event|credential_counter)$/.test(scan)))) {
  process.stdout.write("a table that grows was read from end to end\n");
  process.exitCode = 1;
}
if (measured.some((line) => OPERATIONS.some((operation) => line[operation].errors > 0))) process.exitCode = 1;
