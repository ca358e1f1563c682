import { expect, it } from "vitest";
import { shared } from "../../src/rest/shared.ts";

/** Something that is made when its maker says so, and a clock to turn. */
function workshop() {
  const asked: PromiseWithResolvers<string>[] = [];
  const clock = { ms: 0 };
  const make = () => {
    const next = Promise.withResolvers<string>();
    asked.push(next);
    return next.promise;
  };
  return { asked, clock, ask: shared(make, 1_000, () => clock.ms) };
}

it("is made once for all who ask meanwhile, and for as long after that as it holds", async () => {
  const { asked, clock, ask } = workshop();
  const both = [ask(), ask()];
  clock.ms = 60_000;
  both.push(ask());
  asked[0]?.resolve("one");
  expect(await Promise.all(both)).toEqual(["one", "one", "one"]);
  clock.ms = 60_999;
  expect(await ask()).toBe("one");
  expect(asked).toHaveLength(1);
  clock.ms = 61_000;
  const again = ask();
  asked[1]?.resolve("two");
  expect([await again, await ask(), asked.length]).toEqual(["two", "two", 2]);
});

it("fails for all who wait for it, and is tried again by the next", async () => {
  const { asked, ask } = workshop();
  const both = [ask(), ask()];
  asked[0]?.reject(new Error("no"));
  expect((await Promise.allSettled(both)).map(({ status }) => status)).toEqual(["rejected", "rejected"]);
  const next = ask();
  asked[1]?.resolve("one");
  expect(await next).toBe("one");
});
