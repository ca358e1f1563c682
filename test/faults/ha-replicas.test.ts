import { expect, test } from "vitest";
import { startReplicas, WELL } from "../support/ha.ts";
import { connect, freshDatabase } from "../support/postgres.ts";

const LONG = process.env["FLOW_TEST_LONG"] !== undefined;
const KILLS = LONG ? 20 : 1;

test(`one of two replicas is killed (${KILLS} in all): executors notice nothing, and users lose nothing that was acknowledged`, async () => {
  await using database = await freshDatabase();
  await using replicas = await startReplicas(2, database.applicationUrl);
  const { load } = replicas;
  for (let kill = 0; kill < KILLS; kill++) {
    expect(await load.until(200)).toEqual(kill === 0 ? WELL : expect.arrayContaining([...WELL]));
    await replicas.kill(kill % 2);
    await replicas.recovered();
  }
  // The client of an executor knows both addresses, and asks again by itself.
  expect([...load.outcomes].filter((outcome) => outcome.startsWith("grpc"))).toEqual(["grpc OK"]);
  await using superuser = await connect(database.superuserUrl);
  expect(await replicas.faults(async (sql, values = []) => (await superuser.query(sql, [...values])).rows, ["rest unreachable"])).toEqual([]);
}, LONG ? 600_000 : 60_000);
