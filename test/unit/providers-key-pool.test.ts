import { generateKeyPairSync } from "node:crypto";
import { setImmediate as turn } from "node:timers/promises";
import { expect, test } from "vitest";
import type { KeyVerdict } from "../../src/providers/key-open.ts";
import { createKeyPool, type KeyPoolOptions } from "../../src/providers/key-pool.ts";

const PASSPHRASE = "correct horse";
const text = generateKeyPairSync("ed25519").privateKey.export({ format: "pem", type: "pkcs8", cipher: "aes-128-cbc", passphrase: PASSPHRASE }).toString();
const job = { text, passphrase: PASSPHRASE, form: { kind: "pkcs8", encrypted: true } } as const;
const LIMITS: KeyPoolOptions = { running: { all: 2, each: 1 }, waiting: { all: 6, each: 2 }, deadlineMs: 20_000 };

/** A pool whose keys open when a test says so; each is known by its passphrase. */
function scripted() {
  const begun: string[] = [];
  const open = new Map<string, PromiseWithResolvers<KeyVerdict>>();
  const pool = createKeyPool({
    ...LIMITS,
    open({ passphrase }) {
      begun.push(passphrase);
      const opening = Promise.withResolvers<KeyVerdict>();
      open.set(passphrase, opening);
      return opening.promise;
    },
  });
  const outcomes: Record<string, string> = {};
  const post = (fairness: string, name: string, signal = new AbortController().signal) => {
    pool({ ...job, passphrase: name }, { fairness, signal }).then(
      (verdict) => (outcomes[name] = verdict),
      (error: { reason?: string; message: string }) => (outcomes[name] = error.reason ?? error.message),
    );
  };
  const finish = async (name: string) => {
    open.get(name)?.resolve("opened");
    await turn();
  };
  return { begun, outcomes, post, finish, fail: (name: string) => open.get(name)?.reject(new Error("broken")) };
}

test("one organization has one key opened and two waiting; the next is refused, and nobody else waits for it", async () => {
  const { begun, outcomes, post, finish } = scripted();
  for (const name of ["a1", "a2", "a3", "a4"]) post("a", name);
  post("b", "b1");
  await turn();
  expect(begun).toEqual(["a1", "b1"]);
  expect(outcomes).toEqual({ a4: "OVERLOADED" });
  await finish("b1");
  expect(begun).toEqual(["a1", "b1"]);
  for (const name of ["a1", "a2", "a3"]) await finish(name);
  expect(outcomes).toEqual({ a1: "opened", a2: "opened", a3: "opened", a4: "OVERLOADED", b1: "opened" });
});

test("organizations take turns, each with its own in order", async () => {
  const { begun, post, finish } = scripted();
  for (const name of ["a1", "a2", "a3", "b1", "b2", "b3", "c1", "c2"]) post(name.charAt(0), name);
  await turn();
  for (let next = 0; next < 8; next++) await finish(begun[next] ?? "none");
  expect(begun).toEqual(["a1", "b1", "c1", "a2", "b2", "c2", "a3", "b3"]);
});

test("no more wait in all than may", async () => {
  const { outcomes, post, finish } = scripted();
  for (const name of ["a1", "b1", "c1", "c2", "d1", "d2", "e1", "e2", "f1"]) post(name.charAt(0), name);
  await turn();
  expect(outcomes).toEqual({ f1: "OVERLOADED" });
  await finish("a1");
  post("f", "f2");
  await turn();
  expect(outcomes).toEqual({ f1: "OVERLOADED", a1: "opened" });
});

test("a key that nobody waits for any longer leaves its place to the next", async () => {
  const { begun, outcomes, post, finish } = scripted();
  const gone = new AbortController();
  post("a", "a1");
  post("a", "a2", gone.signal);
  post("a", "a3");
  post("a", "a4");
  gone.abort(new Error("gone"));
  await turn();
  expect(outcomes).toEqual({ a2: "gone", a4: "OVERLOADED" });
  post("a", "a5");
  await finish("a1");
  await finish("a3");
  expect(begun).toEqual(["a1", "a3", "a5"]);
  post("a", "a6", AbortSignal.abort(new Error("too late")));
  await turn();
  expect([outcomes["a6"], begun.length]).toEqual(["too late", 3]);
});

test("a key that breaks frees its place", async () => {
  const { begun, outcomes, post, fail } = scripted();
  post("a", "a1");
  post("a", "a2");
  await turn();
  fail("a1");
  await turn();
  expect([outcomes, begun]).toEqual([{ a1: "broken" }, ["a1", "a2"]]);
});

test("a worker gives up at its deadline or where nobody waits, and is free again", async () => {
  const signal = new AbortController().signal;
  const late = createKeyPool({ ...LIMITS, deadlineMs: 0 });
  for (let attempt = 0; attempt < 2; attempt++) await expect(late(job, { fairness: "a", signal })).rejects.toMatchObject({ reason: "OVERLOADED" });
  const pool = createKeyPool(LIMITS);
  const gone = new AbortController();
  const opening = pool(job, { fairness: "a", signal: gone.signal });
  gone.abort(new Error("gone"));
  await expect(opening).rejects.toThrow("gone");
  expect(await pool(job, { fairness: "a", signal })).toBe("opened");
});
