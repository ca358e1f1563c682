import { expect, test } from "vitest";
import { Wheel } from "../../src/events/watch-wheel.ts";

test("each thing comes up once in a period, spread over it, however often is looked and also after a long pause", () => {
  const wheel = new Wheel<number>(3_200, 0);
  for (let n = 0; n < 320; n++) wheel.add(n);
  const seen = new Map<number, number>();
  let most = 0;
  for (let now = 0; now <= 6_400; now += 50) {
    const due = [...wheel.due(now)];
    most = Math.max(most, due.length);
    for (const item of due) seen.set(item, (seen.get(item) ?? 0) + 1);
  }
  expect([seen.size, new Set(seen.values()), most]).toEqual([320, new Set([2]), 10]);
  expect([...wheel.due(1_000_000)].toSorted((a, b) => a - b)).toEqual(Array.from({ length: 320 }, (_, n) => n));
  for (let n = 0; n < 319; n++) wheel.delete(n);
  expect([...wheel.due(1_010_000)]).toEqual([319]);
});
