import type { Refused } from "./metrics.ts";
import { type Column, type Line, textTable } from "./report.ts";
import type { machine } from "./session.ts";

/** What `npm run bench` measured. */
export interface Results {
  readonly date: string;
  readonly machine: ReturnType<typeof machine>;
  readonly drivers: { readonly h2load: string | null; readonly grpc: string };
  readonly seconds: number;
  readonly rounds: number;
  readonly lines: readonly Line[];
  /** Calls that the service did not answer with success, by its own count. */
  readonly refused: readonly Refused[];
  /** Resident memory of the service when the load is over, MB. */
  readonly rssMegabytes: number;
  /** Starts on an existing database beside starts of the bare grpc-js server; medians. */
  readonly cold: { readonly startMs: number; readonly bareMs: number; readonly ratio: number; readonly idleMegabytes: number };
  /** Creations in the store beside bare inserts, 32 in flight, in a second. */
  readonly create: { readonly store: number; readonly insert: number; readonly ratio: number };
  /** The time to authenticate a token that was verified before, µs. */
  readonly authenticationMicros: number;
}

/** Results of the other benchmarks, as they wrote them. */
interface Others {
  readonly scale?: { readonly date: string; readonly sizes: readonly ({ readonly credentials: number } & Readonly<Record<"resolve" | "list" | "create", { readonly p50Ms: number }>>)[] };
  readonly replicas?: { readonly date: string; readonly cpuRatio: number };
  readonly "client-cache"?: { readonly at: string; readonly cachedMicros: number; readonly askedByCache: number; readonly told: { readonly p99Ms: number } };
}

/** A goal: its figure is to be at most, or at least, the bound; where it cannot be, `must` is the floor. */
interface Goal {
  readonly what: string;
  readonly bound: "at most" | "at least";
  readonly goal: number;
  readonly must: number;
  readonly unit: "%" | "x" | "ms" | "µs" | "MB";
  /** Undefined where it was not measured. Shares are fractions. */
  figure(results: Results, others: Others): number | undefined;
}

/** Resolve and the empty call, as the goals are set: with h2load, or with grpc-js where that is not there. */
function grpcLine({ lines, drivers }: Results, method: string, concurrency: number): Line | undefined {
  const at = (driver: string) => lines.find((line) => line.driver === driver && line.method === method && line.concurrency === concurrency);
  return drivers.h2load === null ? at("grpc-js") : (at("h2load") ?? at("grpc-js"));
}

const resolveAt = (results: Results, concurrency: number) => grpcLine(results, "ResolveCredential", concurrency);

/** The p50 of an operation at the most credentials over that at the fewest. */
function growth({ scale }: Others, operation: "resolve" | "list" | "create"): number | undefined {
  const [first, last] = [scale?.sizes[0], scale?.sizes.at(-1)];
  return first === undefined || last === undefined || first === last ? undefined : last[operation].p50Ms / first[operation].p50Ms;
}

