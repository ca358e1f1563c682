import { expect, it } from "vitest";
import { CallerCache, type Proven } from "../../src/auth/caller-cache.ts";

const caller = { kind: "operator", id: "ops" } as const;

/** A cache with a clock to turn, and look-ups that end when a test says so; each is trusted for 5 s from its beginning. */
function setUp() {
  const clock = { ms: 0 };
  const flights: (() => void)[] = [];
  const cache = new CallerCache({ maxEntries: 10, now: () => clock.ms });
  const ask = () =>
    cache.prove("digest", () => {
      const untilMs = clock.ms + 5_000;
      return new Promise<Proven>((resolve) => flights.push(() => resolve({ caller, untilMs })));
    });
  return { clock, flights, cache, ask };
}

it("trusts a look-up from when it was asked, however long it took", async () => {
  const { clock, flights, cache, ask } = setUp();
  const asked = ask();
  clock.ms = 4_000;
  flights[0]?.();
  await asked;
  expect(cache.get("digest")).toBe(caller);
  clock.ms = 5_000;
  expect(cache.get("digest")).toBeUndefined();
});

it("shares a look-up with whoever comes while its answer holds, and lets whoever comes later ask anew", async () => {
  const { clock, flights, ask } = setUp();
  const first = ask();
  clock.ms = 4_999;
  const second = ask();
  clock.ms = 5_000;
  const late = [ask(), ask()];
  flights[0]?.();
  await Promise.all([first, second]);
  await expect.poll(() => flights.length).toBe(2);
  clock.ms = 6_000;
  flights[1]?.();
  expect((await Promise.all(late)).map(({ untilMs }) => untilMs)).toEqual([10_000, 10_000]);
  expect(flights).toHaveLength(2);
});
