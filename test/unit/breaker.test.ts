import { expect, test } from "vitest";
import { parseFailpoints } from "../../src/failpoints.ts";
import { Breaker } from "../../src/vault/breaker.ts";

const OPTIONS = { failures: 3, openMs: 1_000, maxOpenMs: 60_000 };

function breaker() {
  const clock = { ms: 0 };
  return { clock, of: new Breaker({ ...OPTIONS, now: () => clock.ms }) };
}
const fail = (of: Breaker, times: number, retryAfterMs: number | null = null) => {
  for (let n = 0; n < times; n++) of.failed("google", retryAfterMs);
};

test("opens after failures in a row, for its provider alone; an answer in between starts the count anew", () => {
  const { of } = breaker();
  fail(of, 2);
  of.answered("google");
  fail(of, 2);
  expect([of.admits("google"), of.room("google", 7)]).toEqual([true, 7]);
  fail(of, 1);
  expect([of.admits("google"), of.room("google", 7), of.room("microsoft", 7)]).toEqual([false, 0, 7]);
});

test("lets one through when its time is over, and that one decides for all", () => {
  const { of, clock } = breaker();
  fail(of, 3);
  clock.ms = 999;
  expect(of.admits("google")).toBe(false);
  clock.ms = 1_000;
  expect(of.room("google", 7)).toBe(1);
  of.started("google");
  expect(of.admits("google")).toBe(false);
  fail(of, 1);
  clock.ms = 2_999;
  expect(of.admits("google")).toBe(false);
  clock.ms = 3_000;
  of.started("google");
  of.abandoned("google");
  expect(of.room("google", 7)).toBe(1);
  of.started("google");
  of.answered("google");
  expect(of.room("google", 7)).toBe(7);
});

test("stragglers that fail while it is open do not lengthen it", () => {
  const { of, clock } = breaker();
  fail(of, 30);
  clock.ms = 1_000;
  expect(of.admits("google")).toBe(true);
});

test("obeys Retry-After at the first time, within its cap", () => {
  const { of, clock } = breaker();
  fail(of, 1, 20_000);
  clock.ms = 19_999;
  expect(of.admits("google")).toBe(false);
  clock.ms = 20_000;
  expect(of.admits("google")).toBe(true);
  of.answered("google");
  fail(of, 1, 10 ** 12);
  clock.ms = 80_000;
  expect(of.admits("google")).toBe(true);
});

test("grows while the provider is down, up to its cap", () => {
  const { of, clock } = breaker();
  fail(of, 3);
  const pauses: number[] = [];
  for (let round = 0; round < 9; round++) {
    const since = clock.ms;
    while (!of.admits("google")) clock.ms += 500;
    pauses.push(clock.ms - since);
    of.started("google");
    fail(of, 1);
  }
  expect(pauses).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
});

test("a failpoint acts once and only at its place; one that does not exist is refused by its position", async () => {
  const failpoint = parseFailpoints(["after-reply=error"]);
  await failpoint("before-call");
  await expect(failpoint("after-reply")).rejects.toThrow("failpoint after-reply");
  await failpoint("after-reply");
  for (const wrong of ["after-lunch=kill", "after-send", "after-send=explode"]) expect(() => parseFailpoints(["before-call=kill", wrong])).toThrow("entry 2");
});
