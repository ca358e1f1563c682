import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { LATE, migratedNode, startReplicas, through, WELL } from "../support/ha.ts";
import type { Node } from "../support/standby.ts";
import { startProxy, type TcpProxy } from "../support/tcp-proxy.ts";

const LONG = process.env["FLOW_TEST_LONG"] !== undefined;
/** How long the network is cut, ms. */
const CUT_MS = LONG ? 60_000 : 3_000;
/** What is said while it is cut. */
const AWAY_OR_LATE = /^rest 50[34]/;
/** The short form has short times in proportion. */
const SHORT = { CREDENTIALS_GRPC_DEADLINE_MS: "2000", CREDENTIALS_DATABASE_STATEMENT_TIMEOUT_MS: "1000" };

let node: Node;
beforeAll(async () => {
  node = await migratedNode();
});
afterAll(() => node[Symbol.asyncDispose]());

/** How the network is cut, how it comes back, and the times of the replicas. */
const WAYS: readonly (readonly [string, (network: TcpProxy) => void, (network: TcpProxy) => void, Record<string, string>])[] = [
  ["connections break and are refused", (network) => network.cut(), (network) => network.heal(), LONG ? {} : SHORT],
  ["packets vanish, and go on afterwards", (network) => network.freeze(), (network) => network.heal(), LONG ? {} : SHORT],
  // Nothing tells of such connections but the replicas' own clocks: the system's signs of life reach the proxy, where they would vanish in a network.
  ["packets vanish, and connections with them", (network) => network.freeze(), (network) => network.abandon(), SHORT],
];

test.each(WAYS)(`the network to the database is cut for ${CUT_MS / 1000} s: %s. Calls are answered meanwhile, and go on by themselves`, async (_, cut, mend, times) => {
  await using network = await startProxy(node.target);
  await using replicas = await startReplicas(2, through(network.target), times);
  const { load } = replicas;
  expect(await load.until(200)).toEqual(WELL);
  cut(network);
  await sleep(CUT_MS);
  expect([...load.outcomes].some((outcome) => AWAY_OR_LATE.test(outcome))).toBe(true);
  expect(await replicas.ready()).toEqual([false, false]);
  mend(network);
  await replicas.recovered();
  expect(await replicas.faults(node.run, LATE)).toEqual([]);
}, CUT_MS + 120_000);
