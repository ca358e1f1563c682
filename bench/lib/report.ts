import type { Sample } from "./load.ts";

/** One line of the table: a method at a concurrency, over all rounds. */
export interface Line {
  readonly method: string;
  readonly concurrency: number;
  readonly errors: number;
  readonly rate: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly serverMicros: number;
  readonly rssMegabytes: number;
  /** Rate over that of the empty call, each round by itself, then the median. */
  readonly ofEmpty: number;
  /** Server CPU over that of the empty call, likewise. */
  readonly cpuOfEmpty: number;
}

/** The middle value; of an even number of values the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? (sorted[middle] ?? Number.NaN) : ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? Number.NaN)) / 2;
}

/** Sums up a method's rounds beside the empty call's rounds, which ran next to them. */
export function summarize(method: string, concurrency: number, rounds: readonly Sample[], empty: readonly Sample[]): Line {
  const middle = (pick: (sample: Sample) => number) => median(rounds.map(pick));
  const ratio = (pick: (sample: Sample) => number) => median(rounds.map((sample, round) => pick(sample) / pick(empty[round] as Sample)));
  return {
    method,
    concurrency,
    errors: rounds.reduce((sum, { errors }) => sum + errors, 0),
    rate: middle(({ rate }) => rate),
    p50Ms: middle(({ p50Ms }) => p50Ms),
    p99Ms: middle(({ p99Ms }) => p99Ms),
    serverMicros: middle(({ serverMicros }) => serverMicros),
    rssMegabytes: rounds.at(-1)?.rssMegabytes ?? Number.NaN,
    ofEmpty: ratio(({ rate }) => rate),
    cpuOfEmpty: ratio(({ serverMicros }) => serverMicros),
  };
}

const COLUMNS: readonly (readonly [title: string, cell: (line: Line) => string])[] = [
  ["method", ({ method }) => method],
  ["in flight", ({ concurrency }) => String(concurrency)],
  ["calls/s", ({ rate }) => rate.toFixed(0)],
  ["of empty", ({ ofEmpty }) => `${(ofEmpty * 100).toFixed(0)} %`],
  ["p50 ms", ({ p50Ms }) => p50Ms.toFixed(2)],
  ["p99 ms", ({ p99Ms }) => p99Ms.toFixed(2)],
  ["server CPU µs", ({ serverMicros }) => serverMicros.toFixed(0)],
  ["of empty", ({ cpuOfEmpty }) => `${cpuOfEmpty.toFixed(2)} x`],
  ["server RSS MB", ({ rssMegabytes }) => rssMegabytes.toFixed(0)],
  ["errors", ({ errors }) => String(errors)],
];

/** The lines as a text table, first column to the left, numbers to the right. */
export function table(lines: readonly Line[]): string {
  const rows = [COLUMNS.map(([title]) => title), ...lines.map((line) => COLUMNS.map(([, cell]) => cell(line)))];
  const widths = COLUMNS.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows.map((row) => row.map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0))).join("  ")).join("\n");
}
