import { randomBytes, randomUUID } from "node:crypto";
import { EventEmitter, once } from "node:events";
import { type ClientHttp2Session, connect, type ServerHttp2Stream } from "node:http2";
import { setTimeout as sleep } from "node:timers/promises";
import { deflateSync, gzipSync } from "node:zlib";
import { compressionAlgorithms, Client, credentials, status } from "@grpc/grpc-js";
import { describe, expect, it, onTestFinished, test } from "vitest";
import { GetCredentialRequest, GetCredentialResponse } from "../../gen/flow/credentials/v1/credential_service.ts";
import type { Call } from "../../src/domain/access.ts";
import type { UnaryRpc } from "../../src/grpc/unary.ts";
import { answerUnary } from "../../src/grpc/wire.ts";
import { call, metadataOf, rawCall, record, RPCS, startGrpc } from "../support/grpc.ts";

/** Calls with one message each way, as bytes on HTTP/2 streams: what a client of gRPC sends, and what it does not. */

const IDENTITY = { authorization: "Bearer user" };
const GRPC = { ":method": "POST", "content-type": "application/grpc", te: "trailers", ...IDENTITY };
const LIST = RPCS.listIntegrations.path;
const CREATE = RPCS.createCredential.path;
const OK = { ":status": 200, "grpc-status": "0" };

/** A message in its frame. */
function frame(message: Buffer, compressed = 0): Buffer {
  const prefix = Buffer.from([compressed, 0, 0, 0, 0]);
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}

const asking = (credentialId: string): Buffer => frame(Buffer.from(GetCredentialRequest.encode({ credentialId }).finish()));

function session(target: string): ClientHttp2Session {
  const opened = connect(`http://${target}`);
  opened.on("error", () => {});
  onTestFinished(() => opened.destroy());
  return opened;
}

/** Sends a request in pieces, each its own write, and gives everything that came back. */
async function sent(on: ClientHttp2Session, path: string, pieces: readonly Buffer[], headers: Record<string, string> = {}) {
  const stream = on.request({ ...GRPC, ":path": path, ...headers });
  const answer: Record<string, unknown> = {};
  const body: Buffer[] = [];
  for (const event of ["response", "trailers"] as const) stream.on(event, (part: object) => Object.assign(answer, part));
  stream.on("error", () => {}).on("data", (piece: Buffer) => void body.push(piece));
  const gone = once(stream, "close");
  for (const piece of pieces) await new Promise((written) => stream.write(piece, written));
  stream.end();
  await gone;
  return { answer, message: Buffer.concat(body).subarray(5) };
}

