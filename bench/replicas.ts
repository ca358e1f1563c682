/**
 * Measures ResolveCredential with one replica and with two on the same database, each with as many calls in flight: the rate of all,
 * and the server CPU of a call in each. Whether a core is free for the second replica decides the rate; the CPU of a call must not depend on it. Two empty servers
 * beside one show what sharing the cores alone does to the CPU of a call. Rounds alternate.
 *
 *   npm run bench -- replicas [--seconds 60] [--rounds 5] [--concurrency 64]
 */
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { h2loadVersion, runH2load } from "./lib/h2load.ts";
import { type Load, run, type Sample } from "./lib/load.ts";
import { emptyCall, resolveCredential } from "./lib/loads.ts";
import { refusedCalls } from "./lib/metrics.ts";
import { type Column, median, textTable } from "./lib/report.ts";
import { machine, Session, writeResult } from "./lib/session.ts";
import { serviceEnvironment, World } from "./lib/world.ts";

const { values: args } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: "string", default: "60" }, rounds: { type: "string", default: "5" }, concurrency: { type: "string", default: "64" } },
});
const [seconds, rounds, concurrency] = [Number(args.seconds), Number(args.rounds), Number(args.concurrency)];
if (!(seconds > 0 && Number.isInteger(rounds) && rounds > 0 && Number.isInteger(concurrency) && concurrency > 0)) throw new Error("--seconds, --rounds and --concurrency must be positive numbers");
const drive = h2loadVersion() === undefined ? run : runH2load;

/** One round: one server, then both, each with as many calls in flight. */
interface Round {
  readonly one: Sample;
  readonly two: readonly [Sample, Sample];
}

async function roundOf([first, second]: readonly [Load, Load], time: number): Promise<Round> {
  const one = await drive(first, concurrency, time);
  const [left, right] = await Promise.all([first, second].map((load) => drive(load, concurrency, time)));
  return { one, two: [left as Sample, right as Sample] };
}

/** Server CPU of a call of both together, µs. */
const cpuOfTwo = ({ two }: Round): number => two.reduce((sum, { serverMicros, calls }) => sum + serverMicros * calls, 0) / two.reduce((sum, { calls }) => sum + calls, 0);

interface Line {
  readonly what: string;
  readonly rate: number;
  readonly cpu: readonly number[];
}

function linesOf(name: string, all: readonly Round[]): Line[] {
  const middle = (pick: (round: Round) => number) => median(all.map(pick));
  return [
    { what: `${name}, one`, rate: middle(({ one }) => one.rate), cpu: [middle(({ one }) => one.serverMicros)] },
    { what: `${name}, two`, rate: middle(({ two }) => two[0].rate + two[1].rate), cpu: [middle(({ two }) => two[0].serverMicros), middle(({ two }) => two[1].serverMicros)] },
  ];
}

await using session = new Session();
const database = await session.database();
const jwtSecret = randomBytes(32).toString("base64url");
const env = { ...serviceEnvironment(join(session.folder, "unused"), jwtSecret), CREDENTIALS_DATABASE_URL: database.applicationUrl };
const [first, second] = [await session.start("src/main.ts", env), await session.start("src/main.ts", env)];
const [emptyFirst, emptySecond] = [await session.start("bench/lib/echo-server.ts"), await session.start("bench/lib/echo-server.ts")];
const world = await World.make(jwtSecret);
await world.fill(first);

const resolves = [resolveCredential(world, first), resolveCredential(world, second)] as const;
const empties = [emptyCall(world, emptyFirst), emptyCall(world, emptySecond)] as const;
const cell = Math.max(1, seconds / (4 * (rounds + 1)));
const [resolved, empty]: [Round[], Round[]] = [[], []];
for (let round = 0; round <= rounds; round += 1) {
  const [calls, nothing] = [await roundOf(resolves, cell), await roundOf(empties, cell)];
  if (round > 0) {
    resolved.push(calls);
    empty.push(nothing);
  }
  process.stderr.write(round === 0 ? "warmed up\n" : `round ${round} of ${rounds}\n`);
}
const refused = [...(await refusedCalls(first)), ...(await refusedCalls(second))];
await Promise.all([first, second, emptyFirst, emptySecond].map((server) => server.stop()));

const ratio = (all: readonly Round[]) => median(all.map((round) => cpuOfTwo(round) / round.one.serverMicros));
const report = { date: new Date().toISOString(), machine: machine(database), concurrency, rounds, lines: [...linesOf("ResolveCredential", resolved), ...linesOf("empty call", empty)], cpuRatio: ratio(resolved), emptyCpuRatio: ratio(empty) };
const columns: readonly Column<Line>[] = [["replicas", ({ what }) => what], ["calls/s", ({ rate }) => rate.toFixed(0)], ["server CPU µs, each", ({ cpu }) => cpu.map((micros) => micros.toFixed(0)).join(" and ")]];
process.stdout.write(`\n${textTable(columns, report.lines)}\n\nserver CPU of a call with two, of that with one: ${report.cpuRatio.toFixed(2)} x; of an empty call: ${report.emptyCpuRatio.toFixed(2)} x\n`);
process.stdout.write(`written to ${writeResult(`replicas-${report.date.slice(0, 10)}.json`, `${JSON.stringify(report, null, 2)}\n`)}\n`);
for (const { method, code, calls } of refused) process.stdout.write(`the service answered ${calls} calls of ${method} with ${code}\n`);
if (refused.length > 0) process.exitCode = 1;
