import { once } from "node:events";
import { createServer as createTlsServer } from "node:tls";
import { expect, test } from "vitest";
import { DialError } from "../../src/domain/check.ts";
import { createCheckIo } from "../../src/egress/probe-io.ts";
import { certificate, closedPort, descriptors, startTcp } from "../support/egress.ts";

const LOOPBACK = { profile: "development", allow: ["127.0.0.0/8"], ports: { sftp: [22], postgresql: [] } } as const;
const ioFor = (provider = "postgresql", budgetMs = 5_000) => createCheckIo(provider, LOOPBACK, budgetMs);

/** Why something failed; fails itself where it did not fail with what tests know. */
async function dialReason(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => new Error("it succeeded"),
    (error: unknown) => error,
  );
  if (error instanceof DialError) return error.reason;
  throw error;
}

/** The first error of a stream, or its close. */
const endOf = (stream: NodeJS.EventEmitter): Promise<unknown> =>
  new Promise((resolve) => {
    stream.once("error", resolve);
    stream.once("close", () => resolve("closed"));
  });

test("a connection carries bytes both ways, and its end", async () => {
  await using server = await startTcp((socket) => socket.pipe(socket));
  const { stream } = await ioFor().dial("127.0.0.1", server.port);
  stream.end("x".repeat(60_000));
  const chunks = await stream.toArray();
  expect(Buffer.concat(chunks).length).toBe(60_000);
});

test("a host that sends too much ends the connection with the word that tests know", async () => {
  await using server = await startTcp((socket) => void socket.write(Buffer.alloc(200_000)));
  const { stream } = await ioFor().dial("127.0.0.1", server.port);
  const end = endOf(stream);
  stream.resume();
  expect(await end).toEqual(new DialError("too_much_data"));
});

test("after the login it may send more, and not without end", async () => {
  await using server = await startTcp((socket) => void socket.write(Buffer.alloc(200_000), () => socket.write(Buffer.alloc(2_000_000))));
  const { stream, authenticated } = await ioFor().dial("127.0.0.1", server.port);
  authenticated();
  let received = 0;
  stream.on("data", (chunk: Buffer) => (received += chunk.length));
  expect(await endOf(stream)).toEqual(new DialError("too_much_data"));
  expect(received).toBeGreaterThan(200_000);
  expect(received).toBeLessThanOrEqual(1_048_576);
});

test("a silent host ends with the test's time", async () => {
  await using server = await startTcp(() => {});
  const io = ioFor("postgresql", 300);
  const { stream } = await io.dial("127.0.0.1", server.port);
  expect(await endOf(stream)).toEqual(new DialError("deadline_exceeded"));
  // The connection and the signal have a timer each, which may fire in either order.
  await expect.poll(() => io.signal.aborted).toBe(true);
});

test("a host that cuts the connection ends it as reset", async () => {
  await using server = await startTcp((socket) => socket.once("data", () => socket.resetAndDestroy()));
  const { stream } = await ioFor().dial("127.0.0.1", server.port);
  const end = endOf(stream);
  stream.resume().write("x");
  expect(await end).toEqual(new DialError("connection_reset"));
});

test("a host that floods a reader who does not read is held up, not stored", async () => {
  await using server = await startTcp((socket) => void socket.write(Buffer.alloc(60_000)));
  const { stream } = await ioFor().dial("127.0.0.1", server.port);
  await once(stream, "readable");
  expect(stream.readableLength).toBeLessThanOrEqual(65_536);
  stream.destroy();
  await once(stream, "close");
});

test.each([
  ["10.0.0.1", 5432, "postgresql", "address_not_allowed"],
  ["0177.0.0.1", 5432, "postgresql", "host_malformed"],
  ["", 5432, "postgresql", "host_malformed"],
  ["127.0.0.1", 0, "postgresql", "port_not_allowed"],
  ["127.0.0.1", 23, "sftp", "port_not_allowed"],
])("a connection to %j port %i for %s ends with %s", async (host, port, provider, reason) => {
  expect(await dialReason(ioFor(provider).dial(host, port))).toBe(reason);
});

test("a port where nobody listens refuses", async () => {
  expect(await dialReason(ioFor().dial("127.0.0.1", await closedPort()))).toBe("connection_refused");
});

test("a request is refused by the same rules, and fails with the words that tests know", async () => {
  const { cert, private: key } = await certificate("localhost");
  await using server = await startTcp(() => {}, createTlsServer({ cert, key }));
  const ask = (url: string, io = ioFor()) => dialReason(io.request({ method: "GET", url, headers: {} }));
  expect(await ask("https://10.0.0.1/")).toBe("address_not_allowed");
  expect(await ask("file:///etc/passwd")).toBe("address_not_allowed");
  expect(await ask("https://127.0.0.1:8443/", ioFor("sftp"))).toBe("port_not_allowed");
  expect(await ask(`https://127.0.0.1:${server.port}/`)).toBe("connection_reset");
});

test("a request to a listed host is made and answered", async () => {
  await using server = await startTcp((socket) => socket.once("data", () => socket.end("HTTP/1.1 302 Found\r\nlocation: http://10.0.0.1/\r\ncontent-length: 2\r\n\r\nhi")));
  const answer = await ioFor().request({ method: "POST", url: `http://127.0.0.1:${server.port}/x`, headers: { accept: "*/*" }, body: "b" });
  expect([answer.status, answer.headers["location"], answer.body.toString()]).toEqual([302, "http://10.0.0.1/", "hi"]);
});

test("connections that were given up leave no descriptor", async () => {
  await using server = await startTcp((socket) => void socket.write("hello"));
  const round = async () => {
    const { stream } = await ioFor().dial("127.0.0.1", server.port);
    stream.destroy();
    await once(stream, "close");
  };
  await round();
  const before = descriptors();
  for (let index = 0; index < 30; index += 1) await round();
  await expect.poll(() => descriptors() <= before + 1).toBe(true);
});
