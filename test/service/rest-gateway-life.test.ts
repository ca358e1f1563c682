import { connect } from "node:net";
import { once } from "node:events";
import { get } from "node:https";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generate } from "selfsigned";
import { describe, expect, it } from "vitest";
import { createLog, isRequestId } from "../../src/log.ts";
import { serveRest } from "../../src/rest/server.ts";
import { dial } from "../../src/rest/transport.ts";
import { restUnderTest } from "../support/scripted-service.ts";

const LIST = "/integrations/credentials";

describe("the probes", () => {
  it("say that the process lives, whether it can serve, and what it counted", async () => {
    let ready: () => Promise<boolean> = async () => true;
    await using rest = await restUnderTest({ ready: () => ready() });
    const ask = async (path: string) => {
      const response = await fetch(rest.url + path);
      expect(isRequestId(response.headers.get("x-request-id") ?? "")).toBe(true);
      return [response.status, await response.text(), response.headers.get("content-type")];
    };
    const json = "application/json; charset=utf-8";
    expect(await ask("/healthz")).toEqual([200, '{"status":"ok"}', json]);
    expect(await ask("/readyz")).toEqual([200, '{"status":"ready"}', json]);
    expect(await ask("/metrics")).toEqual([200, "up 1\n", "text/plain; version=0.0.4"]);
    ready = async () => Promise.reject(new Error("canary"));
    await expect.poll(() => ask("/readyz"), { timeout: 5_000 }).toEqual([503, '{"status":"unavailable"}', json]);
    expect((await ask("/healthz"))[0]).toBe(200);
    expect((await fetch(`${rest.url}/healthz`, { method: "HEAD" })).status).toBe(200);
    expect((await fetch(`${rest.url}/readyz`, { method: "POST" })).headers.get("allow")).toBe("GET, HEAD");
    expect(rest.seen).toEqual([]);
  });

  it("ask what is behind them once, however many ask them at once and shortly after", async () => {
    const asked = { ready: 0, metrics: 0 };
    const held = Promise.withResolvers<boolean>();
    const metrics = async () => ({ contentType: "text/plain", body: `${++asked.metrics}` });
    const ready = () => {
      asked.ready += 1;
      return held.promise;
    };
    await using rest = await restUnderTest({ ready, metrics });
    const asking = Array.from({ length: 20 }, (_, n) => fetch(`${rest.url}/${n % 2 === 0 ? "readyz" : "metrics"}`));
    await expect.poll(() => asked).toEqual({ ready: 1, metrics: 1 });
    held.resolve(true);
    expect(new Set((await Promise.all(asking)).map(({ status }) => status))).toEqual(new Set([200]));
    await fetch(`${rest.url}/readyz`);
    expect(asked.ready).toBe(1);
  });

  it("fail with an envelope that says nothing of the cause", async () => {
    await using rest = await restUnderTest({ metrics: () => Promise.reject(new Error("canary")) });
    const response = await fetch(`${rest.url}/metrics`);
    expect([response.status, await response.json()]).toMatchObject([500, { error: { message: "Internal server error" } }]);
    expect(rest.log()).not.toContain("canary");
  });
});

describe("cross-origin requests", () => {
  const origin = "https://app.example";
  const preflight = { "access-control-request-method": "POST", "access-control-request-headers": "authorization" };

  it("from a listed origin are allowed, without credentials mode", async () => {
    await using rest = await restUnderTest({ corsOrigins: [origin] });
    rest.script("listCredentials", () => ({ credentials: [] }));
    const answer = await fetch(rest.url + LIST, { headers: { origin } });
    expect([answer.status, answer.headers.get("access-control-allow-origin"), answer.headers.get("vary")]).toEqual([200, origin, "Origin"]);
    const before = await fetch(rest.url + LIST, { method: "OPTIONS", headers: { origin, ...preflight } });
    expect([before.status, before.headers.get("access-control-allow-methods"), before.headers.get("access-control-allow-origin")]).toEqual([204, "POST, GET", origin]);
    expect(before.headers.get("access-control-allow-headers")).toContain("authorization");
    for (const response of [answer, before]) expect(response.headers.get("access-control-allow-credentials")).toBeNull();
    expect((await fetch(`${rest.url}/nowhere`, { method: "OPTIONS", headers: { origin, ...preflight } })).status).toBe(404);
  });

  const near = ["https://app.example.evil.example", "https://evil-app.example", "https://a.app.example", "https://app.example:8443", "http://app.example"];
  it.each([...near, "https://APP.example", "https://app.example/", "null", "*"])(
    "from another origin get no permission: %s",
    async (other) => {
      await using rest = await restUnderTest({ corsOrigins: [origin] });
      for (const [method, status] of [["GET", 200], ["OPTIONS", 405]] as const) {
        rest.script("listCredentials", () => ({ credentials: [] }));
        const response = await fetch(rest.url + LIST, { method, headers: { origin: other, ...preflight } });
        expect([response.status, response.headers.get("access-control-allow-origin"), response.headers.get("vary")]).toEqual([status, null, "Origin"]);
      }
    },
  );

  it("are refused at start for an origin that is not exact", async () => {
    for (const wrong of ["*", "null", "https://app.example/", "app.example"]) await expect(restUnderTest({ corsOrigins: [wrong] })).rejects.toThrow("CORS origin");
  });
});

