import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { migratedNode, RECOVERY_MS, type Replicas, startReplicas, through } from "../support/ha.ts";
import { pgbouncerAvailable, startPgbouncer } from "../support/pgbouncer.ts";
import type { Node } from "../support/standby.ts";

const LONG = process.env["FLOW_TEST_LONG"] !== undefined;
const ROUNDS = LONG ? 10 : 1;

let node: Node;
beforeAll(async () => {
  node = await migratedNode();
});
afterAll(() => node[Symbol.asyncDispose]());

/** Ends the server under load, and starts it again. */
async function survives(replicas: Replicas, ends: readonly (() => Promise<void>)[]): Promise<void> {
  const { load } = replicas;
  for (let round = 0; round < ROUNDS; round++) {
    for (const end of ends) {
      await load.until(200);
      await end();
      await expect.poll(() => [...load.outcomes], { timeout: RECOVERY_MS }).toContain("grpc UNAVAILABLE");
      await node.start();
      await replicas.recovered();
    }
  }
  expect(await replicas.faults(node.run)).toEqual([]);
}

test("PostgreSQL is stopped, or killed, and started again: calls say so meanwhile, go on by themselves, and nothing that was acknowledged is lost", async () => {
  await using replicas = await startReplicas(2, through(node.target));
  await survives(replicas, [() => node.stop(), () => node.kill()]);
}, LONG ? 900_000 : 120_000);

describe.runIf(pgbouncerAvailable())("with pgbouncer in between", () => {
  test("the same", async () => {
    await using bouncer = await startPgbouncer(through(node.target), 8);
    await using replicas = await startReplicas(2, bouncer.url, { CREDENTIALS_DATABASE_PREPARED: "off" });
    await survives(replicas, [() => node.kill()]);
  }, LONG ? 900_000 : 120_000);
});
