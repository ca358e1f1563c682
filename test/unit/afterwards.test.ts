import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";
import { afterwards } from "../../src/grpc/afterwards.ts";

const turn = () => new Promise((resolve) => setImmediate(resolve));

test("what waits is done in its order, and not before two turns of the event loop", async () => {
  const done: number[] = [];
  for (const number of [1, 2, 3]) afterwards(() => done.push(number));
  await turn();
  expect(done).toEqual([]);
  await turn();
  await turn();
  expect(done).toEqual([1, 2, 3]);
  afterwards(() => done.push(4));
  await turn();
  await turn();
  await turn();
  expect(done).toEqual([1, 2, 3, 4]);
});

test("what waits is done where the process ends at once", () => {
  const script = `const { afterwards } = await import(${JSON.stringify(new URL("../../src/grpc/afterwards.ts", import.meta.url))}); afterwards(() => console.log("told")); process.exit(3);`;
  const { status, stdout } = spawnSync(process.execPath, ["--input-type=module", "--eval", script], { encoding: "utf8" });
  expect([status, stdout]).toEqual([3, "told\n"]);
});