describe("a request", () => {
  it("is read alike, whatever pieces it comes in", async () => {
    const seen: string[] = [];
    await using grpc = await startGrpc({ vault: { getCredential: async (_, id) => record({ id: (seen.push(id), id) }) } });
    const on = session(grpc.target);
    const id = randomUUID();
    const whole = asking(id);
    const cuts = [[], [1], [4], [5], [6], [1, 2, 3, 4, 5, 6], [whole.length - 1], Array.from({ length: whole.length - 1 }, (_, at) => at + 1)];
    for (const places of cuts) {
      const pieces = [0, ...places].map((from, index) => whole.subarray(from, places[index] ?? whole.length));
      const { answer, message } = await sent(on, RPCS.getCredential.path, pieces);
      expect(answer).toMatchObject(OK);
      expect(GetCredentialResponse.decode(message).credential?.id).toBe(id);
    }
    expect(seen).toEqual(cuts.map(() => id));
  });

  it("of the largest size is taken, in small pieces as well, and of one byte more is refused before it has come", async () => {
    await using grpc = await startGrpc({ options: { maxMessageBytes: 65_536 } });
    const on = session(grpc.target);
    const largest = frame(Buffer.alloc(65_536, 0x08));
    const pieces = Array.from({ length: Math.ceil(largest.length / 251) }, (_, index) => largest.subarray(index * 251, (index + 1) * 251));
    for (const parts of [[largest], pieces]) expect((await sent(on, LIST, parts)).answer["grpc-status"]).not.toBe(String(status.RESOURCE_EXHAUSTED));
    const announced = Buffer.from([0, 0, 1, 0, 1]);
    expect(await rawCall(grpc.target, LIST, IDENTITY, announced)).toMatchObject({ "grpc-status": String(status.RESOURCE_EXHAUSTED), "grpc-message": "The%20request%20is%20too%20large" });
    const unfinished = on.request({ ...GRPC, ":path": LIST });
    const trailers = once(unfinished, "trailers");
    unfinished.resume().on("error", () => {}).write(announced);
    expect((await trailers)[0]).toMatchObject({ "grpc-status": String(status.RESOURCE_EXHAUSTED) });
    expect(grpc.observed.filter(({ code }) => code === "RESOURCE_EXHAUSTED")).toHaveLength(2);
  });

  test.each<[what: string, body: Buffer]>([
    ["no message", Buffer.alloc(0)],
    ["half a prefix", Buffer.from([0, 0, 0])],
    ["a message that is cut short", Buffer.from([0, 0, 0, 0, 9, 1, 2])],
    ["two messages", Buffer.concat([frame(Buffer.alloc(0)), frame(Buffer.alloc(0))])],
    ["a message and a byte", Buffer.concat([frame(Buffer.alloc(0)), Buffer.alloc(1)])],
  ])("of %s is UNIMPLEMENTED, is told once, and nothing of it is run", async (_what, body) => {
    await using grpc = await startGrpc();
    expect(await rawCall(grpc.target, LIST, IDENTITY, body)).toMatchObject({ ":status": 200, "grpc-status": String(status.UNIMPLEMENTED), "x-request-id": expect.any(String) });
    expect(grpc.calls()).toMatchObject([{ method: LIST, code: "UNIMPLEMENTED" }]);
    expect(grpc.observed).toEqual([{ method: LIST, code: "UNIMPLEMENTED" }]);
    expect(grpc.events).toEqual([]);
  });

  it("of headers alone is no request", async () => {
    await using grpc = await startGrpc();
    const stream = session(grpc.target).request({ ...GRPC, ":path": LIST }, { endStream: true });
    const trailers = once(stream, "trailers");
    stream.resume();
    expect((await trailers)[0]).toMatchObject({ "grpc-status": String(status.UNIMPLEMENTED) });
  });

  it("that is not gRPC is 415", async () => {
    await using grpc = await startGrpc();
    expect(await rawCall(grpc.target, LIST, { ...IDENTITY, "content-type": "application/json" }, frame(Buffer.alloc(0)))).toEqual(expect.objectContaining({ ":status": 415 }));
  });

  it("whose caller goes away is cancelled, with its stream or with its connection", async () => {
    const calls: Call[] = [];
    const getCredential = (grant: { call: Call }) => {
      calls.push(grant.call);
      return new Promise<never>(() => {});
    };
    await using grpc = await startGrpc({ vault: { getCredential } });
    const on = session(grpc.target);
    const request = asking(randomUUID());
    const whole = on.request({ ...GRPC, ":path": RPCS.getCredential.path });
    whole.on("error", () => {}).end(request);
    await expect.poll(() => calls.length).toBe(1);
    whole.close(8);
    await expect.poll(() => calls[0]?.signal.reason).toMatchObject({ reason: "CANCELLED" });
    const cut = on.request({ ...GRPC, ":path": RPCS.getCredential.path });
    cut.on("error", () => {}).end(request);
    await expect.poll(() => calls.length).toBe(2);
    on.destroy();
    await expect.poll(() => calls[1]?.signal.reason).toMatchObject({ reason: "CANCELLED" });
    expect(grpc.calls()).toMatchObject([{ code: "CANCELLED" }, { code: "CANCELLED" }]);
  });

  it("ends at its caller's own deadline, also while it is still coming, and with none left at once", async () => {
    await using grpc = await startGrpc({ vault: { getCredential: () => new Promise<never>(() => {}) }, options: { deadlineMs: 10_000 } });
    const deadline = { "grpc-status": String(status.DEADLINE_EXCEEDED), "grpc-status-details-bin": expect.any(String) };
    const timed = (timeout: string, body: Buffer | null) => rawCall(grpc.target, RPCS.getCredential.path, { ...IDENTITY, "grpc-timeout": timeout }, body);
    const coming = session(grpc.target).request({ ...GRPC, ":path": RPCS.getCredential.path, "grpc-timeout": "200m" });
    const trailers = once(coming, "trailers");
    coming.resume().on("error", () => {}).write(Buffer.from([0, 0, 0]));
    expect((await trailers)[0]).toMatchObject(deadline);
    expect(await timed("200m", asking(randomUUID()))).toMatchObject(deadline);
    expect(await timed("0n", asking(randomUUID()))).toMatchObject(deadline);
    expect(grpc.calls()).toHaveLength(3);
  });
});

