import { once } from "node:events";
import { type ClientHttp2Session, connect, createServer, type ServerHttp2Stream } from "node:http2";
import type { AddressInfo } from "node:net";
import { expect, it, test } from "vitest";
import { createArrivals, STREAM_BYTES, type Unfinished } from "../../src/grpc/arrivals.ts";
import { call, metadataOf, RPCS, startGrpc } from "../support/grpc.ts";

const GRPC = { ":method": "POST", "content-type": "application/grpc", te: "trailers" };
const WATCH = "/grpc.health.v1.Health/Watch";
const REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

const open = (target: string) => connect(`http://${target}`);

/** Begins a request, sends some bytes of it, and gives what comes back once the stream is gone. */
function begin(session: ClientHttp2Session, path: string, headers: Record<string, string>, bytes = Buffer.alloc(0)) {
  const stream = session.request({ ...GRPC, ":path": path, ...headers });
  const answer: Record<string, unknown> = {};
  for (const event of ["response", "trailers"] as const) stream.on(event, (part: object) => Object.assign(answer, part));
  stream.on("error", () => {});
  stream.resume();
  if (bytes.length > 0) stream.write(bytes);
  return { stream, gone: once(stream, "close").then(() => ({ ...answer, rst: stream.rstCode })) };
}

test.each([
  ["nothing of its message", Buffer.alloc(0)],
  ["a part of its message", Buffer.from([0, 0, 3, 0, 0, 1, 2, 3])],
  ["a whole message, but not the end", Buffer.alloc(5)],
])("a request that has sent %s is answered at the deadline, whoever sent it", async (_what, bytes) => {
  await using grpc = await startGrpc({ options: { deadlineMs: 200 } });
  const session = open(grpc.target);
  const path = RPCS.createCredential.path;
  const unfinished = Array.from({ length: 50 }, () => begin(session, path, { authorization: "Bearer user" }, bytes).gone);
  const anonymous = begin(session, "/grpc.health.v1.Health/Check", {}, bytes).gone;
  for (const answer of await Promise.all([...unfinished, anonymous])) {
    expect(answer).toMatchObject({ "grpc-status": "4", "grpc-status-details-bin": expect.any(String), "x-request-id": expect.any(String), rst: 0 });
  }
  expect(grpc.calls()).toHaveLength(51);
  expect(grpc.observed).toContainEqual({ method: path, code: "DEADLINE_EXCEEDED" });
  expect(grpc.events).toEqual([]);
  expect((await call(grpc.client, RPCS.listIntegrations, {}, metadataOf("user"))).error).toBeUndefined();
  session.destroy();
});

it("answers a request that it gives up once, also where the caller's own deadline comes right after", async () => {
  const faults: unknown[] = [];
  const note = (fault: unknown) => void faults.push(fault);
  process.on("uncaughtException", note);
  try {
    await using grpc = await startGrpc({ options: { deadlineMs: 200 } });
    const session = open(grpc.target);
    const given = ["/grpc.health.v1.Health/Check", RPCS.createCredential.path].map((path) => begin(session, path, { authorization: "Bearer user", "grpc-timeout": "300m" }).gone);
    expect(await Promise.all(given)).toMatchObject([{ "grpc-status": "4", rst: 0 }, { "grpc-status": "4", rst: 0 }]);
    expect((await call(grpc.client, RPCS.listIntegrations, {}, metadataOf("user"))).error).toBeUndefined();
    session.destroy();
  } finally {
    process.off("uncaughtException", note);
  }
  expect(faults).toEqual([]);
});

it("lets a watch and a conversation stay open once they have asked, and ends those that never do", async () => {
  await using grpc = await startGrpc({ options: { deadlineMs: 200 } });
  const session = open(grpc.target);
  const watch = begin(session, WATCH, {});
  watch.stream.end(Buffer.alloc(5));
  const talk = begin(session, REFLECTION, {}, Buffer.from([0, 0, 0, 0, 2, 0x3a, 0]));
  const silent = [begin(session, WATCH, {}), begin(session, REFLECTION, {})];
  for (const { gone } of silent) expect(await gone).toMatchObject({ "grpc-status": "4" });
  const answered = once(talk.stream, "data");
  talk.stream.write(Buffer.from([0, 0, 0, 0, 2, 0x3a, 0]));
  await answered;
  expect([watch.stream.destroyed, talk.stream.destroyed]).toEqual([false, false]);
  session.destroy();
});

interface Named {
  readonly stream: ServerHttp2Stream;
  readonly name: string;
}

