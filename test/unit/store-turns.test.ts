import { expect, test } from "vitest";
import { type TurnOptions, Turns } from "../../src/store/turns.ts";

/** Turns whose works end when they are told to, and the order in which they began. */
function scene(total: number, perOrganization: number) {
  const turns = new Turns({ total, perOrganization });
  const began: string[] = [];
  const ends = new Map<string, () => void>();
  const settled = () => new Promise((resolve) => setImmediate(resolve));
  return {
    began,
    enter: (name: string, options?: TurnOptions) =>
      turns.run(name.slice(0, 1), () => new Promise<void>((resolve) => {
        began.push(name);
        ends.set(name, resolve);
      }), options),
    async end(name: string): Promise<void> {
      ends.get(name)?.();
      await settled();
    },
    settled,
  };
}

test("so many work at a time, and however many wait, all have their turn in order", async () => {
  const { began, enter, end, settled } = scene(2, 2);
  const names = Array.from({ length: 500 }, (_, n) => `a${n}`);
  const all = names.map((name) => enter(name));
  await settled();
  expect(began).toEqual(["a0", "a1"]);
  for (const name of names) await end(name);
  await Promise.all(all);
  expect(began).toEqual(names);
});

test("an organization has its share and no more; organizations take turns, and what is urgent goes first", async () => {
  const { began, enter, end, settled } = scene(3, 2);
  const all = ["a1", "a2", "a3", "a4", "b1", "b2", "c1"].map((name) => enter(name));
  all.push(enter("a5", { urgent: true }));
  await settled();
  expect(began).toEqual(["a1", "a2", "b1"]);
  for (const name of ["a1", "b1", "a2", "c1"]) await end(name);
  expect(began.slice(3)).toEqual(["a5", "b2", "c1", "a3"]);
  for (const name of ["a5", "b2", "a3", "a4"]) await end(name);
  await Promise.all(all);
});

test("whoever gives up waiting is not waited for; what fails gives its turn back", async () => {
  const { began, enter, end, settled } = scene(1, 1);
  const turns = new Turns({ total: 1, perOrganization: 1 });
  await expect(turns.run("a", () => Promise.reject(new Error("no")))).rejects.toThrow("no");
  expect(await turns.run("a", async () => 7)).toBe(7);
  const over = new AbortController();
  const first = enter("a1");
  const leaves = enter("a2", { signal: over.signal });
  const stays = enter("a3");
  over.abort(new Error("left"));
  await expect(leaves).rejects.toThrow("left");
  await expect(enter("a4", { signal: over.signal })).rejects.toThrow("left");
  await end("a1");
  await end("a3");
  await Promise.all([first, stays]);
  await settled();
  expect(began).toEqual(["a1", "a3"]);
});
