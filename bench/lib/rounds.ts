import type { Sample } from "./load.ts";
import { type Line, summarize } from "./report.ts";

/** Something to measure, driven by something. */
export interface Row {
  readonly method: string;
  run(concurrency: number, seconds: number): Promise<Sample>;
}

/** Rows that alternate; the first one is what the others are compared with. */
export interface Group {
  readonly driver: string;
  readonly concurrency: readonly number[];
  readonly rows: readonly [Row, ...Row[]];
}

/** The shortest time of a cell, s: the kernel counts CPU in steps of 10 ms, and connections take their time on a busy machine. */
const LEAST_SECONDS = 1;

/** How many cells a round has. */
const cellsOf = (groups: readonly Group[]): number => groups.reduce((sum, { rows, concurrency }) => sum + rows.length * concurrency.length, 0);

/** Runs every row at every concurrency, side by side, once to warm up, for half the time, and then `rounds` times; about `seconds` in all, where that is enough. */
export async function measure(groups: readonly Group[], seconds: number, rounds: number): Promise<Line[]> {
  const cell = seconds / (cellsOf(groups) * (rounds + 0.5));
  const samples = new Map<Row, Map<number, Sample[]>>();
  const of = (row: Row, concurrency: number): Sample[] => {
    const mine = samples.get(row) ?? new Map<number, Sample[]>();
    samples.set(row, mine);
    const list = mine.get(concurrency) ?? [];
    mine.set(concurrency, list);
    return list;
  };
  for (let round = 0; round <= rounds; round += 1) {
    for (const { rows, concurrency } of groups) {
      for (const inFlight of concurrency) {
        for (const row of rows) {
          const sample = await row.run(inFlight, Math.max(LEAST_SECONDS, round === 0 ? cell / 2 : cell));
          if (round > 0) of(row, inFlight).push(sample);
        }
      }
    }
    process.stderr.write(round === 0 ? "warmed up\n" : `round ${round} of ${rounds}\n`);
  }
  return groups.flatMap(({ driver, rows, concurrency }) =>
    rows.flatMap((row) => concurrency.map((inFlight) => summarize({ driver, method: row.method, reference: rows[0].method, concurrency: inFlight }, of(row, inFlight), of(rows[0], inFlight)))),
  );
}
