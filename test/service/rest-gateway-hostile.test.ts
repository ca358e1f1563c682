import fc from "fast-check";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { fail } from "../../src/domain/errors.ts";
import { canary, leaks } from "../support/canary.ts";
import { reportedFaults, type RestUnderTest, restUnderTest } from "../support/scripted-service.ts";

let rest: RestUnderTest;
beforeAll(async () => {
  rest = await restUnderTest();
  rest.script("createCredential", () => {
    throw fail("INVALID_REQUEST");
  });
});
afterAll(() => rest[Symbol.asyncDispose]());
beforeEach(() => rest.seen.splice(0));

const CREATE = "/integrations/credentials";
const good = '{"provider":"sftp","credential_type":"key_file","credentials":{}}';
const post = (body: string | Uint8Array | null, headers: Record<string, string>) => fetch(rest.url + CREATE, { method: "POST", headers, body: body as string });

/** An envelope as it came over a raw socket. */
function envelope(text: string): { status: number; message: string; mirrored: boolean } {
  const [head = "", body = ""] = text.split("\r\n\r\n");
  const parsed = JSON.parse(body) as { error: { message: string }; request_id: string };
  const complete = head.includes("cache-control: no-store") && head.includes("content-type: application/json; charset=utf-8");
  return { status: Number(head.split(" ")[1]), message: parsed.error.message, mirrored: complete && head.includes(`x-request-id: ${parsed.request_id}\r\n`) };
}

