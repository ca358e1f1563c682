import { getEventListeners } from "node:events";
import type { Socket } from "node:net";
import { describe, expect, test } from "vitest";
import { createDialer, type DialerDeps } from "../../src/egress/dialer.ts";
import { createAddressPolicy } from "../../src/egress/policy.ts";
import { createResolver } from "../../src/egress/resolver.ts";
import type { GuardedSocket } from "../../src/egress/socket.ts";
import { closedPort, descriptors, manualClock, only, reasonOf, startDns, startTcp } from "../support/egress.ts";

const loopback = createAddressPolicy({ profile: "development", allow: ["127.0.0.0/8"] });
const dialerOf = (deps: Partial<DialerDeps> = {}) => createDialer({ policy: loopback, refusalBandMs: 0, ...deps });
const text = async (socket: GuardedSocket): Promise<string> => Buffer.concat(await socket.toArray()).toString();
/** Reads until the connection is ended, whoever ends it. */
const drain = (socket: GuardedSocket): Promise<void> =>
  new Promise((resolve) => {
    socket.resume();
    socket.once("close", () => resolve());
  });

describe("a guarded connection", () => {
  test("carries bytes both ways and ends when the host ends it", async () => {
    await using server = await startTcp((socket) => socket.once("data", (data) => socket.end(`heard ${data}`)));
    await using socket = await dialerOf().dial({ host: "127.0.0.1", port: server.port });
    expect(socket.peer).toEqual({ address: "127.0.0.1", family: 4, listed: true });
    socket.write("hello");
    expect([await text(socket), socket.failure]).toEqual(["heard hello", undefined]);
  });

  test("goes to the address that was judged, after one resolution, whatever the name says later", async () => {
    await using server = await startTcp((socket) => socket.end("first"));
    // The second answer for the same question would be another place.
    const seen = new Map<string, number>();
    await using dns = await startDns((question) => {
      const times = (seen.get(question.type) ?? 0) + 1;
      seen.set(question.type, times);
      return only([times === 1 ? "127.0.0.1" : "127.0.0.2"])(question);
    });
    const dialer = dialerOf({ resolver: createResolver({ servers: [dns.server] }) });
    await using socket = await dialer.dial({ host: "rebinding.example", port: server.port });
    expect([await text(socket), socket.peer.address]).toEqual(["first", "127.0.0.1"]);
    expect(dns.questions.toSorted((a, b) => (a.type < b.type ? -1 : 1))).toEqual([{ name: "rebinding.example", type: "A" }, { name: "rebinding.example", type: "AAAA" }]);
  });

  test("falls back to the next answer", async () => {
    await using server = await startTcp((socket) => socket.end("here"));
    await using dns = await startDns(only(["127.0.0.9", "127.0.0.1"]));
    await using socket = await dialerOf({ resolver: createResolver({ servers: [dns.server] }) }).dial({ host: "two.example", port: server.port });
    expect([await text(socket), socket.peer.address]).toEqual(["here", "127.0.0.1"]);
  });

  test("is refused before any packet where one answer of many is not allowed", async () => {
    await using server = await startTcp(() => {});
    await using dns = await startDns(({ type }) => (type === "A" ? ["127.0.0.1", "127.0.0.2"] : ["::1"]));
    expect(await reasonOf(dialerOf({ resolver: createResolver({ servers: [dns.server] }) }).dial({ host: "mixed.example", port: server.port }))).toBe("refused-address");
    const production = dialerOf({ policy: createAddressPolicy({ profile: "production" }) });
    for (const host of ["127.0.0.1", "::1", "[::ffff:127.0.0.1]"]) expect(await reasonOf(production.dial({ host, port: server.port }))).toBe("refused-address");
    expect(server.seen.accepted).toBe(0);
  });

  test("to a closed port is refused by the host", async () => {
    expect(await reasonOf(dialerOf().dial({ host: "127.0.0.1", port: await closedPort() }))).toBe("connect-refused");
  });

  test("knows the host only by the answer, not by the machine's own table of hosts", async () => {
    await using dns = await startDns(() => "nxdomain");
    expect(await reasonOf(dialerOf({ resolver: createResolver({ servers: [dns.server] }) }).dial({ host: "localhost", port: 22 }))).toBe("dns-not-found");
    expect(dns.questions.map(({ name }) => name)).toEqual(["localhost", "localhost"]);
  });
});