describe("a request that takes long", () => {
  it("to arrive is 408, in its headers and in its body", async () => {
    await using rest = await restUnderTest({ limits: { headersMs: 100, requestMs: 200 } });
    const head = `POST ${LIST} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n`;
    for (const text of [head, `${head}Content-Length: 10\r\n\r\n{`]) expect(await rest.raw(text)).toMatch(/^HTTP\/1\.1 408 .*"The request took too long to arrive"/s);
  });

  it("to answer is 504 after the deadline, and the service is told", async () => {
    await using rest = await restUnderTest({ deadlineMs: 100 });
    rest.script("listCredentials", ({ cancelled }) => cancelled);
    const response = await fetch(rest.url + LIST);
    expect([response.status, await response.json()]).toMatchObject([504, { error: { code: "service_error" } }]);
    await rest.seen[0]?.cancelled;
  });

  it("and whose client goes away is cancelled", async () => {
    await using rest = await restUnderTest();
    const arrived = Promise.withResolvers<void>();
    rest.script("listCredentials", ({ cancelled }) => (arrived.resolve(), cancelled));
    const gone = new AbortController();
    const pending = fetch(rest.url + LIST, { signal: gone.signal }).catch((error: Error) => error.name);
    await arrived.promise;
    gone.abort();
    expect(await pending).toBe("AbortError");
    await rest.seen[0]?.cancelled;
  });
});

describe("stopping", () => {
  it("lets what is in flight finish, and closes the connections that are left open", async () => {
    await using rest = await restUnderTest();
    const arrived = Promise.withResolvers<void>();
    const release = Promise.withResolvers<void>();
    rest.script("listCredentials", async () => {
      arrived.resolve();
      await release.promise;
      return { credentials: [] };
    });
    const idle = connect(rest.port, "127.0.0.1");
    await once(idle, "connect");
    const closed = once(idle, "close");
    idle.resume();
    const inFlight = fetch(rest.url + LIST);
    await arrived.promise;
    const stopped = rest.stop();
    release.resolve();
    const response = await inFlight;
    expect([response.status, response.headers.get("connection"), await response.json()]).toEqual([200, "close", []]);
    await Promise.all([stopped, closed]);
    await expect(fetch(rest.url + LIST)).rejects.toThrow();
  });

  it("refuses what still arrives on an open connection", async () => {
    await using rest = await restUnderTest();
    const arrived = Promise.withResolvers<void>();
    const release = Promise.withResolvers<void>();
    rest.script("listCredentials", async () => {
      arrived.resolve();
      await release.promise;
      return { credentials: [] };
    });
    const line = `GET ${LIST} HTTP/1.1\r\nHost: a\r\n\r\n`;
    const socket = connect(rest.port, "127.0.0.1");
    let text = "";
    socket.on("data", (chunk) => (text += chunk.toString()));
    socket.write(line);
    await arrived.promise;
    const stopped = rest.stop();
    socket.write(line);
    await new Promise((resolve) => setImmediate(resolve));
    release.resolve();
    await Promise.all([stopped, once(socket, "close")]);
    expect(text.match(/HTTP\/1\.1 \d+/g)?.[0]).toBe("HTTP/1.1 200");
    expect(rest.seen).toHaveLength(1);
  });
});

describe("the service behind", () => {
  const options = {
    listen: { host: "127.0.0.1", port: 0 }, corsOrigins: [], maxBodyBytes: 1_024, maxJsonDepth: 4, maxJsonKeys: 10, deadlineMs: 2_000, docs: false, resolve: false,
    log: createLog("error"), ready: async () => true, metrics: async () => ({ contentType: "text/plain", body: "" }),
  };

  it("that is not there is 503 with a time to try again, and its address stays private", async () => {
    const folder = mkdtempSync(join(tmpdir(), "rest-"));
    const rest = await serveRest({ ...options, transport: dial({ target: `unix:${join(folder, "absent.sock")}`, deadlineMs: 2_000 }) });
    const response = await fetch(`http://127.0.0.1:${rest.address.port}${LIST}`);
    const text = await response.text();
    expect((await fetch(`http://127.0.0.1:${rest.address.port}/readyz`)).status).toBe(503);
    await rest.stop();
    rmSync(folder, { recursive: true });
    expect([response.status, response.headers.get("retry-after"), text.includes("absent"), JSON.parse(text).error.code]).toEqual([503, "5", false, "service_error"]);
  });

  it("does not matter to the listener's own TLS", async () => {
    const { cert, private: key } = await generate([{ name: "commonName", value: "localhost" }], { extensions: [{ name: "subjectAltName", altNames: [{ type: 2, value: "localhost" }] }] });
    const rest = await serveRest({ ...options, transport: dial({ target: "127.0.0.1:1", deadlineMs: 2_000 }), tls: { certificate: Buffer.from(cert), key: Buffer.from(key) } });
    const status = await new Promise((resolve, reject) => {
      get({ host: "127.0.0.1", servername: "localhost", port: rest.address.port, path: "/healthz", ca: cert, agent: false }, (response) => resolve(response.resume().statusCode)).on("error", reject);
    });
    await rest.stop();
    expect(status).toBe(200);
  });
});
