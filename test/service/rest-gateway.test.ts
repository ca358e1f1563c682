import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { ResolveCredentialResponse } from "../../gen/flow/credentials/v1/credential_service.ts";
import { CredentialDetail, Provider } from "../../gen/flow/credentials/v1/resources.ts";
import { fail, type Reason, REASONS } from "../../src/domain/errors.ts";
import { isRequestId } from "../../src/log.ts";
import { reportedFaults, type RestUnderTest, restUnderTest } from "../support/scripted-service.ts";

let rest: RestUnderTest;
beforeAll(async () => {
  rest = await restUnderTest();
});
afterAll(() => rest[Symbol.asyncDispose]());
beforeEach(() => rest.seen.splice(0));

const ID = "0190a3f2-0000-7000-8000-000000000001";
const at = new Date("2025-01-23T15:30:00.123Z");
const credential = CredentialDetail.fromPartial({ id: ID, createdAt: at, updatedAt: at, modifiedBy: "system", provider: Provider.PROVIDER_SFTP });
const good = { provider: "sftp", credential_type: "user_password", credentials: { host: "h" } };

async function ask(method: string, path: string, init: { body?: unknown; headers?: Record<string, string> } = {}) {
  const body = init.body === undefined ? null : typeof init.body === "string" ? init.body : JSON.stringify(init.body);
  const headers = { ...(body === null ? {} : { "content-type": "application/json" }), ...init.headers };
  const response = await fetch(rest.url + path, { method, headers, body });
  const text = await response.text();
  return { status: response.status, headers: response.headers, body: text === "" ? undefined : JSON.parse(text), seen: rest.seen.at(-1) };
}

const OPERATIONS = [
  ["POST", "/integrations/credentials", "createCredential", 201],
  ["GET", "/integrations/credentials", "listCredentials", 200],
  ["GET", "/integrations/credentials/provider/SFTP", "listCredentials", 200],
  ["GET", `/integrations/credentials/${ID}`, "getCredential", 200],
  ["PATCH", `/integrations/credentials/${ID}`, "updateCredential", 200],
  ["DELETE", `/integrations/credentials/${ID}`, "deleteCredential", 204],
  ["GET", "/integrations/catalog", "listIntegrations", 200],
] as const;
const COMMON = { "cache-control": "no-store", "x-content-type-options": "nosniff" };

describe.each(OPERATIONS)("%s %s", (method, path, rpc, success) => {
  const body = method === "POST" || method === "PATCH" ? good : undefined;

  it.each(["", "/api"])(`calls ${rpc} and answers ${success}, below the prefix %j`, async (prefix) => {
    rest.script(rpc, () => ({ credential, credentials: [], integrations: [], etag: "" }));
    const answer = await ask(method, prefix + path, { body });
    expect([answer.status, answer.seen?.method]).toEqual([success, rpc]);
    expect(Object.fromEntries(answer.headers)).toMatchObject(COMMON);
    expect(answer.headers.get("content-type")).toBe(success === 204 ? null : "application/json; charset=utf-8");
    expect(answer.headers.get("x-request-id")).toBe(answer.seen?.metadata.get("x-request-id")[0]);
  });

  it.each(Object.keys(REASONS) as Reason[])("renders %s as documented, its request id in body and header", async (reason) => {
    const violations = REASONS[reason].http === 422 ? [{ in: "body", path: ["provider"], type: "missing", message: "Field required" } as const] : [];
    rest.script(rpc, () => {
      throw fail(reason, { violations });
    });
    const answer = await ask(method, path, { body });
    const { http, code, message } = REASONS[reason];
    expect(answer.status).toBe(http);
    const id = answer.headers.get("x-request-id") ?? "";
    expect(isRequestId(id)).toBe(true);
    const detail = [{ loc: ["body", "provider"], msg: "Field required", type: "missing" }];
    expect(answer.body).toEqual(http === 422 ? { detail } : { error: { message, code, details: null }, request_id: id });
    expect(Object.fromEntries(answer.headers)).toMatchObject({ ...COMMON, "content-type": "application/json; charset=utf-8" });
  });

  it("says nothing of an error that is not the service's own", async () => {
    rest.script(rpc, () => {
      throw Object.assign(new Error("pg: password=canary"), { code: 2, details: "pg: password=canary" });
    });
    const answer = await ask(method, path, { body });
    expect(answer.status).toBe(500);
    expect(answer.body.error).toEqual({ message: "Internal server error", code: "internal_error", details: null });
  });
});

