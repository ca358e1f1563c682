import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import type { Probe } from "../../src/egress/probe-process.ts";
import { createRates } from "../../src/egress/probe-rate.ts";
import { createSpares } from "../../src/egress/probe-spare.ts";
import { behave, refusalOf, SCRIPTED_ENTRY, testProber } from "../support/probe-tools.ts";

const scripted = (options: Parameters<typeof testProber>[0] = {}) => testProber({ entry: SCRIPTED_ENTRY, ...options });
const signal = new AbortController().signal;

describe("the rate", () => {
  test("lets an organization run what it saved up and then one per interval, and another organization too", async () => {
    let time = 0;
    await using it = scripted({ burst: 2, refillMs: 1_000, now: () => time });
    const works = async (organizationId = "one") => expect(await it.run(behave("answer"), { organizationId })).toMatchObject({ success: true });
    const refused = async () => expect(await refusalOf(it.run(behave("answer")))).toBe("TEST_LIMIT_REACHED");
    await works();
    await works();
    await refused();
    await works("two");
    time = 999;
    await refused();
    time = 1_000;
    await works();
    await refused();
  });

  test("costs nothing where no test was run", async () => {
    await using it = scripted({ burst: 1, now: () => 0 });
    for (let round = 0; round < 3; round += 1) it.prober.reserve("one")[Symbol.dispose]();
    expect(await it.run(behave("answer"))).toMatchObject({ success: true });
    expect(() => it.prober.reserve("one")).toThrow(expect.objectContaining({ reason: "TEST_LIMIT_REACHED" }));
  });

  test("remembers nobody longer than it takes to have everything back", () => {
    let time = 0;
    const rates = createRates({ burst: 3, refillMs: 10, now: () => time });
    for (let index = 0; index < 10_000; index += 1) {
      time += 1;
      for (let turn = 0; turn < 3; turn += 1) expect(rates.take(`${index}`)).toBe(true);
      expect(rates.take(`${index}`)).toBe(false);
    }
    expect(rates.size).toBeLessThanOrEqual(30);
  });
});

describe("a slot", () => {
  test("counts before a test runs in it, until it is disposed of", async () => {
    await using it = scripted({ maxPerOrganization: 1 });
    {
      using slot = it.prober.reserve("one");
      expect(await refusalOf(it.run(behave("answer")))).toBe("TEST_LIMIT_REACHED");
      const task = { provider: "postgresql", credentialType: "user_password", options: { testPath: "" }, ...behave("answer") } as const;
      expect(await slot.run(task, signal)).toMatchObject({ success: true });
      await expect(slot.run(task, signal)).rejects.toThrow(TypeError);
      expect(await refusalOf(it.run(behave("answer")))).toBe("TEST_LIMIT_REACHED");
    }
    expect(await it.run(behave("answer"))).toMatchObject({ success: true });
  });

  test("that is disposed of twice frees one place", async () => {
    await using it = scripted({ maxTotal: 1 });
    const slot = it.prober.reserve("one");
    slot[Symbol.dispose]();
    slot[Symbol.dispose]();
    using _ = it.prober.reserve("two");
    expect(() => it.prober.reserve("three")).toThrow(expect.objectContaining({ reason: "TEST_LIMIT_REACHED" }));
  });
});

/** A child that is ready, and gone, when it is told. */
function puppet() {
  const [ready, gone] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const probe: Probe = { ready: ready.promise, gone: gone.promise, ask: () => new Promise(() => {}), memory: () => undefined, kill: () => gone.resolve() };
  return { probe, ready: () => ready.resolve(), die: () => gone.resolve() };
}

describe("the starts of children", () => {
  const begun = (maxStarting: number) => {
    const puppets: ReturnType<typeof puppet>[] = [];
    const start = () => {
      const made = puppet();
      puppets.push(made);
      return made.probe;
    };
    return { puppets, spares: createSpares(start, () => {}, maxStarting) };
  };

  test("come one after the other, those that somebody waits for first and the spare last", async () => {
    const { puppets, spares } = begun(1);
    const taken: number[] = [];
    const takes = [0, 1, 2].map(async (index) => {
      await spares.take(signal);
      taken.push(index);
    });
    await sleep(5);
    expect([puppets.length, taken]).toEqual([1, [0]]);
    puppets[0]?.ready();
    await sleep(5);
    expect([puppets.length, taken]).toEqual([2, [0, 1]]);
    // One that dies while it starts makes room as well.
    puppets[1]?.die();
    await Promise.all(takes);
    expect([puppets.length, taken]).toEqual([3, [0, 1, 2]]);
    await sleep(5);
    expect(puppets).toHaveLength(3);
    puppets[2]?.ready();
    await sleep(5);
    expect(puppets).toHaveLength(4);
    await spares.close();
  });

  test("are not made for those who gave up", async () => {
    const { puppets, spares } = begun(1);
    const stop = new AbortController();
    await spares.take(signal);
    const waiting = spares.take(stop.signal);
    stop.abort();
    expect(await waiting).toBeUndefined();
    expect(puppets).toHaveLength(1);
    await spares.close();
  });
});

test("a test whose process is not ready in time is refused, and says nothing of the other side", async () => {
  await using it = testProber({ entry: new URL("../support/probe-unready.ts", import.meta.url), deadlineMs: 500 });
  const results = await Promise.all([refusalOf(it.run(behave("answer"))), refusalOf(it.run(behave("answer")))]);
  expect(results).toEqual(["OVERLOADED", "OVERLOADED"]);
  expect(it.lines.map(({ fields }) => fields.reason)).toEqual(["unready", "unready"]);
});
