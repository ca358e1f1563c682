import { createServer as createHttpServer, type RequestListener } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import type { Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import type { GenerateResult } from "selfsigned";
import { beforeAll, describe, expect, test } from "vitest";
import { createDialer, type DialerDeps } from "../../src/egress/dialer.ts";
import { createGuardedFetch, type FetchDeps } from "../../src/egress/fetch.ts";
import { createAddressPolicy } from "../../src/egress/policy.ts";
import { certificate, descriptors, reasonOf, startTcp } from "../support/egress.ts";

const policy = createAddressPolicy({ profile: "development", allow: ["127.0.0.0/8"] });
/** Every name is loopback. */
const resolver = { resolve: () => Promise.resolve(["127.0.0.1"]) };
const dialerOf = (deps: Partial<DialerDeps> = {}) => createDialer({ policy, resolver, refusalBandMs: 0, ...deps });

const DAY = 86_400_000;
const authority = (name = "authority") => certificate(name, { extensions: [{ name: "basicConstraints", cA: true, critical: true }, { name: "keyUsage", keyCertSign: true }] });
const signed = (name: string, ca: GenerateResult, dates: { notBeforeDate?: Date; notAfterDate?: Date } = {}) =>
  certificate(name, { ca: { key: ca.private, cert: ca.cert }, ...dates });
const ago = (days: number) => new Date(Date.now() - days * DAY);

let ca: GenerateResult;
let good: GenerateResult;
beforeAll(async () => {
  ca = await authority();
  good = await signed("provider.example", ca);
});

const fetchOf = (deps: Partial<FetchDeps> = {}) => createGuardedFetch({ dialer: dialerOf(), development: true, ca: ca.cert, totalMs: 5_000, ...deps });
const https = (handle: RequestListener, pair: GenerateResult = good) => startTcp(() => {}, createHttpsServer({ key: pair.private, cert: pair.cert }, handle));
const url = (server: { port: number }, path = "/") => `https://provider.example:${server.port}${path}`;

describe("a guarded fetch", () => {
  test("sends what it was given, gives what came back, and nothing of a browser's", async () => {
    const seen: unknown[] = [];
    await using server = await https(async (request, response) => {
      const body = Buffer.concat(await request.toArray()).toString();
      seen.push([request.method, request.url, request.headers, body]);
      response.writeHead(201, { "content-type": "application/json", "set-cookie": ["a=1", "b=2"], "x-many": "1" }).end('{"ok":true}');
    });
    const request = { url: url(server, "/a/../token?x=1#f"), method: "POST", headers: { "content-type": "text/plain" }, body: "grant" } as const;
    const response = await fetchOf()(request);
    expect(response).toMatchObject({ outcome: "response", status: 201, body: Buffer.from('{"ok":true}') });
    expect(response.headers).toMatchObject({ "content-type": "application/json", "x-many": "1" });
    expect(Object.keys(response.headers)).not.toContain("set-cookie");
    const headers = { host: `provider.example:${server.port}`, "content-type": "text/plain", "content-length": "5", connection: "close" };
    expect(seen).toEqual([["POST", "/token?x=1", headers, "grant"]]);
  });

  test.each([301, 302, 303, 307, 308])("gives a redirect (%i) back and goes nowhere", async (status) => {
    let requests = 0;
    await using server = await https((_, response) => {
      requests += 1;
      response.writeHead(status, { location: "https://127.0.0.1/elsewhere" }).end();
    });
    expect(await fetchOf()({ url: url(server) })).toMatchObject({ outcome: "redirect", status, headers: { location: "https://127.0.0.1/elsewhere" } });
    expect([requests, server.seen.accepted]).toEqual([1, 1]);
  });

  test.each([204, 304, 400, 404, 500, 503])("takes the status %i for a response", async (status) => {
    await using server = await https((_, response) => response.writeHead(status).end());
    expect(await fetchOf()({ url: url(server) })).toMatchObject({ outcome: "response", status });
  });

  test("goes by http only in development, and only to a listed host", async () => {
    await using server = await startTcp(() => {}, createHttpServer((request, response) => response.end(request.headers.host)));
    const plain = `http://provider.example:${server.port}/`;
    expect((await fetchOf()({ url: plain })).body.toString()).toBe(`provider.example:${server.port}`);
    const unlisted = dialerOf({ resolver: { resolve: () => Promise.resolve(["8.8.8.8"]) } });
    expect(await reasonOf(fetchOf({ dialer: unlisted })({ url: plain }))).toBe("refused-address");
    expect(await reasonOf(fetchOf({ development: false })({ url: plain }))).toBe("refused-request");
    expect(server.seen.accepted).toBe(1);
  });

  test.each([
    ["host", "evil.example"],
    ["Connection", "upgrade"],
    ["content-length", "0"],
    ["Transfer-Encoding", "chunked"],
    ["Cookie", "a=1"],
    ["proxy-authorization", "x"],
    ["x-split", "a\r\nhost: evil.example"],
    ["x bad", "a"],
    ["x-null", "\0"],
  ])("does not send the header %j: %j", async (name, value) => {
    expect(await reasonOf(fetchOf()({ url: "https://provider.example/", headers: { [name]: value } }))).toBe("refused-request");
  });

  test("asks no proxy that the environment names", async () => {
    await using proxy = await startTcp(() => {});
    await using server = await https((_, response) => response.end("direct"));
    for (const name of ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"]) process.env[name] = `http://127.0.0.1:${proxy.port}`;
    process.env["NODE_USE_ENV_PROXY"] = "1";
    process.env["NODE_TLS_REJECT_UNAUTHORIZED"] = "0";
    try {
      expect((await fetchOf()({ url: url(server) })).body.toString()).toBe("direct");
      expect(await reasonOf(createGuardedFetch({ dialer: dialerOf(), development: true })({ url: url(server) }))).toMatch(/^tls-/);
    } finally {
      for (const name of ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "NODE_USE_ENV_PROXY", "NODE_TLS_REJECT_UNAUTHORIZED"]) delete process.env[name];
    }
    expect(proxy.seen.accepted).toBe(0);
  });
});

describe("a certificate", () => {
  const cases: [name: string, make: () => Promise<GenerateResult>, reason: string][] = [
    ["that has expired", () => signed("provider.example", ca, { notBeforeDate: ago(9), notAfterDate: ago(2) }), "tls-expired"],
    ["that is not valid yet", () => signed("provider.example", ca, { notBeforeDate: ago(-5), notAfterDate: ago(-9) }), "tls-not-yet-valid"],
    ["for another name", () => signed("other.example", ca), "tls-wrong-name"],
    ["that is signed by itself", () => certificate("provider.example"), "tls-self-signed"],
    ["from an unknown authority", async () => signed("provider.example", await authority("other")), "tls-unknown-authority"],
    ["from an authority that takes a trusted one's name", async () => signed("provider.example", await authority()), "tls-unknown-authority"],
    [
      "that brings its own authority along",
      async () => {
        const other = await authority("other");
        const leaf = await signed("provider.example", other);
        return { ...leaf, cert: `${leaf.cert}\n${other.cert}` };
      },
      "tls-unknown-authority",
    ],
  ];
  test.each(cases)("%s is not accepted", async (_, make, reason) => {
    let requests = 0;
    await using server = await https(() => (requests += 1), await make());
    expect(await reasonOf(fetchOf()({ url: url(server), headers: { authorization: "canary" } }))).toBe(reason);
    expect(requests).toBe(0);
  });

  test("for a name does not do for its address", async () => {
    await using server = await https((_, response) => response.end());
    expect(await reasonOf(fetchOf()({ url: `https://127.0.0.1:${server.port}/` }))).toBe("tls-wrong-name");
  });

  test("is asked for in TLS 1.2 or later only", async () => {
    const options = { key: good.private, cert: good.cert, minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" } as const;
    await using server = await startTcp(() => {}, createTlsServer(options).on("tlsClientError", () => {}));
    expect(await reasonOf(fetchOf()({ url: url(server) }))).toBe("tls-failed");
  });
});

describe("a hostile web server", () => {
  const raw = (serve: (socket: Socket) => void) => startTcp(() => {}, createTlsServer({ key: good.private, cert: good.cert }, serve));
  const endless = (socket: Socket, head: string, piece: string) => {
    socket.write(head);
    const more = () => {
      while (socket.writable && socket.write(piece));
    };
    socket.on("drain", more).on("error", () => {});
    more();
  };
  const cases: [name: string, serve: (socket: Socket) => void, reason: string][] = [
    ["sends an endless body", (socket) => endless(socket, "HTTP/1.1 200 OK\r\n\r\n", "x".repeat(65_536)), "too-many-bytes"],
    ["sends endless headers", (socket) => endless(socket, "HTTP/1.1 200 OK\r\n", `x-a: ${"y".repeat(1_000)}\r\n`), "too-many-bytes"],
    ["sends endless interim answers", (socket) => endless(socket, "", "HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n".repeat(100)), "too-many-bytes"],
    [
      "promises more than it may send",
      (socket) => endless(socket, "HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n", "x".repeat(65_536)),
      "too-many-bytes",
    ],
    ["breaks off in the body", (socket) => socket.end("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"), "connection-lost"],
    ["says nothing and leaves", (socket) => socket.end(), "connection-lost"],
    ["speaks something else", (socket) => socket.write("SSH-2.0-OpenSSH_9.9\r\n"), "protocol-error"],
    ["frames its body twice", (socket) => socket.write("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc"), "protocol-error"],
    ["changes the protocol", (socket) => socket.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"), "protocol-error"],
    ["says nothing", () => {}, "deadline"],
    ["stops in the headers", (socket) => socket.write("HTTP/1.1 200 OK\r\nx-a: "), "deadline"],
    ["stops in the body", (socket) => socket.write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"), "deadline"],
  ];
  test.each(cases)("that %s is left", async (_, serve, reason) => {
    await using server = await raw((socket) => {
      socket.on("error", () => {});
      socket.once("data", () => serve(socket));
    });
    expect(await reasonOf(fetchOf({ totalMs: reason === "deadline" ? 700 : 10_000 })({ url: url(server) }))).toBe(reason);
  });

  test("that never finishes the handshake, or does not speak TLS, is left", async () => {
    await using silent = await startTcp(() => {});
    await using plain = await startTcp((socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"));
    await using closing = await startTcp((socket) => socket.end());
    await using long = await startTcp((socket) => socket.write(Buffer.alloc(200_000, Buffer.from([22, 3, 3, 64, 0]))));
    expect(await reasonOf(fetchOf({ totalMs: 500 })({ url: url(silent) }))).toBe("deadline");
    expect(await reasonOf(fetchOf()({ url: url(plain) }))).toBe("tls-failed");
    expect(await reasonOf(fetchOf()({ url: url(closing) }))).toBe("connection-lost");
    expect(["tls-failed", "too-many-bytes"]).toContain(await reasonOf(fetchOf()({ url: url(long) })));
  });

  test("may send a body and headers of exactly the size that is accepted", async () => {
    await using server = await https((request, response) => {
      const [, word = ""] = (request.url ?? "").split("/");
      response.setHeader("x-pad", "p".repeat(word === "padded" ? 3_000 : 1)).end("x".repeat(Number(word) || 1));
    });
    const fetch = fetchOf({ maxBodyBytes: 1_000, maxHeaderBytes: 2_000 });
    expect((await fetch({ url: url(server, "/1000") })).body).toHaveLength(1_000);
    expect(await reasonOf(fetch({ url: url(server, "/1001") }))).toBe("too-many-bytes");
    expect(await reasonOf(fetch({ url: url(server, "/padded") }))).toBe("too-many-bytes");
  });

  test("is left when the caller leaves, even in the middle of the body", async () => {
    const leaving = new AbortController();
    await using server = await https((_, response) => {
      response.write("abc");
      setTimeout(() => leaving.abort(), 50);
    });
    expect(await reasonOf(fetchOf()({ url: url(server), signal: leaving.signal }))).toBe("cancelled");
  });

  test("leaves no descriptor behind, whether it behaves or not", async () => {
    await using server = await https((request, response) => (request.url === "/ok" ? response.end("ok") : response.write("x".repeat(3_000_000))));
    const fetch = fetchOf();
    const round = async () => {
      await fetch({ url: url(server, "/ok") });
      expect(await reasonOf(fetch({ url: url(server, "/huge") }))).toBe("too-many-bytes");
    };
    await round();
    const before = descriptors();
    for (let index = 0; index < 30; index += 1) await round();
    await expect.poll(() => descriptors() - before, { timeout: 10_000 }).toBeLessThanOrEqual(2);
  });
});
