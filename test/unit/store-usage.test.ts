import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import type { Database } from "../../src/store/db.ts";
import type { Statement } from "../../src/store/transaction.ts";
import { UsageRecorder } from "../../src/store/usage.ts";
import { createLog } from "../../src/log.ts";

const use = () => ({ organizationId: randomUUID(), credentialId: randomUUID(), serviceAccountId: randomUUID(), flowId: null, runId: null });

/** A recorder whose statements a test lets fail, and what it wrote. */
function recorder() {
  const written: { name: string; rows: readonly Record<string, unknown>[] }[] = [];
  let fails: (statement: Statement, count: number) => boolean = () => false;
  const write = async (_organizations: readonly string[], statement: Statement, [json]: readonly unknown[]) => {
    if (fails(statement, written.length)) throw new Error("not now");
    written.push({ name: statement.name, rows: JSON.parse(String(json)) as Record<string, unknown>[] });
    return [];
  };
  const usage = new UsageRecorder({ write } as unknown as Database, createLog("error", { write: () => {} }));
  const rowsOf = (name: string) => written.filter((statement) => statement.name === name).flatMap(({ rows }) => rows);
  return { usage, rowsOf, failing: (when: typeof fails) => void (fails = when) };
}

test("a use is counted once, however often what is written beside it fails", async () => {
  const { usage, rowsOf, failing } = recorder();
  failing(({ name }) => name.startsWith("service_account"));
  const keyId = randomUUID();
  const before = Date.now();
  usage.credential(use());
  usage.key(randomUUID(), keyId);
  const noted = Date.now();
  for (let time = 0; time < 3; time++) await usage.flush();
  expect(rowsOf("credential_use_write")).toMatchObject([{ uses: 1 }]);
  await new Promise((resolve) => setTimeout(resolve, 5));
  failing(() => false);
  await usage.close();
  const [{ id, at_ms: at } = {}] = rowsOf("service_account_key_use_write");
  expect(id).toBe(keyId);
  expect(at).toBeGreaterThanOrEqual(before);
  expect(at).toBeLessThanOrEqual(noted);
});

test("of many uses only those of the batches that failed are written again", async () => {
  const { usage, rowsOf, failing } = recorder();
  for (let count = 0; count < 2_500; count++) usage.credential(use());
  failing((_statement, done) => done === 1);
  await usage.flush();
  expect(rowsOf("credential_use_write")).toHaveLength(1_000);
  failing(() => false);
  await usage.close();
  expect(rowsOf("credential_use_write")).toHaveLength(2_500);
});

test("a description is waited for only where something of its credential is noted", async () => {
  const { usage, rowsOf } = recorder();
  const noted = use();
  usage.credential(noted);
  await usage.flush(randomUUID());
  expect(rowsOf("credential_use_write")).toEqual([]);
  await usage.flush(noted.credentialId);
  expect(rowsOf("credential_use_write")).toHaveLength(1);
  await usage.close();
});

test("however many wait for what is noted, one write is under way and one behind it, and who has nothing noted waits for the first alone", async () => {
  const held: PromiseWithResolvers<void>[] = [];
  const write = async () => {
    const one = Promise.withResolvers<void>();
    held.push(one);
    await one.promise;
    return [];
  };
  const usage = new UsageRecorder({ write } as unknown as Database, createLog("error", { write: () => {} }));
  const [first, second] = [use(), use()];
  usage.credential(first);
  const under = usage.flush(first.credentialId);
  await expect.poll(() => held.length).toBe(1);
  usage.credential(second);
  const behind = Array.from({ length: 50 }, () => usage.flush(second.credentialId));
  const free = usage.flush(randomUUID());
  held[0]?.resolve();
  await Promise.all([under, free]);
  await expect.poll(() => held.length).toBe(2);
  held[1]?.resolve();
  await Promise.all(behind);
  expect(held).toHaveLength(2);
  await usage.close();
});
