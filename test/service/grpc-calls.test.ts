import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { status } from "@grpc/grpc-js";
import { expect, it, test } from "vitest";
import type { Call } from "../../src/domain/access.ts";
import { CredentialError } from "../../src/domain/errors.ts";
import type { CredentialRecord } from "../../src/domain/credential.ts";
import { call, metadataOf, rawCall, record, RPCS, startGrpc, testAuthenticator } from "../support/grpc.ts";

const get = { credentialId: randomUUID() };

/** A use case that is busy until it is told to go on, and the calls it has seen. */
function busy() {
  const calls: Call[] = [];
  const release: (() => void)[] = [];
  const getCredential = async (grant: { call: Call }): Promise<CredentialRecord> => {
    calls.push(grant.call);
    await new Promise<void>((resolve) => release.push(resolve));
    return record();
  };
  return { calls, getCredential, finish: () => release.forEach((resolve) => resolve()) };
}

it.each([
  ["gives a call without a deadline the server's", undefined],
  ["caps a deadline that is too far away", 3_600_000],
])("%s", async (_what, deadlineInMs) => {
  const work = busy();
  await using grpc = await startGrpc({ vault: { getCredential: work.getCredential }, options: { deadlineMs: 50 } });
  const options = deadlineInMs === undefined ? {} : { deadline: Date.now() + deadlineInMs };
  const answer = await call(grpc.client, RPCS.getCredential, get, metadataOf("user"), options);
  expect(answer).toMatchObject({ reason: "DEADLINE_EXCEEDED", facts: { http_status: "504" } });
  expect(work.calls[0]?.signal.reason).toBeInstanceOf(CredentialError);
  work.finish();
});

it("takes a deadline beyond what a timer can hold for none", async () => {
  const work = busy();
  await using grpc = await startGrpc({ vault: { getCredential: work.getCredential }, options: { deadlineMs: 50 } });
  const request = RPCS.getCredential.requestSerialize(get);
  const framed = Buffer.concat([Buffer.from([0, 0, 0, 0, request.length]), request]);
  const answer = await rawCall(grpc.target, RPCS.getCredential.path, { authorization: "Bearer user", "grpc-timeout": "597H" }, framed);
  expect(answer).toMatchObject({ "grpc-status": String(status.DEADLINE_EXCEEDED), "grpc-status-details-bin": expect.any(String) });
  work.finish();
});

it("ends a call at the caller's own deadline, tells the use case, and drops what it gives later", async () => {
  const work = busy();
  await using grpc = await startGrpc({ vault: { getCredential: work.getCredential } });
  const answer = await call(grpc.client, RPCS.getCredential, get, metadataOf("user"), { deadline: Date.now() + 200 });
  expect(answer.error?.code).toBe(status.DEADLINE_EXCEEDED);
  await expect.poll(() => work.calls[0]?.signal.aborted).toBe(true);
  work.finish();
  await sleep(20);
  expect(grpc.calls()).toMatchObject([{ code: "DEADLINE_EXCEEDED", reason: "DEADLINE_EXCEEDED" }]);
  expect(grpc.events).toEqual([]);
});

it("tells the use case when the caller cancels, and answers nobody twice", async () => {
  const work = busy();
  await using grpc = await startGrpc({ vault: { getCredential: work.getCredential } });
  const { requestSerialize, responseDeserialize, path } = RPCS.getCredential;
  const ended = new Promise<number | undefined>((resolve) => {
    const sent = grpc.client.makeUnaryRequest(path, requestSerialize, responseDeserialize, get, metadataOf("user"), (error) => resolve(error?.code));
    void expect.poll(() => work.calls.length).toBe(1).then(() => sent.cancel());
  });
  expect(await ended).toBe(status.CANCELLED);
  await expect.poll(() => work.calls[0]?.signal.reason).toMatchObject({ reason: "CANCELLED" });
  work.finish();
  await sleep(20);
  expect(grpc.calls()).toMatchObject([{ code: "CANCELLED" }]);
});

it("does not start a use case for a caller that left while it was being authenticated", async () => {
  let proceed = () => {};
  const held = new Promise<void>((resolve) => (proceed = resolve));
  const inner = testAuthenticator();
  const authenticator = { ...inner, authenticate: async (presented: Parameters<typeof inner.authenticate>[0]) => held.then(() => inner.authenticate(presented)) };
  const work = busy();
  await using grpc = await startGrpc({ vault: { getCredential: work.getCredential }, deps: { authenticator } });
  await call(grpc.client, RPCS.getCredential, get, metadataOf("user"), { deadline: Date.now() + 100 });
  await expect.poll(() => grpc.calls().length).toBe(1);
  proceed();
  await sleep(20);
  expect(work.calls).toEqual([]);
});

