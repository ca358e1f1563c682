import { run, type Load, type Sample } from "./load.ts";
import { median } from "./report.ts";

/** What a load measured, alone or beside something else; medians of rounds. */
export interface Figures {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly rate: number;
}

/** What a load notices of something else that goes on. */
export interface Beside {
  readonly quiet: Figures;
  readonly busy: Figures;
  /** Medians of the rounds' own ratios, busy to quiet. */
  readonly ratio: { readonly p50: number; readonly p99: number; readonly rate: number };
}

/** Calls in flight of the load. */
const CONCURRENCY = 8;

/** Measures a load for `cellSeconds` in turn alone and beside what `begin` starts, which ends when it is disposed of. */
export async function measureBeside(load: Load, cellSeconds: number, rounds: number, begin: (round: number) => Promise<AsyncDisposable>): Promise<Beside> {
  await run(load, CONCURRENCY, cellSeconds);
  const [quiet, busy]: [Sample[], Sample[]] = [[], []];
  for (let round = 0; round < rounds; round += 1) {
    quiet.push(await run(load, CONCURRENCY, cellSeconds));
    await using going = await begin(round);
    void going;
    busy.push(await run(load, CONCURRENCY, cellSeconds));
    process.stderr.write(`round ${round + 1} of ${rounds}\n`);
  }
  const middle = (samples: readonly Sample[]) => ({ p50Ms: median(samples.map((it) => it.p50Ms)), p99Ms: median(samples.map((it) => it.p99Ms)), rate: median(samples.map((it) => it.rate)) });
  const ratio = (of: (sample: Sample) => number) => median(busy.map((it, round) => of(it) / of(quiet[round] as Sample)));
  return { quiet: middle(quiet), busy: middle(busy), ratio: { p50: ratio((it) => it.p50Ms), p99: ratio((it) => it.p99Ms), rate: ratio((it) => it.rate) } };
}

/** The report, with what the load ran beside. */
export function besideText(what: string, { quiet, busy, ratio }: Beside): string {
  const line = (name: string, { p50Ms, p99Ms, rate }: Figures) => `${name}: ${rate.toFixed(0)}/s, p50 ${p50Ms.toFixed(2)} ms, p99 ${p99Ms.toFixed(2)} ms\n`;
  return `${line("quiet", quiet)}${line(`beside ${what}`, busy)}ratio: rate ${ratio.rate.toFixed(2)}, p50 ${ratio.p50.toFixed(2)}, p99 ${ratio.p99.toFixed(2)}\n`;
}