describe("a body", () => {
  it.each(["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8", 'application/json ; charset="utf-8"'])("as %s is read", async (type) => {
    await post(good, { "content-type": type });
    expect(rest.seen).toHaveLength(1);
  });

  it.each([
    "text/plain", "text/json", "application/vnd.api+json", "application/json-patch+json", "application/json; charset=utf-16", "application/json; charset=utf-8; x=1", "application/jsonp",
    "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "application/json, text/plain", "application/grpc", "application", "*/*", "",
  ])("as %j is 415", async (type) => {
    const response = await post(good, { "content-type": type });
    expect(response.status).toBe(415);
    expect(await response.json()).toMatchObject({ error: { code: "unsupported_media_type" } });
    expect(rest.seen).toEqual([]);
  });

  it("without a type, with two types, or with a content coding is 415", async () => {
    const raw = (headers: string) => rest.raw(`POST ${CREATE} HTTP/1.1\r\nHost: a\r\n${headers}Content-Length: 2\r\nConnection: close\r\n\r\n{}`);
    for (const headers of ["", "Content-Type: application/json\r\nContent-Type: text/plain\r\n", "Content-Type: application/json\r\nContent-Encoding: gzip\r\n"]) {
      expect(envelope(await raw(headers))).toMatchObject({ status: 415, mirrored: true });
    }
    expect(await raw("Content-Type: application/json\r\nContent-Encoding: identity\r\n")).toMatch(/^HTTP\/1\.1 422 /);
  });

  it("that is absent needs no type", async () => {
    expect((await fetch(rest.url + CREATE, { method: "POST" })).status).toBe(422);
    expect(reportedFaults(rest.seen[0])).toEqual([{ in: "body", path: [], type: "missing", message: "Field required" }]);
  });

  it("beyond the limit is 413, whether its length is announced or not", async () => {
    const large = "a".repeat(8_193);
    const announced = `POST ${CREATE} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ${large.length}\r\n\r\n`;
    const chunked = `POST ${CREATE} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n${large.length.toString(16)}\r\n${large}\r\n0\r\n\r\n`;
    for (const text of [announced, chunked]) expect(envelope(await rest.raw(text))).toMatchObject({ status: 413, mirrored: true });
    expect(rest.seen).toEqual([]);
    expect((await post(`${good}${" ".repeat(8_192 - good.length)}`, { "content-type": "application/json" })).status).toBe(422);
    expect(rest.seen).toHaveLength(1);
  });

  it("of hostile JSON is one fault each, and changes no prototype", async () => {
    const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);
    const polluting = ['{"__proto__":{"x":1}}', '{"credentials":{"constructor":{"prototype":{"x":1}}}}'];
    const bodies = [...polluting, `{"credentials":${nested(3_000)}}`, `{"a":${nested(3_900)},"a":1}`, `{"a":[${"1,".repeat(200)}1]}`, '{"a":1,"a":2}', '"\\ud800"', "\ufeff{}"];
    for (const body of bodies) {
      expect((await post(body, { "content-type": "application/json" })).status).toBe(422);
      expect(reportedFaults(rest.seen.at(-1))).toMatchObject([{ in: "body", path: [], type: "json_invalid" }]);
    }
    expect(({} as Record<string, unknown>)["x"]).toBeUndefined();
  });
});

describe("a path", () => {
  const strange = ["../catalog", "%2e%2e/catalog", "a%2fb", "a%5Cb", "%00", "./a"].map((tail) => `${CREATE}/${tail}`);
  it.each([...strange, "http://a/integrations/catalog"])(
    "that readers may read differently is 400: %s",
    async (path) => {
      expect(envelope(await rest.raw(`GET ${path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`))).toEqual({ status: 400, message: "Invalid request path", mirrored: true });
      expect(rest.seen).toEqual([]);
    },
  );

  const collapsing = ["/integrations//catalog", "//integrations/catalog", "/integrations/catalog/", "/integrations/Catalog", "/integrations/%63atalog"];
  it.each([...collapsing, "/", "/api", "/integrations/credentials/provider/sftp/x", "/docs"])(
    "that is no route is 404: %s",
    async (path) => {
      expect(envelope(await rest.raw(`GET ${path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`))).toEqual({ status: 404, message: "Resource not found", mirrored: true });
    },
  );

  it.each(["PUT", "TRACE", "PROPFIND", "OPTIONS", "DELETE", "SEARCH", "QUERY"])("with a method it does not have is 405 with those it has: %s", async (method) => {
    const text = await rest.raw(`${method} ${CREATE} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`);
    expect(envelope(text)).toEqual({ status: 405, message: "Method not allowed", mirrored: true });
    expect(text).toMatch(/\r\nallow: POST, GET\r\n/);
  });

  it("is 405 without a body for HEAD", async () => {
    const response = await fetch(rest.url + CREATE, { method: "HEAD" });
    expect([response.status, response.headers.get("allow"), await response.text()]).toEqual([405, "POST, GET", ""]);
  });
});

describe("HTTP that is malformed", () => {
  const close = "Connection: close\r\n\r\n";
  it.each([
    ["two lengths", `POST ${CREATE} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n${close}{}`, 400],
    ["a length and chunks", `POST ${CREATE} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n${close}{}`, 400],
    ["a coding that is not chunked", `POST ${CREATE} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: gzip\r\n${close}{}`, 400],
    ["bare line feeds", `GET ${CREATE} HTTP/1.1\nHost: a\n\n`, 400],
    ["a folded header", `GET ${CREATE} HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n${close}`, 400],
    ["a space before a colon", `GET ${CREATE} HTTP/1.1\r\nHost: a\r\nX-A : b\r\n${close}`, 400],
    ["no Host", `GET ${CREATE} HTTP/1.1\r\n${close}`, 400],
    ["two Hosts", `GET ${CREATE} HTTP/1.1\r\nHost: a\r\nHost: b\r\n${close}`, 400],
    ["an unknown method", `BREW ${CREATE} HTTP/1.1\r\nHost: a\r\n${close}`, 400],
    ["no HTTP at all", "\x16\x03\x01\x02\x00\x01\x00", 400],
    ["64 KiB of headers", `GET ${CREATE} HTTP/1.1\r\nHost: a\r\nX-Big: ${"a".repeat(65_536)}\r\n${close}`, 431],
  ])("is refused with an envelope: %s", async (_, text, status) => {
    expect(envelope(await rest.raw(text))).toMatchObject({ status, mirrored: true });
    expect(rest.seen).toEqual([]);
  });
});

describe("a value from outside", () => {
  it("is repeated neither in an answer nor in the log, wherever it was planted", async () => {
    const planted = canary("rest");
    const secret = `{"provider":"${planted}","credential_type":{"${planted}":1},"credentials":"${planted}","${planted}":1`;
    const answers: Buffer[] = [];
    const keep = async (response: Promise<Response>) => answers.push(Buffer.from(`${JSON.stringify([...(await response).headers])}${await (await response).text()}`));
    for (const body of [secret, `${secret}}`, `${secret},"${planted}":2}`, `{"__proto__":"${planted}"}`, planted]) {
      for (const type of ["application/json", `text/${planted}`]) {
        await keep(post(body, { "content-type": type, authorization: `Bearer ${planted}`, "x-api-key": planted, "x-request-id": planted }));
      }
    }
    for (const path of [`/${planted}`, `${CREATE}/${planted}/x`, `${CREATE}/provider/${planted}`, `/integrations/%00${planted}`, `/integrations/catalog?${planted}`]) {
      await keep(fetch(rest.url + path, { headers: { origin: `https://${planted}` } }));
      await keep(fetch(rest.url + path, { method: "PUT" }));
    }
    for (const line of [`GET /${planted} HTTP/9.9`, `${planted} / HTTP/1.1`, `GET / HTTP/1.1\r\n${planted}`]) answers.push(Buffer.from(await rest.raw(`${line}\r\n\r\n`)));
    expect(answers.flatMap((bytes, index) => leaks([planted], `answer ${index}`, bytes))).toEqual([]);
    const reported = rest.seen.map((seen) => JSON.stringify(reportedFaults(seen))).join();
    expect(leaks([planted], "log", Buffer.from(rest.log() + reported))).toEqual([]);
    expect(rest.log()).toContain('"path":"-","status":404');
  });
});

describe("any request", () => {
  it("gets a complete answer with a documented status, never a failure of REST's own", async () => {
    const word = fc.constantFrom("integrations", "credentials", "provider", "api", "catalog", "sftp", "..", "", "%2e", "%zz", "a b", "\u00e9", "healthz", "*");
    const types = ["Content-Type: application/json", "Content-Type: x", "Content-Encoding: gzip"];
    const header = fc.constantFrom(...types, "Authorization: Bearer x", "Authorization:", "X-Flow-Id: \u00e9", "Expect: x", "Origin: null", "Upgrade: h2c");
    const body = fc.oneof(fc.json({ maxDepth: 3 }), fc.constantFrom("", "{", good, "\u00ff"));
    const method = fc.constantFrom("GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS", "TRACE");
    const request = fc.record({ method, path: fc.array(word, { maxLength: 5 }), headers: fc.array(header, { maxLength: 4 }), body });
    for (const rpc of ["listCredentials", "getCredential", "updateCredential", "deleteCredential", "listIntegrations"] as const) {
      rest.script(rpc, () => {
        throw fail("CREDENTIAL_NOT_FOUND");
      });
    }
    await fc.assert(
      fc.asyncProperty(request, async ({ method: verb, path, headers, body: text }) => {
        const bytes = Buffer.from(text, "latin1");
        const head = [`${verb} /${path.join("/")} HTTP/1.1`, "Host: a", "Connection: close", `Content-Length: ${bytes.length}`, ...headers].join("\r\n");
        const answer = await rest.raw(Buffer.concat([Buffer.from(`${head}\r\n\r\n`, "latin1"), bytes]));
        expect(answer).toMatch(/^(?:HTTP\/1\.1 100 Continue\r\n\r\n)?HTTP\/1\.1 (?:200|400|404|405|415|422) /);
        expect(answer).toMatch(/\r\nx-request-id: [0-9A-Z]{26}\r\n/);
      }),
      { seed: 7, numRuns: 400 },
    );
  });
});
