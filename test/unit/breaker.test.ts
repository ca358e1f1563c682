import { expect, test } from "vitest";
import { parseFailpoints } from "../../src/failpoints.ts";
import { Breaker, type Passage } from "../../src/vault/breaker.ts";

const OPTIONS = { failures: 3, openMs: 1_000, maxOpenMs: 60_000 };
const GOOGLE = "https://google.example ours";

function breaker() {
  const clock = { ms: 0 };
  const of = new Breaker({ ...OPTIONS, now: () => clock.ms });
  /** One that is let through. */
  const passed = (key = GOOGLE, who = "somebody"): Passage => {
    const entered = of.enter(key, who);
    if (typeof entered === "number") throw new Error(`left alone for ${entered} ms`);
    return entered;
  };
  const fail = (times: number, retryAfterMs: number | null = null, key = GOOGLE) => {
    for (const passage of Array.from({ length: times }, () => passed(key))) passage.failed(retryAfterMs);
  };
  /** For how long nobody is let through. */
  const wait = (key = GOOGLE): number => {
    const entered = of.enter(key, "a look");
    if (typeof entered === "number") return entered;
    entered.abandoned();
    return 0;
  };
  return { clock, of, passed, fail, wait };
}

test("opens after failures in a row, for its key alone; an answer in between starts the count anew", () => {
  const { passed, fail, wait } = breaker();
  fail(2);
  passed().answered();
  fail(2);
  expect(wait()).toBe(0);
  fail(1);
  expect([wait(), wait("https://google.example of another"), wait("https://cloud.example ours")]).toEqual([1_000, 0, 0]);
});

test("lets one through when its time is over, however many come before that one is heard of, and it decides for all", () => {
  const { fail, wait, passed, clock, of } = breaker();
  fail(3);
  clock.ms = 999;
  expect(wait()).toBe(1);
  clock.ms = 1_000;
  const probe = passed();
  const others = Array.from({ length: 4 }, (_, n) => of.enter(GOOGLE, `other ${n}`));
  expect(others.every((entered) => typeof entered === "number" && entered > 0)).toBe(true);
  probe.failed(null);
  clock.ms = 2_999;
  expect(wait()).toBe(1);
  clock.ms = 3_000;
  passed().abandoned();
  passed().answered();
  expect([wait(), typeof of.enter(GOOGLE, "a"), typeof of.enter(GOOGLE, "b")]).toEqual([0, "object", "object"]);
});

test("what is said of one that was let through counts once, and a straggler does not pass for the probe", () => {
  const { fail, wait, passed, clock, of } = breaker();
  const straggler = passed();
  const twice = passed();
  twice.abandoned();
  twice.failed(null);
  fail(3);
  clock.ms = 1_000;
  const probe = passed();
  straggler.failed(null);
  expect(wait()).toBeGreaterThan(0);
  probe.answered();
  expect([wait(), of.mayTry("somebody")]).toEqual([0, true]);
});

test("says of somebody who was held up whether it is worth a try, and of a stranger that it is", () => {
  const { fail, of, clock, passed } = breaker();
  fail(3);
  expect(of.mayTry("a")).toBe(true);
  expect(typeof of.enter(GOOGLE, "a")).toBe("number");
  expect([of.mayTry("a"), of.mayTry("somebody"), of.mayTry("b")]).toEqual([false, false, true]);
  clock.ms = 1_000;
  expect(of.mayTry("a")).toBe(true);
  const probe = passed();
  expect(of.mayTry("a")).toBe(false);
  probe.answered();
  expect(of.mayTry("a")).toBe(true);
});

test("stragglers that fail while it is open do not lengthen it", () => {
  const { passed, wait, clock } = breaker();
  for (const passage of Array.from({ length: 30 }, () => passed())) passage.failed(null);
  clock.ms = 1_000;
  expect(wait()).toBe(0);
});

test("obeys Retry-After at the first time, within its cap", () => {
  const { fail, wait, passed, clock } = breaker();
  fail(1, 20_000);
  clock.ms = 19_999;
  expect(wait()).toBe(1);
  clock.ms = 20_000;
  passed().answered();
  fail(1, 10 ** 12);
  expect(wait()).toBe(60_000);
});

test("grows while the provider is down, up to its cap", () => {
  const { fail, wait, clock } = breaker();
  fail(3);
  const pauses: number[] = [];
  for (let round = 0; round < 9; round++) {
    const since = clock.ms;
    while (wait() > 0) clock.ms += 500;
    pauses.push(clock.ms - since);
    fail(1);
  }
  expect(pauses).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
});

test("remembers no more than some thousand", () => {
  const { of, fail, wait } = breaker();
  for (let n = 0; n < 10_001; n++) fail(3, null, `key ${n}`);
  expect([wait("key 0"), wait("key 1"), wait("key 10000")]).toEqual([0, 1_000, 1_000]);
  expect(of.mayTry("nobody")).toBe(true);
});

test("a failpoint acts once and only at its place; one that does not exist is refused by its position", async () => {
  const failpoint = parseFailpoints(["after-reply=error"]);
  await failpoint("before-call");
  await expect(failpoint("after-reply")).rejects.toThrow("failpoint after-reply");
  await failpoint("after-reply");
  for (const wrong of ["after-lunch=kill", "after-send", "after-send=explode"]) expect(() => parseFailpoints(["before-call=kill", wrong])).toThrow("entry 2");
});