/** What the benchmark is to show. */
const GOALS: readonly Goal[] = [
  { what: "resolve: server CPU, of an empty call's, 64 in flight", bound: "at most", goal: 1.9, must: 2.4, unit: "x", figure: (results) => resolveAt(results, 64)?.cpuRatio },
  { what: "resolve: rate, of an empty call's, 64 in flight", bound: "at least", goal: 0.5, must: 0.4, unit: "%", figure: (results) => resolveAt(results, 64)?.rateRatio },
  { what: "resolve: p99, of an empty call's, 64 in flight", bound: "at most", goal: 1.25, must: 1.6, unit: "x", figure: (results) => resolveAt(results, 64)?.p99Ratio },
  {
    what: "resolve: p50, of an empty call's and a one-row insert's together, 1 in flight", bound: "at most", goal: 1.3, must: 1.6, unit: "x",
    figure(results) {
      const [resolve, empty, insert] = [resolveAt(results, 1), grpcLine(results, "empty call", 1), results.lines.find(({ driver }) => driver === "pg")];
      return resolve && empty && insert && resolve.p50Ms / (empty.p50Ms + insert.p50Ms);
    },
  },
  { what: "resolve: p99, 1 in flight", bound: "at most", goal: 2.5, must: 5, unit: "ms", figure: (results) => resolveAt(results, 1)?.p99Ms },
  { what: "create: rate in the store, of bare inserts', 32 in flight", bound: "at least", goal: 2, must: 0.9, unit: "%", figure: ({ create }) => create.ratio },
  { what: "create: server CPU, of an empty call's, 64 in flight", bound: "at most", goal: 4, must: 6, unit: "x", figure: (results) => grpcLine(results, "CreateCredential", 64)?.cpuRatio },
  { what: "REST read: rate, of a bare node:http server's, 64 in flight", bound: "at least", goal: 0.15, must: 0.15, unit: "%", figure: ({ lines }) => lines.find(({ method, concurrency }) => method === "REST read" && concurrency === 64)?.rateRatio },
  { what: "authentication of a token that is known", bound: "at most", goal: 2, must: 5, unit: "µs", figure: ({ authenticationMicros }) => authenticationMicros },
  { what: "RSS after load", bound: "at most", goal: 180, must: 300, unit: "MB", figure: ({ rssMegabytes }) => rssMegabytes },
  { what: "cold start to ready on an existing database, of a bare grpc-js server's", bound: "at most", goal: 2, must: 4, unit: "x", figure: ({ cold }) => cold.ratio },
  { what: "resolve: p50 with most credentials, of that with fewest (-- scale)", bound: "at most", goal: 1.5, must: 2.5, unit: "x", figure: (_, others) => growth(others, "resolve") },
  { what: "create: p50 with most credentials, of that with fewest (-- scale)", bound: "at most", goal: 1.5, must: 2.5, unit: "x", figure: (_, others) => growth(others, "create") },
  { what: "list: p50 with most credentials, of that with fewest (-- scale)", bound: "at most", goal: 2.5, must: 2.5, unit: "x", figure: (_, others) => growth(others, "list") },
  { what: "resolve: server CPU with two replicas, of that with one (-- replicas)", bound: "at most", goal: 1.1, must: 1.25, unit: "x", figure: (_, { replicas }) => replicas?.cpuRatio },
  { what: "resolve from the client's cache (-- client-cache)", bound: "at most", goal: 5, must: 5, unit: "µs", figure: (_, others) => others["client-cache"]?.cachedMicros },
  { what: "change told by another replica, p99 (-- client-cache)", bound: "at most", goal: 1_000, must: 1_000, unit: "ms", figure: (_, others) => others["client-cache"]?.told.p99Ms },
];

function printed(value: number, unit: Goal["unit"]): string {
  if (unit === "%") return `${(value * 100).toFixed(0)} %`;
  return `${value >= 100 ? value.toFixed(0) : value.toFixed(2)} ${unit}`;
}

const holds = ({ bound }: Goal, figure: number, limit: number): boolean => (bound === "at most" ? figure <= limit : figure >= limit);

/** Whether a goal is met: `met`, `must` where only its floor is, `MISSED`, or `not measured`. */
function verdict(goal: Goal, figure: number | undefined): string {
  if (figure === undefined || !Number.isFinite(figure)) return "not measured";
  if (holds(goal, figure, goal.goal)) return "met";
  return holds(goal, figure, goal.must) ? "must" : "MISSED";
}

/** Every goal beside its figure. `newest` gives the newest results of another benchmark. */
export function goalsTable(results: Results, newest: (kind: string) => unknown): string {
  const others: Others = Object.fromEntries(["scale", "replicas", "client-cache"].map((kind) => [kind, newest(kind)]));
  const rows = GOALS.map((goal) => ({ goal, figure: goal.figure(results, others) }));
  const columns: readonly Column<(typeof rows)[number]>[] = [
    ["goal", ({ goal }) => goal.what],
    ["", ({ goal }) => goal.bound],
    ["goal", ({ goal }) => printed(goal.goal, goal.unit)],
    ["must", ({ goal }) => printed(goal.must, goal.unit)],
    ["figure", ({ goal, figure }) => (figure === undefined || !Number.isFinite(figure) ? "-" : printed(figure, goal.unit))],
    ["", ({ goal, figure }) => verdict(goal, figure)],
  ];
  const dates = [["scale", others.scale?.date], ["replicas", others.replicas?.date], ["client-cache", others["client-cache"]?.at]].filter(([, date]) => date !== undefined).map(([kind, date]) => `${kind} of ${date?.slice(0, 10)}`);
  return `${textTable(columns, rows)}${dates.length > 0 ? `\nfrom earlier runs: ${dates.join(", ")}` : ""}`;
}