/** Arrivals before a bare HTTP/2 server, and what they gave up. */
async function bare(options: { deadlineMs: number; maxBytes: number }) {
  const given: string[] = [];
  const refuse = ({ stream, name }: Named, reason: Unfinished) => {
    given.push(`${name} ${reason}`);
    stream.respond({ ":status": 200 }, { endStream: true });
    stream.close();
  };
  const arrivals = createArrivals<Named>({ ...options, refuse });
  const server = createServer().on("stream", (stream, headers) => {
    stream.on("data", () => {}).on("error", () => {});
    arrivals.expect({ stream, name: String(headers[":path"]) }, false);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const session = open(`127.0.0.1:${(server.address() as AddressInfo).port}`);
  const close = () => {
    session.destroy();
    server.close();
  };
  return { arrivals, given, session, close };
}

it("counts what unfinished requests hold, and forgets it when they end, break off or go with their connection", async () => {
  const { arrivals, given, session, close } = await bare({ deadlineMs: 60_000, maxBytes: 1_000_000 });
  const [ended, broken, cut] = ["/ended", "/broken", "/cut"].map((path) => begin(session, path, {}, Buffer.alloc(1_000)));
  await expect.poll(() => arrivals.heldBytes).toBe(3 * (STREAM_BYTES + 1_000));
  ended?.stream.end();
  await expect.poll(() => arrivals.heldBytes).toBe(2 * (STREAM_BYTES + 1_000));
  broken?.stream.close(8);
  await expect.poll(() => arrivals.heldBytes).toBe(STREAM_BYTES + 1_000);
  expect(cut?.stream.destroyed).toBe(false);
  session.destroy();
  await expect.poll(() => arrivals.heldBytes).toBe(0);
  expect(given).toEqual([]);
  close();
});

it("gives up those that have taken longest where too much is held, by their bytes or by their number", async () => {
  const { arrivals, given, session, close } = await bare({ deadlineMs: 60_000, maxBytes: 4 * STREAM_BYTES });
  const slow = [begin(session, "/1", {}), begin(session, "/2", {})];
  await expect.poll(() => arrivals.heldBytes).toBe(2 * STREAM_BYTES);
  begin(session, "/3", {}, Buffer.alloc(STREAM_BYTES + 1));
  await slow[0]?.gone;
  expect([given, arrivals.heldBytes]).toEqual([["/1 OVERLOADED"], 3 * STREAM_BYTES + 1]);
  begin(session, "/4", {});
  await slow[1]?.gone;
  begin(session, "/5", {});
  await expect.poll(() => given).toEqual(["/1 OVERLOADED", "/2 OVERLOADED", "/3 OVERLOADED"]);
  expect(arrivals.heldBytes).toBe(2 * STREAM_BYTES);
  close();
});

it("forgets at the deadline", async () => {
  const { arrivals, given, session, close } = await bare({ deadlineMs: 20, maxBytes: 1_000_000 });
  await Promise.all(["/1", "/2"].map((path) => begin(session, path, {}, Buffer.alloc(10)).gone));
  expect([given, arrivals.heldBytes]).toEqual([["/1 DEADLINE_EXCEEDED", "/2 DEADLINE_EXCEEDED"], 0]);
  close();
});

it("does not run a request that is broken off before its end, however much of it has come", async () => {
  await using grpc = await startGrpc();
  const session = open(grpc.target);
  const { path } = RPCS.listIntegrations;
  const { stream, gone } = begin(session, path, { authorization: "Bearer user" }, Buffer.alloc(5));
  const health = () => {
    const asked = begin(session, "/grpc.health.v1.Health/Check", {});
    asked.stream.end(Buffer.alloc(5));
    return asked.gone;
  };
  expect(await health()).toMatchObject({ "grpc-status": "0" });
  stream.destroy();
  await gone;
  expect(await health()).toMatchObject({ "grpc-status": "0" });
  expect(grpc.calls()).toEqual([]);
  session.destroy();
});

it("closes on a sender that goes on after it was answered", async () => {
  await using grpc = await startGrpc({ options: { maxMessageBytes: 1_024 } });
  const session = open(grpc.target);
  const { stream, gone } = begin(session, RPCS.createCredential.path, { authorization: "Bearer user" }, Buffer.from([0, 0, 1, 0, 0, 1]));
  await once(stream, "response");
  stream.write(Buffer.alloc(10_000));
  expect(await gone).toMatchObject({ "grpc-status": "8", rst: 0 });
  session.destroy();
});

it("gives each connection its own watches and conversations, so that nobody takes everybody's", async () => {
  await using grpc = await startGrpc();
  const [greedy, other] = [open(grpc.target), open(grpc.target)];
  const ask = (session: ClientHttp2Session, path: string) => {
    const asked = begin(session, path, {}, Buffer.alloc(5));
    if (path === WATCH) asked.stream.end();
    return asked;
  };
  for (const path of [WATCH, REFLECTION]) {
    const streams = Array.from({ length: 4 }, () => ask(greedy, path));
    await Promise.all(streams.map(({ stream }) => once(stream, "data")));
    expect(await ask(greedy, path).gone).toMatchObject({ "grpc-status": "8" });
    await once(ask(other, path).stream, "data");
    streams[0]?.stream.close(8);
    await expect
      .poll(async () => {
        const { stream, gone } = ask(greedy, path);
        return await Promise.race([once(stream, "data").then(() => "served"), gone.then(() => "refused")]);
      })
      .toBe("served");
  }
  greedy.destroy();
  other.destroy();
});