describe("a hostile host", () => {
  const hostile: [name: string, serve: (socket: Socket) => void, reason: string][] = [
    ["is silent", () => {}, "deadline"],
    [
      "sends a byte at a time",
      (socket) => {
        const timer = setInterval(() => socket.write("."), 5);
        socket.on("close", () => clearInterval(timer));
      },
      "deadline",
    ],
    [
      "never stops sending",
      (socket) => {
        const more = () => {
          while (socket.writable && socket.write(Buffer.alloc(65_536)));
        };
        socket.on("drain", more);
        more();
      },
      "too-many-bytes",
    ],
    [
      "resets the connection",
      (socket) => {
        socket.write("SSH-2.0-");
        setTimeout(() => socket.resetAndDestroy(), 20);
      },
      "connection-lost",
    ],
  ];
  test.each(hostile)("that %s is left", async (_, serve, reason) => {
    await using server = await startTcp(serve);
    const socket = await dialerOf({ limits: { totalMs: 500 } }).dial({ host: "127.0.0.1", port: server.port });
    await drain(socket);
    expect([socket.failure?.reason, socket.destroyed]).toEqual([reason, true]);
  });

  test.each(["before", "after"])("may send exactly the cap %s authentication, and not a byte more", async (when) => {
    const caps = { beforeAuthenticated: 1_000, total: 5_000 };
    const cap = when === "before" ? caps.beforeAuthenticated : caps.total;
    for (const [bytes, failure] of [[cap, undefined], [cap + 1, "too-many-bytes"]] as const) {
      await using server = await startTcp((socket) => socket.end(Buffer.alloc(bytes)));
      await using socket = await dialerOf({ limits: caps }).dial({ host: "127.0.0.1", port: server.port });
      if (when === "after") socket.authenticated();
      await drain(socket);
      expect([socket.failure?.reason, socket.received]).toEqual([failure, bytes]);
    }
  });

  test("that is not read does not fill the memory", async () => {
    await using server = await startTcp((socket) => socket.write(Buffer.alloc(8_000_000)));
    await using socket = await dialerOf({ limits: { beforeAuthenticated: 16_000_000, total: 16_000_000, totalMs: 300 } }).dial({ host: "127.0.0.1", port: server.port });
    socket.once("readable", () => {});
    await new Promise((resolve) => {
      socket.once("close", resolve);
    });
    expect(socket.failure?.reason).toBe("deadline");
    expect(socket.received).toBeLessThan(1_000_000);
  });
});

describe("the caller", () => {
  test("ends a standing connection by its signal, and the host sees it go", async () => {
    const gone = Promise.withResolvers<void>();
    await using server = await startTcp((socket) => socket.on("close", () => gone.resolve()));
    const leaving = new AbortController();
    const socket = await dialerOf().dial({ host: "127.0.0.1", port: server.port }, { signal: leaving.signal });
    leaving.abort();
    await gone.promise;
    expect(socket.failure?.reason).toBe("cancelled");
  });

  test("has nothing left waiting, in time or on its signal, after a connection is over", async () => {
    await using server = await startTcp(() => {});
    const clock = manualClock();
    const { signal } = new AbortController();
    const socket = await dialerOf({ clock }).dial({ host: "127.0.0.1", port: server.port }, { signal });
    expect([clock.waiting, getEventListeners(signal, "abort").length]).toEqual([1, 1]);
    await socket[Symbol.asyncDispose]();
    expect([clock.waiting, getEventListeners(signal, "abort").length]).toEqual([0, 0]);
  });

  test("finds two hundred connections, refusals and failures gone without a descriptor left", async () => {
    await using server = await startTcp((socket) => socket.write("x"));
    await using dns = await startDns(only(["127.0.0.1"]));
    const closed = await closedPort();
    const dialer = dialerOf({ resolver: createResolver({ servers: [dns.server] }), limits: { totalMs: 5_000 } });
    const round = async () => {
      const socket = await dialer.dial({ host: "many.example", port: server.port });
      await socket[Symbol.asyncDispose]();
      await socket[Symbol.asyncDispose]();
      expect(await reasonOf(dialer.dial({ host: "127.0.0.1", port: closed }))).toBe("connect-refused");
      expect(await reasonOf(dialer.dial({ host: "10.0.0.1", port: closed }))).toBe("refused-address");
    };
    for (let index = 0; index < 10; index += 1) await round();
    const before = descriptors();
    for (let index = 0; index < 200; index += 1) await round();
    // The server closes its half when it has heard of it; a few may still be on their way.
    await expect.poll(() => descriptors() - before, { timeout: 10_000 }).toBeLessThanOrEqual(2);
    expect(server.seen.accepted).toBe(210);
  });
});
