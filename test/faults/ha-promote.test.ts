import { expect, test } from "vitest";
import { migrated, startReplicas, through, WELL } from "../support/ha.ts";
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
  expect(await load.until(CALLS)).toEqual(WELL);

  await pair.primary.kill();
  await expect.poll(() => replicas.ready(), { timeout: 10_000 }).toEqual([false, false]);
  // Operators need longer than this to promote; in the meantime the address leads nowhere.
  await expect.poll(() => [...load.outcomes], { timeout: 10_000 }).toEqual(expect.arrayContaining(["grpc UNAVAILABLE", "rest 503 repository_error"]));
  await pair.promote();
  address.to(pair.standby.target);
  await replicas.recovered();

  expect(await replicas.faults(pair.standby.run)).toEqual([]);
}, 120_000);
