import { expect, test } from "vitest";
import { AWAY, migrated, startReplicas, through } from "../support/ha.ts";
import { invariantFaults } from "../support/invariants.ts";
import { startPair } from "../support/standby.ts";
import { startProxy } from "../support/tcp-proxy.ts";

const LONG = process.env["FLOW_TEST_LONG"] !== undefined;
const ROUNDS = LONG ? 10 : 1;
/** Calls that end well before the primary is lost. */
const CALLS = LONG ? 1_500 : 400;

test.each(Array.from({ length: ROUNDS }, (_, round) => round + 1))("the primary is killed and its synchronous standby promoted: nothing that was acknowledged is lost, and calls go on (round %i)", async () => {
  await using pair = await startPair("synchronous", migrated);
  await using address = await startProxy(pair.primary.target);
  await using replicas = await startReplicas(2, through(address.target));
  const { load } = replicas;
  await load.succeeds(CALLS);
  expect([...load.outcomes.keys()].toSorted()).toEqual(["grpc OK", "rest OK"]);

  await pair.primary.kill();
  await expect.poll(() => replicas.ready(), { timeout: 10_000 }).toEqual([false, false]);
  // Operators need longer than this to promote; in the meantime the address leads nowhere.
  await expect.poll(() => [...load.outcomes.keys()], { timeout: 10_000 }).toEqual(expect.arrayContaining(["grpc UNAVAILABLE", "rest 503 repository_error"]));
  await pair.promote();
  address.to(pair.standby.target);
  await replicas.recovered();

  load.clear();
  await load.succeeds(200);
  expect([...load.outcomes.keys()].toSorted()).toEqual(["grpc OK", "rest OK"]);
  await load.stop();
  expect(load.wrong).toEqual([]);
  expect(await load.losses(pair.standby.run)).toEqual([]);
  expect(await invariantFaults(pair.standby.run, load.organizationId)).toEqual([]);
  expect(replicas.output()).not.toContain(load.canary);
  expect([...load.outcomes.keys()].filter((outcome) => !(AWAY as readonly string[]).includes(outcome))).toEqual([]);
}, 120_000);
