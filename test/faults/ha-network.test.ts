import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { LATE, migratedNode, type Replicas, startReplicas, through, WELL } from "../support/ha.ts";
import type { Node } from "../support/standby.ts";
import { startProxy, type TcpProxy } from "../support/tcp-proxy.ts";

const LONG = process.env["FLOW_TEST_LONG"] !== undefined;
/** Calls before it. */
const CALLS = LONG ? 200 : 80;
/** How long the network is cut, ms. */
const CUT_MS = LONG ? 60_000 : 3_000;
/** What is said while it is cut. */
const AWAY_OR_LATE = /^(rest 50[34]|grpc (UNAVAILABLE|DEADLINE_EXCEEDED)$)/;
const SHORT = { CREDENTIALS_GRPC_DEADLINE_MS: "2000", CREDENTIALS_DATABASE_STATEMENT_TIMEOUT_MS: "1000" };
/** The short form has short times in proportion. */
const USUAL = LONG ? {} : SHORT;

/** Replicas and their way to the database. */
interface Place {
  readonly network: TcpProxy;
  readonly replicas: Replicas;
}

let node: Node;
/** By the times of the replicas, which go on from one cut to the next. */
const places = new Map<Record<string, string>, Place>();
beforeAll(async () => {
  node = await migratedNode();
});
afterAll(async () => {
  for (const { network, replicas } of places.values()) {
    await replicas[Symbol.asyncDispose]();
    await network[Symbol.asyncDispose]();
  }
  await node[Symbol.asyncDispose]();
});

async function placeOf(times: Record<string, string>): Promise<Place> {
  const network = await startProxy(node.target);
  const place = { network, replicas: await startReplicas(2, through(network.target), times) };
  places.set(times, place);
  return place;
}

/** How the network is cut, how it comes back, and the times of the replicas. */
const WAYS: readonly (readonly [string, (network: TcpProxy) => void, (network: TcpProxy) => void, Record<string, string>])[] = [
  ["connections break and are refused", (network) => network.cut(), (network) => network.heal(), USUAL],
  ["packets vanish, and go on afterwards", (network) => network.freeze(), (network) => network.heal(), USUAL],
  // Nothing tells of such connections but the replicas' own clocks: the system's signs of life reach the proxy, where they would vanish in a network.
  ["packets vanish, and connections with them", (network) => network.freeze(), (network) => network.abandon(), SHORT],
];

test.each(WAYS)(`the network to the database is cut for ${CUT_MS / 1000} s: %s. Calls are answered meanwhile, and go on by themselves`, async (_, cut, mend, times) => {
  const { network, replicas } = places.get(times) ?? (await placeOf(times));
  expect(await replicas.load.until(CALLS)).toEqual(WELL);
  cut(network);
  await sleep(CUT_MS);
  // Whatever was under way has its own time to end.
  await expect.poll(() => replicas.load.lately().some((outcome) => AWAY_OR_LATE.test(outcome)), { timeout: 30_000 }).toBe(true);
  expect(await replicas.ready()).toEqual([false, false]);
  mend(network);
  await replicas.recovered();
}, CUT_MS + 120_000);

test("nothing that was acknowledged is lost by any of it, and nothing else was said than may be", async () => {
  for (const { replicas } of places.values()) expect(await replicas.faults(node.run, LATE)).toEqual([]);
}, 120_000);