describe("a request", () => {
  it("reaches the service with its identity, its flow and its run", async () => {
    rest.script("listCredentials", () => ({ credentials: [] }));
    const forwarded = { authorization: "bEaReR a.b.c", "x-api-key": "saf_1", "x-flow-id": "flow", "x-run-id": "run" };
    const { seen } = await ask("GET", "/integrations/credentials", { headers: { ...forwarded, cookie: "c=1", "x-rest-faults-bin": "W10" } });
    expect(seen?.metadata.getMap()).toEqual({ ...forwarded, "x-request-id": expect.any(String), "user-agent": expect.any(String) });
  });

  it("with an identity header given twice reaches the service with both values", async () => {
    const twice = "Authorization: Bearer a\r\nX-API-Key: saf_1\r\nauthorization: Bearer b\r\nx-api-key: saf_2\r\n";
    await rest.raw(`GET /integrations/credentials HTTP/1.1\r\nHost: a\r\n${twice}Connection: close\r\n\r\n`);
    expect(rest.seen.map(({ metadata }) => [metadata.get("authorization"), metadata.get("x-api-key")])).toEqual([[["Bearer a, Bearer b"], ["saf_1, saf_2"]]]);
  });

  it("with an identity that is not ASCII reaches the service with one that cannot be good", async () => {
    await rest.raw(Buffer.from("GET /integrations/credentials HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer t\u00f6k\tn\r\nConnection: close\r\n\r\n", "latin1"));
    expect(rest.seen[0]?.metadata.get("authorization")).toEqual(["Bearer t?k?n"]);
  });

  it("keeps a request id that is a ULID and replaces any other", async () => {
    const ulid = "01K8KABR6S16YETA2SZPVBS9SP";
    expect((await ask("GET", "/integrations/credentials", { headers: { "x-request-id": ulid } })).headers.get("x-request-id")).toBe(ulid);
    for (const given of ["canary", ulid.toLowerCase(), `${ulid}, ${ulid}`, "81K8KABR6S16YETA2SZPVBS9SP", "01K8KABR6S16YETA2SZPVBS9SL"]) {
      const id = (await ask("GET", "/integrations/credentials", { headers: { "x-request-id": given } })).headers.get("x-request-id") ?? "";
      expect([isRequestId(id), id === given]).toEqual([true, false]);
    }
  });

  it("with query parameters is the same request", async () => {
    await ask("GET", `/integrations/credentials/${ID}?credential_id=other&provider=google&a[]=%zz`);
    expect(rest.seen.map(({ request }) => request)).toEqual([{ credentialId: ID }]);
  });

  it("to a path without a body ignores one", async () => {
    rest.script("deleteCredential", () => ({}));
    const answer = await ask("DELETE", `/integrations/credentials/${ID}`, { body: { etag: "1", credential_id: "other" } });
    expect([answer.status, answer.seen?.request, reportedFaults(answer.seen)]).toEqual([204, { credentialId: ID, etag: "" }, []]);
  });

  it("with headers for audit that metadata cannot carry is 400", async () => {
    const long = Buffer.from("GET /integrations/credentials HTTP/1.1\r\nHost: a\r\nX-Flow-Id: fl\u00f6w\r\nConnection: close\r\n\r\n", "latin1");
    const twice = "GET /integrations/credentials HTTP/1.1\r\nHost: a\r\nX-Run-Id: a\r\nX-Run-Id: b\r\nConnection: close\r\n\r\n";
    for (const text of [long, twice]) expect(await rest.raw(text)).toMatch(/^HTTP\/1\.1 400 .*"Invalid request metadata"/s);
    expect(rest.seen).toEqual([]);
  });
});

describe("faults of a request", () => {
  it.each([
    ['{"provider":', [["json_invalid"]]],
    ["", [["missing"]]],
    ["[]", [["model_attributes_type"]]],
    ['{"provider":"sftp","provider":"google"}', [["json_invalid"]]],
    ['{"provider":"x","credential_type":1,"credentials":[],"name":{}}', [["provider", "enum"], ["credential_type", "enum"], ["credentials", "dict_type"], ["name", "string_type"]]],
  ])("go to the service, which decides: %s", async (body, faults) => {
    rest.script("createCredential", () => {
      throw fail("UNAUTHENTICATED");
    });
    const answer = await ask("POST", "/integrations/credentials", { body });
    expect(answer.status).toBe(401);
    expect(reportedFaults(answer.seen).map(({ in: place, path, type }) => [place, ...path, type])).toEqual(faults.map((fault) => ["body", ...fault]));
  });

  it("of the path go there as well, beside those of the body", async () => {
    const { seen } = await ask("PATCH", "/integrations/credentials/%ff", { body: "{" });
    expect(reportedFaults(seen).map(({ in: place, path, type }) => [place, ...path, type])).toEqual([["path", "credential_id", "string_unicode"], ["body", "json_invalid"]]);
    expect(reportedFaults((await ask("GET", "/integrations/credentials/provider/ftp")).seen)).toMatchObject([{ in: "path", path: ["provider"], type: "enum" }]);
  });
});

describe("the secret of a credential", () => {
  it("cannot be reached over REST unless the operator says so", async () => {
    const path = "/flow.credentials.v1.CredentialService/ResolveCredential";
    const override = { "x-http-method-override": "GET", "x-method-override": "GET", "content-type": "application/grpc-web+proto" };
    const route = `/integrations/credentials/${ID}/credentials`;
    for (const [method, target] of [["GET", route], ["GET", `/api${route}`], ["POST", path], ["POST", `/api${path}`]] as const) {
      const answer = await ask(method, target, { headers: override });
      expect([answer.status, answer.body.error.code]).toEqual([404, "not_found"]);
    }
    expect(rest.seen).toEqual([]);
  });

  it("is given flat where the operator says so", async () => {
    await using open = await restUnderTest({ resolve: true });
    open.script("resolveCredential", () => ResolveCredentialResponse.fromPartial({ credentialId: ID, credentials: { $case: "apiKey", value: { apiKey: "k" } }, extra: { note: 1 } }));
    const answer = await fetch(`${open.url}/integrations/credentials/${ID}/credentials`);
    expect([answer.status, answer.headers.get("cache-control"), await answer.json()]).toEqual([200, "no-store", { api_key: "k", note: 1 }]);
  });
});
