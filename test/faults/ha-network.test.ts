import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { LATE, migrated, startReplicas, through, WELL } from "../support/ha.ts";
import { type Node, startNode } from "../support/standby.ts";
import { startProxy, type TcpProxy } from "../support/tcp-proxy.ts";

const LONG = process.env["FLOW_TEST_LONG"] !== undefined;
/** How long the network is cut, ms. */
const CUT_MS = LONG ? 60_000 : 3_000;
/** The short form has short times in proportion; the long one has everything as it is by default. */
const TIMES: Record<string, string> = LONG ? {} : { CREDENTIALS_GRPC_DEADLINE_MS: "2000", CREDENTIALS_DATABASE_STATEMENT_TIMEOUT_MS: "1000" };

let folder: string;
let node: Node;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "flow-network-"));
  chmodSync(folder, 0o711);
  node = await startNode(folder);
  await migrated(node);
});
afterAll(async () => {
  await node[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

/** How it is cut, and how it comes back. */
const CUTS: Readonly<Record<string, readonly [(network: TcpProxy) => void, (network: TcpProxy) => void]>> = {
  "connections break and are refused": [(network) => network.cut(), (network) => network.heal()],
  "packets vanish, and go on afterwards": [(network) => network.freeze(), (network) => network.heal()],
  "packets vanish, and connections with them": [(network) => network.freeze(), (network) => network.abandon()],
};

test(`the network to the database is cut for ${CUT_MS / 1000} s in every way: calls are answered meanwhile, and go on by themselves`, async () => {
  await using network = await startProxy(node.target);
  await using replicas = await startReplicas(2, through(network.target), TIMES);
  const { load } = replicas;
  for (const [way, [cut, mend]] of Object.entries(CUTS)) {
    expect(await load.until(200), way).toEqual(WELL);
    cut(network);
    await sleep(CUT_MS);
    expect(await replicas.ready(), way).toEqual([false, false]);
    mend(network);
    await replicas.recovered();
  }
  expect([...load.outcomes]).toEqual(expect.arrayContaining(["grpc UNAVAILABLE", "rest 503 repository_error", "rest 504 service_error"]));
  expect(await replicas.faults(node.run, LATE)).toEqual([]);
}, 3 * (CUT_MS + 60_000));