it("does not abort a call that was answered", async () => {
  const seen: Call[] = [];
  const getCredential = async (grant: { call: Call }) => {
    seen.push(grant.call);
    return record();
  };
  await using grpc = await startGrpc({ vault: { getCredential } });
  expect((await call(grpc.client, RPCS.getCredential, get, metadataOf("user"))).error).toBeUndefined();
  await sleep(20);
  expect(seen[0]?.signal.aborted).toBe(false);
});

it("refuses a request message above the limit and takes one at the limit", async () => {
  await using grpc = await startGrpc({ options: { maxMessageBytes: 4_096 } });
  const create = (length: number) => {
    const request = { provider: 3, credentialType: 5, credentials: { password: "x".repeat(length) } } as const;
    return call(grpc.client, RPCS.createCredential, request, metadataOf("user"));
  };
  expect((await create(4_000)).error).toBeUndefined();
  expect((await create(4_097)).error?.code).toBe(status.RESOURCE_EXHAUSTED);
});

const { path } = RPCS.listIntegrations;
const PAIRS: Record<string, string> = {
  ":path": path,
  ":method": "POST",
  ":scheme": "http",
  "content-type": "application/grpc",
  te: "trailers",
  authorization: "Bearer user",
};

const INVALID = { "grpc-status": String(status.INVALID_ARGUMENT), "grpc-message": "Invalid%20request%20metadata" };

/** The header list of a raw call, padded to a size as RFC 9113 section 6.5.2 counts it. */
function padded(target: string, size: number): Record<string, string> {
  const used = Object.entries({ ...PAIRS, ":authority": target, "x-pad": "" }).reduce((sum, [name, value]) => sum + name.length + value.length + 32, 0);
  return { authorization: "Bearer user", "x-pad": "p".repeat(size - used) };
}

it("takes metadata of exactly the largest size and turns one byte more away before it is authenticated", async () => {
  const authenticator = testAuthenticator();
  await using grpc = await startGrpc({ deps: { authenticator } });
  expect(await rawCall(grpc.target, path, padded(grpc.target, 16_384))).toMatchObject({ "grpc-status": "0" });
  expect(authenticator.shown).toHaveLength(1);
  const refused = await rawCall(grpc.target, path, padded(grpc.target, 16_385));
  expect(refused).toMatchObject({ ...INVALID, "x-request-id": expect.any(String) });
  expect(authenticator.shown).toHaveLength(1);
  expect(grpc.lines.at(-1)).toContain("METADATA_INVALID");
});

it("survives metadata so large that HTTP/2 itself refuses the stream", async () => {
  await using grpc = await startGrpc();
  await expect(rawCall(grpc.target, path, { "x-pad": "p".repeat(70_000) })).rejects.toThrow("REFUSED_STREAM");
  expect((await call(grpc.client, RPCS.listIntegrations, {}, metadataOf("user"))).error).toBeUndefined();
});

test.each([
  ["a value that is not ASCII", { authorization: "Bearer us\xe9r" }],
  ["a deadline that is none", { authorization: "Bearer user", "grpc-timeout": "soon" }],
  ["a repeated flow id", { authorization: "Bearer user", "x-flow-id": ["a", "b"] }],
  ["an empty run id", { authorization: "Bearer user", "x-run-id": "" }],
  ["binary metadata that is garbage", { authorization: "Bearer user", "x-rest-faults-bin": "!!!" }],
])("refuses %s cleanly", async (_what, headers) => {
  await using grpc = await startGrpc();
  expect(await rawCall(grpc.target, path, headers)).toMatchObject(INVALID);
});

it("shows the authenticator every value of a repeated identity header", async () => {
  const authenticator = testAuthenticator();
  await using grpc = await startGrpc({ deps: { authenticator } });
  const answer = await rawCall(grpc.target, path, { authorization: ["Bearer user", "Bearer machine"], "x-api-key": ["one", "two"] });
  expect(answer).toMatchObject({ "grpc-status": String(status.UNAUTHENTICATED) });
  expect(authenticator.shown).toEqual([{ authorization: ["Bearer user", "Bearer machine"], apiKey: ["one", "two"] }]);
});

it("makes a request id of its own where the caller's is not a ULID", async () => {
  await using grpc = await startGrpc();
  for (const given of ["../../etc", "01K8KABR6S16YETA2SZPVBS9SPX"]) {
    const { requestId } = await call(grpc.client, RPCS.listIntegrations, {}, metadataOf("user", { "x-request-id": given }));
    expect(requestId).toMatch(/^[0-9A-HJKMNP-TV-Z]{26}$/);
  }
});
