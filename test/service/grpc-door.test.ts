import { once } from "node:events";
import { createServer, type Http2Server } from "node:http2";
import type { AddressInfo } from "node:net";
import { type Server, status } from "@grpc/grpc-js";
import { expect, it, test } from "vitest";
import { createDoor, MAX_CONNECTIONS } from "../../src/grpc/door.ts";
import { detailsOf, metadataOf, rawCall, RPCS, startGrpc } from "../support/grpc.ts";

const METHOD = { needsIdentity: true, requestStream: false };
const methods = new Map([["/a/B", METHOD], ["/a/Slow", METHOD]]);
const identity = { authorization: "Bearer user" };

/** A door before an HTTP/2 server that stands where grpc-js keeps its own, and what it let through and wrote down. */
async function behindDoor(options: { maxUnfinishedBytes?: number } = {}) {
  const passed: unknown[] = [];
  const written: object[] = [];
  const http2 = createServer();
  http2.on("stream", (stream, headers) => {
    passed.push(headers[":path"]);
    if (headers[":path"] !== "/a/Slow") stream.respond({ ":status": 200, "grpc-status": "0" }, { endStream: true });
  });
  http2.listen(0, "127.0.0.1");
  await once(http2, "listening");
  const write = (fields: object) => void written.push(fields);
  const log = { debug: write, info: write, warn: write, error: write };
  const door = createDoor({ log, metrics: { observe: write } }, { methods, maxMetadataBytes: 16_384, maxMessageBytes: 65_536, deadlineMs: 15_000, ...options });
  const inside = { http2Servers: new Map<Http2Server, object>([[http2, {}]]) } as unknown as Server;
  return { passed, written, door, inside, http2, target: `127.0.0.1:${(http2.address() as AddressInfo).port}` };
}

/** The details of an answer that came as raw headers. */
const reasonOf = (answer: Record<string, unknown>) => {
  const details = answer["grpc-status-details-bin"];
  return typeof details === "string" ? detailsOf(metadataOf(null, { "grpc-status-details-bin": Buffer.from(details, "base64") })).reason : undefined;
};

it("lets calls through until it is shut, and answers UNAVAILABLE from then on", async () => {
  const { passed, written, door, inside, http2, target } = await behindDoor();
  door.guard(inside);
  door.guard(inside);
  expect(await rawCall(target, "/a/B", identity)).toMatchObject({ "grpc-status": "0" });
  expect(written).toEqual([]);
  door.shut();
  const refused = await rawCall(target, "/a/B", { authorization: "Bearer secret" });
  expect(refused).toMatchObject({ "grpc-status": String(status.UNAVAILABLE), "x-request-id": expect.any(String) });
  expect(reasonOf(refused)).toBe("SHUTTING_DOWN");
  expect(passed).toEqual(["/a/B"]);
  expect(written).toMatchObject([{ method: "/a/B", reason: "SHUTTING_DOWN", request_id: refused["x-request-id"] }, { method: "/a/B", code: "UNAVAILABLE" }]);
  expect(JSON.stringify(written)).not.toContain("secret");
  http2.close();
});

it("refuses to stand open before a server it does not know from inside", async () => {
  const { door, inside, http2 } = await behindDoor();
  expect(() => door.guard({} as Server)).toThrow("grpc-js");
  http2.on("stream", () => {});
  expect(() => door.guard(inside)).toThrow("grpc-js");
  http2.close();
});

it("answers OVERLOADED where unfinished requests hold too much", async () => {
  const { written, door, inside, http2, target } = await behindDoor({ maxUnfinishedBytes: 0 });
  door.guard(inside);
  const refused = await rawCall(target, "/a/Slow", identity, null);
  expect([refused["grpc-status"], reasonOf(refused), door.heldBytes]).toEqual([String(status.RESOURCE_EXHAUSTED), "OVERLOADED", 0]);
  expect(written).toMatchObject([{ method: "/a/Slow", reason: "OVERLOADED" }, { method: "/a/Slow", code: "RESOURCE_EXHAUSTED" }]);
  http2.close();
});

it("bounds the connections of what it stands before", async () => {
  const { door, inside, http2 } = await behindDoor();
  door.guard(inside);
  expect(http2.maxConnections).toBe(MAX_CONNECTIONS);
  http2.close();
});

test.each(["/flow.credentials.v1.CredentialService/canary", "/canary/%41", "/", "/a/B/", "/constructor"])(
  "an unknown method, %s, is UNIMPLEMENTED in words that repeat nothing of it",
  async (path) => {
    await using grpc = await startGrpc();
    const answer = await rawCall(grpc.target, path, { ...identity, "x-request-id": "01K8KABR6S16YETA2SZPVBS9SP" });
    expect(answer).toMatchObject({ ":status": 200, "grpc-status": "12", "grpc-message": "Unknown%20method", "x-request-id": "01K8KABR6S16YETA2SZPVBS9SP" });
    expect(JSON.stringify([answer, grpc.lines])).not.toMatch(/canary|constructor/);
    expect(grpc.observed).toEqual([{ method: "none", code: "UNIMPLEMENTED" }]);
  },
);

it("has nothing to say to what is not gRPC", async () => {
  await using grpc = await startGrpc();
  for (const path of ["/", RPCS.getCredential.path]) {
    expect(await rawCall(grpc.target, path, { "content-type": "application/json" })).toMatchObject({ ":status": 415 });
  }
});

// What finishes an authorization is proven by the state in its request, and by nothing else.
const OPEN: readonly string[] = [RPCS.completeAuthorization.path];

test.each(Object.values(RPCS).map(({ path }) => path).filter((path) => !OPEN.includes(path)))("%s without an identity is refused before its request is read", async (path) => {
  await using grpc = await startGrpc();
  // The frame announces a message that never comes.
  const answer = await rawCall(grpc.target, path, { "x-request-id": "01K8KABR6S16YETA2SZPVBS9SP" }, Buffer.from([0, 0, 1, 0, 0, 1]));
  expect(answer).toMatchObject({ ":status": 200, "grpc-status": "16", "grpc-message": "Authentication%20required", "x-request-id": "01K8KABR6S16YETA2SZPVBS9SP" });
  expect(reasonOf(answer)).toBe("UNAUTHENTICATED");
  expect(grpc.calls()).toMatchObject([{ method: path, code: "UNAUTHENTICATED", reason: "UNAUTHENTICATED", request_id: "01K8KABR6S16YETA2SZPVBS9SP", duration_ms: expect.any(Number) }]);
  expect(grpc.observed).toEqual([{ method: path, code: "UNAUTHENTICATED" }]);
  expect(grpc.events).toEqual([]);
});
