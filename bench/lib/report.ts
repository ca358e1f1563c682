import type { Sample } from "./load.ts";

/** One line of the table: a method at a concurrency with a driver, over all rounds. */
export interface Line {
  readonly driver: string;
  readonly method: string;
  /** What its ratios are to: a line of the same driver and concurrency. */
  readonly reference: string;
  readonly concurrency: number;
  readonly errors: number;
  readonly rate: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly serverMicros: number;
  readonly rssMegabytes: number;
  /** Rate over that of the reference, each round by itself, then the median. */
  readonly rateRatio: number;
  /** Server CPU over that of the reference, likewise. */
  readonly cpuRatio: number;
  /** p99 over that of the reference, likewise. */
  readonly p99Ratio: number;
}

/** The middle value; of an even number of values the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? (sorted[middle] ?? Number.NaN) : ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? Number.NaN)) / 2;
}

/** Sums up a method's rounds beside the reference's rounds, which ran next to them. */
export function summarize(what: Pick<Line, "driver" | "method" | "reference" | "concurrency">, rounds: readonly Sample[], reference: readonly Sample[]): Line {
  const middle = (pick: (sample: Sample) => number) => median(rounds.map(pick));
  const ratio = (pick: (sample: Sample) => number) => median(rounds.map((sample, round) => pick(sample) / pick(reference[round] as Sample)));
  return {
    ...what,
    errors: rounds.reduce((sum, { errors }) => sum + errors, 0),
    rate: middle(({ rate }) => rate),
    p50Ms: middle(({ p50Ms }) => p50Ms),
    p99Ms: middle(({ p99Ms }) => p99Ms),
    serverMicros: middle(({ serverMicros }) => serverMicros),
    rssMegabytes: rounds.at(-1)?.rssMegabytes ?? Number.NaN,
    rateRatio: ratio(({ rate }) => rate),
    cpuRatio: ratio(({ serverMicros }) => serverMicros),
    p99Ratio: ratio(({ p99Ms }) => p99Ms),
  };
}

/** A column of a text table: its title, and a row's cell in it. */
export type Column<Row> = readonly [title: string, cell: (row: Row) => string];

/** A number with so many digits, and a dash where there is none. */
const digits = (value: number, count: number, unit = ""): string => (Number.isFinite(value) ? `${value.toFixed(count)}${unit}` : "-");

const COLUMNS: readonly Column<Line>[] = [
  ["method", ({ method }) => method],
  ["in flight", ({ concurrency }) => String(concurrency)],
  ["calls/s", ({ rate }) => digits(rate, 0)],
  ["of reference", ({ rateRatio }) => digits(rateRatio * 100, 0, " %")],
  ["p50 ms", ({ p50Ms }) => digits(p50Ms, 2)],
  ["p99 ms", ({ p99Ms }) => digits(p99Ms, 2)],
  ["of reference", ({ p99Ratio }) => digits(p99Ratio, 2, " x")],
  ["server CPU µs", ({ serverMicros }) => digits(serverMicros, 0)],
  ["of reference", ({ cpuRatio }) => digits(cpuRatio, 2, " x")],
  ["server RSS MB", ({ rssMegabytes }) => digits(rssMegabytes, 0)],
  ["errors", ({ errors }) => String(errors)],
];

/** Rows as a text table, first column to the left, the others to the right. */
export function textTable<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string {
  const cells = [columns.map(([title]) => title), ...rows.map((row) => columns.map(([, cell]) => cell(row)))];
  const widths = columns.map((_, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)));
  return cells.map((row) => row.map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0))).join("  ")).join("\n");
}

/** The lines as tables, one for each driver and reference. */
export function table(lines: readonly Line[]): string {
  const groups = Map.groupBy(lines, ({ driver, reference }) => `driver ${driver}, beside ${reference}`);
  return [...groups].map(([title, group]) => `${title}\n${textTable(COLUMNS, group)}`).join("\n\n");
}