test.each<[what: string, headers: Record<string, string>]>([["too large", {}], ["not gRPC", { "content-type": "application/json" }]])("a request that is %s is answered once, also where its deadline passes before it ends", async (_what, headers) => {
  await using grpc = await startGrpc({ options: { maxMessageBytes: 1_024 } });
  const stream = session(grpc.target).request({ ...GRPC, ":path": LIST, "grpc-timeout": "100m", ...headers });
  stream.resume().on("error", () => {}).write(Buffer.from([0, 0, 1, 0, 0, 1]));
  await once(stream, "close");
  expect(stream.rstCode).toBe(0);
  expect(grpc.observed).toHaveLength(1);
});

describe("a compressed request", () => {
  const message = Buffer.from(RPCS.createCredential.requestSerialize({ provider: 3, credentialType: 5, name: "n", credentials: { host: "h", username: "u", password: "p" } }));

  test.each([["gzip", gzipSync], ["deflate", deflateSync]] as const)("in %s is read", async (encoding, compress) => {
    await using grpc = await startGrpc();
    expect(await rawCall(grpc.target, CREATE, { ...IDENTITY, "grpc-encoding": encoding }, frame(compress(message), 1))).toMatchObject(OK);
    expect(await rawCall(grpc.target, CREATE, { ...IDENTITY, "grpc-encoding": encoding }, frame(message))).toMatchObject(OK);
  });

  it("of grpc-js's own client is read", async () => {
    await using grpc = await startGrpc();
    const client = new Client(grpc.target, credentials.createInsecure(), { "grpc.default_compression_algorithm": compressionAlgorithms.gzip });
    onTestFinished(() => client.close());
    expect((await call(client, RPCS.listIntegrations, {}, metadataOf("user"))).error).toBeUndefined();
  });

  test.each<[what: string, code: number, headers: Record<string, string>, body: Buffer]>([
    ["that does not say how", status.INTERNAL, {}, frame(gzipSync(message), 1)],
    ["that says it is not", status.INTERNAL, { "grpc-encoding": "identity" }, frame(message, 1)],
    ["in a way that nobody knows", status.UNIMPLEMENTED, { "grpc-encoding": "snappy" }, frame(message, 1)],
    ["that is broken", status.INTERNAL, { "grpc-encoding": "gzip" }, frame(randomBytes(64), 1)],
    ["that is cut short", status.INTERNAL, { "grpc-encoding": "gzip" }, frame(gzipSync(message).subarray(0, 40), 1)],
    ["that is small and becomes too large", status.RESOURCE_EXHAUSTED, { "grpc-encoding": "gzip" }, frame(gzipSync(Buffer.alloc(8 << 20)), 1)],
  ])("%s is refused and not run", async (_what, code, headers, body) => {
    await using grpc = await startGrpc();
    expect(await rawCall(grpc.target, CREATE, { ...IDENTITY, ...headers }, body)).toMatchObject({ "grpc-status": String(code) });
    expect(grpc.vault.rows.size).toBe(0);
    expect(grpc.events).toEqual([]);
  });
});

