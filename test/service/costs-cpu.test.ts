import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { runCalls } from "../../bench/lib/load.ts";
import { createCredential, emptyCall, resolveCredential } from "../../bench/lib/loads.ts";
import { type Measured, startMeasured } from "../../bench/lib/process.ts";
import { median } from "../../bench/lib/report.ts";
import { serviceEnvironment, World } from "../../bench/lib/world.ts";
import { scrape } from "../support/metrics.ts";
import { freshDatabase } from "../support/postgres.ts";
import { JWT_SECRET, temporaryFolder } from "../support/service.ts";

/** Calls in flight, calls of one measurement, and rounds that count. */
const [IN_FLIGHT, CALLS, ROUNDS] = [64, 2_000, 3] as const;

/**
 * Server CPU of a call over that of an empty call, in rounds that alternate. The bounds are twice what `npm run bench` calls the floor
 * (resolve 2.4, create 6): the machine of a test is not quiet, and what is to be seen is a call that costs a multiple.
 */
const MOST_CPU = { resolve: 4.8, create: 12 } as const;

/** Collections of young objects for a thousand calls: one for about 8 MB that were allocated. It hardly depends on the machine. */
const MOST_COLLECTIONS = { resolve: 15, create: 18 } as const;

/** How often the service has collected young objects so far, by its own metrics, which it renders once a second at most. */
async function collections(service: Measured): Promise<number> {
  await sleep(1_100);
  return (await scrape({ ops: `http://${service.rest}` })).value("nodejs_gc_duration_seconds_count", { kind: "minor" }) ?? Number.NaN;
}

test("a call costs the server a small multiple of an empty call's CPU, and little garbage", async () => {
  using folder = temporaryFolder();
  await using database = await freshDatabase();
  const env = { ...serviceEnvironment(join(folder.path, "unused"), JWT_SECRET), CREDENTIALS_DATABASE_URL: database.applicationUrl };
  const [service, empty] = [await startMeasured("src/main.ts", env, join(folder.path, "log")), await startMeasured("bench/lib/echo-server.ts", {}, join(folder.path, "log"))];
  try {
    const world = await World.make(JWT_SECRET, { readers: 32, writers: 32, credentials: 2 });
    await world.fill(service);
    const [nothing, ...loads] = [emptyCall(world, empty), resolveCredential(world, service), createCredential(world, service)] as const;
    const rounds: { cpu: number[]; collections: number[] }[] = [];
    for (let round = 0; round <= ROUNDS; round += 1) {
      const least = await runCalls(nothing, IN_FLIGHT, CALLS);
      const seen = { cpu: [] as number[], collections: [] as number[] };
      let before = await collections(service);
      for (const load of loads) {
        const sample = await runCalls(load, IN_FLIGHT, CALLS);
        expect(sample.errors).toBe(0);
        const after = await collections(service);
        seen.cpu.push(sample.serverMicros / least.serverMicros);
        seen.collections.push(((after - before) * 1_000) / CALLS);
        before = after;
      }
      // The first round is cold.
      if (round > 0) rounds.push(seen);
    }
    const middle = (pick: (round: (typeof rounds)[number]) => number | undefined) => median(rounds.map((round) => pick(round) ?? Number.NaN));
    expect(middle(({ cpu }) => cpu[0])).toBeLessThan(MOST_CPU.resolve);
    expect(middle(({ cpu }) => cpu[1])).toBeLessThan(MOST_CPU.create);
    expect(middle(({ collections }) => collections[0])).toBeLessThan(MOST_COLLECTIONS.resolve);
    expect(middle(({ collections }) => collections[1])).toBeLessThan(MOST_COLLECTIONS.create);
  } finally {
    await Promise.all([service.stop(), empty.stop()]);
  }
}, 180_000);
