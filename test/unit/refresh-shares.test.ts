import { expect, test } from "vitest";
import { Shares } from "../../src/vault/refresh-shares.ts";

function shares() {
  const clock = { ms: 0 };
  return { clock, of: new Shares({ most: 2, restMs: 1_000, maxRestMs: 3_000, now: () => clock.ms }) };
}

test("an organization that has its share is passed over until one of its renewals is over", () => {
  const { of } = shares();
  for (const organization of ["a", "b", "a"]) of.started(organization);
  expect(of.passedOver()).toEqual(["a"]);
  of.ended("a", true);
  expect(of.passedOver()).toEqual([]);
});

test("one whose renewals cannot be begun is passed over for a while, longer each time, until one is", () => {
  const { of, clock } = shares();
  const pauses: number[] = [];
  for (let round = 0; round < 4; round++) {
    of.started("a");
    of.started("a");
    of.ended("a", false);
    of.ended("a", false);
    const since = clock.ms;
    while (of.passedOver().includes("a")) clock.ms += 100;
    pauses.push(clock.ms - since);
  }
  expect(pauses).toEqual([1_000, 2_000, 3_000, 3_000]);
  of.started("a");
  of.ended("a", true);
  of.started("a");
  of.ended("a", false);
  clock.ms += 1_000;
  expect(of.passedOver()).toEqual([]);
});