describe("an answer", () => {
  it("has the headers and trailers of grpc-js's own", async () => {
    await using grpc = await startGrpc();
    const [ours, theirs] = await Promise.all([rawCall(grpc.target, LIST, IDENTITY), rawCall(grpc.target, "/grpc.health.v1.Health/Check", {})]);
    const { "x-request-id": id, ...rest } = ours;
    expect(id).toMatch(/^[0-9A-Z]{26}$/);
    expect(Object.keys(rest).toSorted()).toEqual(Object.keys(theirs).toSorted());
    for (const name of Object.keys(rest).filter((key) => key !== "date")) expect([name, rest[name]]).toEqual([name, theirs[name]]);
  });

  it("that is larger than the windows of its client comes whole, to each of many at once", async () => {
    const name = "n".repeat(200_000);
    await using grpc = await startGrpc({ vault: { getCredential: async (_, id) => record({ id, name }) } });
    const on = session(grpc.target);
    const answers = await Promise.all(Array.from({ length: 50 }, () => sent(on, RPCS.getCredential.path, [asking(randomUUID())])));
    for (const { answer, message } of answers) {
      expect(answer).toMatchObject(OK);
      expect(GetCredentialResponse.decode(message).credential?.name).toBe(name);
    }
  });

  it("to a caller who reads none of it holds up nobody else, and ends with the connection", async () => {
    await using grpc = await startGrpc({ vault: { getCredential: async (_, id) => record({ id, name: "n".repeat(200_000) }) } });
    const deaf = session(grpc.target);
    for (let count = 0; count < 20; count += 1) deaf.request({ ...GRPC, ":path": RPCS.getCredential.path }).on("error", () => {}).end(asking(randomUUID()));
    await expect.poll(() => grpc.calls().length).toBe(20);
    expect((await sent(session(grpc.target), LIST, [frame(Buffer.alloc(0))])).answer).toMatchObject(OK);
    deaf.destroy();
    await expect.poll(() => grpc.service.connections).toBe(1);
  });
});

test.each<[what: string, closed: boolean, codes: number[]]>([["that Node refuses to send ends its own stream and nothing else", false, [2]], ["to a stream that is gone is not sent", true, []]])("an answer %s", (_what, closed, codes) => {
  const [seen, sent]: [number[], string[]] = [[], []];
  const respond = () => { sent.push("respond"); throw new Error("refused"); };
  const stream = Object.assign(new EventEmitter(), { closed: false, destroyed: false, respond, close: (code: number) => void seen.push(code) });
  const rpc: UnaryRpc = { path: LIST, begin: (_, reply) => { stream.closed = closed; reply(Buffer.alloc(0), "id"); return { giveUp: () => {} }; } };
  answerUnary(rpc, { stream: stream as unknown as ServerHttp2Stream, headers: { "content-type": "application/grpc" }, at: performance.now() }, { maxMessageBytes: 16, deadlineMs: 1_000 }, () => sent.push("refused"));
  stream.emit("data", frame(Buffer.alloc(0)));
  stream.emit("end");
  expect([seen, sent]).toEqual([codes, closed ? [] : ["respond"]]);
});

it("asks a connection to go that has had no call for a while, and none that has one", async () => {
  const release: (() => void)[] = [];
  const getCredential = async (_: unknown, id: string) => {
    await new Promise<void>((resolve) => release.push(resolve));
    return record({ id });
  };
  await using grpc = await startGrpc({ vault: { getCredential }, options: { maxIdleMs: 300 } });
  const [idle, busy] = [session(grpc.target), session(grpc.target)];
  const gone = once(idle, "goaway");
  const answer = sent(busy, RPCS.getCredential.path, [asking(randomUUID())]);
  await sent(idle, LIST, [frame(Buffer.alloc(0))]);
  await gone;
  await sleep(400);
  expect([busy.closed, grpc.service.connections]).toEqual([false, 1]);
  const left = once(busy, "goaway");
  release.forEach((resolve) => resolve());
  expect((await answer).answer).toMatchObject(OK);
  await left;
  await expect.poll(() => grpc.service.connections).toBe(0);
});
