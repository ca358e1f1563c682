import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { rest, startFresh, token } from "../support/service.ts";

let service: Awaited<ReturnType<typeof startFresh>>;
const [organization, userId] = [randomUUID(), randomUUID()] as const;
let user: string;
let machine: string;
let stranger: string;
let id: string;

const sftp = { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password: "p" } };
const { provider: _provider, ...change } = sftp;
const ULID = /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/;
const PREFIXES = ["", "/api"];

const call = (method: string, path: string, options: Parameters<typeof rest>[3] = {}) => rest(service, method, path, { token: user, ...options });

beforeAll(async () => {
  service = await startFresh();
  [user, machine, stranger] = await Promise.all([token("user", organization, userId), token("service_account", organization), token("user", randomUUID())]);
  id = (await call("POST", "/integrations/credentials", { body: sftp })).json.id;
});
afterAll(async () => service[Symbol.asyncDispose]());

/** The envelope of a refusal, its status, and its request id in both places. */
function expectEnvelope(answer: Awaited<ReturnType<typeof call>>, status: number, code: string, message: string | RegExp) {
  expect([answer.status, answer.json?.error?.code], answer.text).toEqual([status, code]);
  expect(answer.json.error.message).toMatch(message);
  expect(answer.json.error).toHaveProperty("details");
  expect(answer.json.request_id).toMatch(ULID);
  expect(answer.headers.get("x-request-id")).toBe(answer.json.request_id);
}

describe.each(PREFIXES)("under %s/integrations", (prefix) => {
  test("create answers 201 with exactly the seven documented fields, nulls included", async () => {
    const answer = await call("POST", `${prefix}/integrations/credentials`, { body: { ...sftp, name: "kept", id: randomUUID(), organization_id: randomUUID(), anything: 1 } });
    expect(answer.status).toBe(201);
    const { id: made, created_at, updated_at, ...rest } = answer.json;
    expect(rest).toEqual({ modified_by: userId, provider: "sftp", user_id: userId, google_email: null });
    expect(made).toMatch(/^[0-9a-f-]{36}$/);
    expect(created_at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    expect(updated_at).toBe(created_at);
    expect(answer.headers.get("cache-control")).toContain("no-store");
    expect(answer.headers.get("x-request-id")).toMatch(ULID);
  });

  test("reading by id adds type, status, name and etag, and never the secret", async () => {
    const answer = await call("GET", `${prefix}/integrations/credentials/${id.toUpperCase()}`);
    expect(answer.status).toBe(200);
    expect(answer.json).toEqual({
      id,
      created_at: expect.any(String),
      updated_at: expect.any(String),
      modified_by: userId,
      provider: "sftp",
      user_id: userId,
      google_email: null,
      credential_type: "user_password",
      status: "active",
      status_reason: null,
      status_since: expect.any(String),
      token_expires_at: null,
      name: null,
      etag: expect.any(String),
      last_used_at: null,
      used_by: [],
      previous_kept_until: null,
    });
  });

  test("lists are bare arrays, newest first; by provider in any case; empty ones are []", async () => {
    await call("POST", `${prefix}/integrations/credentials`, { body: sftp });
    const { json } = await call("GET", `${prefix}/integrations/credentials`);
    expect(Array.isArray(json)).toBe(true);
    const times = json.map((item: { created_at: string }) => item.created_at);
    expect(times).toEqual([...times].sort().reverse());
    expect((await call("GET", `${prefix}/integrations/credentials/provider/SFTP`)).json).toHaveLength(json.length);
    expect((await call("GET", `${prefix}/integrations/credentials/provider/google`)).text).toBe("[]");
    expectEnvelope(await call("GET", `${prefix}/integrations/credentials/provider/ftp`), 400, "bad_request", "Invalid provider");
  });

  test("the catalog says what each provider takes, with a JSON Schema", async () => {
    const { status, json } = await call("GET", `${prefix}/integrations/catalog`);
    expect([status, json.length]).toEqual([200, 7]);
    for (const item of json) {
      expect(Object.keys(item).sort()).toEqual(["category", "credential_providers", "credential_types", "description", "display_name", "id", "is_plugin", "name", "provider"]);
      expect(item.credential_providers.map((way: { name: string }) => way.name)).toEqual(item.credential_types);
      for (const way of item.credential_providers) expect(way.credential_schema).toMatchObject({ type: "object" });
    }
  });

  test("resolving over REST does not exist unless the operator turned it on", async () => {
    expectEnvelope(await call("GET", `${prefix}/integrations/credentials/${id}/credentials`, { token: machine }), 404, "not_found", /./);
  });
});

test("refusals come in order: who, which kind, path, body, then meaning", async () => {
  const malformed = { raw: '{"provider":' };
  const path = `/integrations/credentials/${id}`;
  expectEnvelope(await rest(service, "POST", "/integrations/credentials", malformed), 401, "unauthorized", "Authentication required");
  expectEnvelope(await call("POST", "/integrations/credentials", { ...malformed, token: "nonsense" }), 401, "unauthorized", "Invalid authentication token");
  expectEnvelope(await call("POST", "/integrations/credentials", { ...malformed, token: machine }), 403, "forbidden", "User account required");
  expectEnvelope(await call("PATCH", "/integrations/credentials/not-a-uuid", malformed), 400, "bad_request", "Invalid credential ID");
  const unprocessable = await call("PATCH", path, malformed);
  expect([unprocessable.status, unprocessable.json.detail[0].type]).toEqual([422, "json_invalid"]);
  expectEnvelope(await call("PATCH", path, { token: stranger, body: change }), 404, "not_found", "Credential not found");
  expectEnvelope(await call("PATCH", path, { body: { credential_type: "key_file", credentials: { host: "h" } } }), 400, "bad_request", "Invalid request data");
});

test("missing, deleted and another organization's credential are the same 404 for every method", async () => {
  const deleted = (await call("POST", "/integrations/credentials", { body: sftp })).json.id;
  expect(await call("DELETE", `/integrations/credentials/${deleted}`)).toMatchObject({ status: 204, text: "" });
  for (const [method, options] of [["GET", {}], ["PATCH", { body: change }], ["DELETE", {}]] as const) {
    const answers = [
      await call(method, `/integrations/credentials/${randomUUID()}`, options),
      await call(method, `/integrations/credentials/${deleted}`, options),
      await call(method, `/integrations/credentials/${id}`, { ...options, token: stranger }),
    ];
    const bodies = answers.map(({ text, json }) => text.replace(json.request_id, "-"));
    expect(new Set(bodies).size).toBe(1);
    for (const answer of answers) expectEnvelope(answer, 404, "not_found", "Credential not found");
  }
});

test.each([
  ["nothing at all", {}, [["provider"], ["credential_type"], ["credentials"]]],
  ["wrong types", { provider: 5, credential_type: ["x"], credentials: "text" }, [["provider"], ["credential_type"], ["credentials"]]],
  ["unknown words", { provider: "SFTP", credential_type: "password", credentials: {} }, [["provider"], ["credential_type"]]],
  ["the unspecified word", { provider: "unspecified", credential_type: "user_password", credentials: {} }, [["provider"]]],
  ["nulls", { provider: null, credential_type: null, credentials: null }, [["provider"], ["credential_type"], ["credentials"]]],
])("a body with %s is a 422 that names each field and no value", async (_, body, fields) => {
  const answer = await call("POST", "/integrations/credentials", { body });
  expect(answer.status, answer.text).toBe(422);
  expect(Object.keys(answer.json)).toEqual(["detail"]);
  expect(answer.json.detail.map((item: { loc: string[] }) => item.loc)).toEqual(fields.map((path) => ["body", ...path]));
  for (const item of answer.json.detail) expect(Object.keys(item).sort()).toEqual(["loc", "msg", "type"]);
  expect(answer.headers.get("x-request-id")).toMatch(ULID);
});

test.each([
  ["an array", "[]"],
  ["a string", '"x"'],
  ["malformed JSON", "{"],
  ["a duplicate key", '{"provider":"sftp","provider":"google"}'],
  ["a prototype key", '{"credentials":{"__proto__":{"admin":true}}}'],
  ["20 levels", `{"credentials":${'{"a":'.repeat(20)}1${"}".repeat(20)}}`],
  ["2,000 keys", JSON.stringify({ credentials: Object.fromEntries(Array.from({ length: 2000 }, (_, n) => [`k${n}`, 1])) })],
  ["nothing", ""],
])("a body that is %s is a 422", async (_, raw) => {
  const answer = await call("POST", "/integrations/credentials", { raw });
  expect(answer.status, answer.text).toBe(422);
  expect(answer.json.detail.length).toBeGreaterThan(0);
  expect(({} as { admin?: boolean }).admin).toBeUndefined();
});

test.each([
  ["a type the provider does not take", { ...sftp, credential_type: "oauth2" }, "credential_type"],
  ["an empty secret", { ...sftp, credentials: {} }, "credentials"],
  ["a missing password", { ...sftp, credentials: { host: "h", username: "u" } }, "credentials.password"],
  ["a blank host", { ...sftp, credentials: { ...sftp.credentials, host: "  " } }, "credentials.host"],
  ["a port too high", { ...sftp, credentials: { ...sftp.credentials, port: 70_000 } }, "credentials.port"],
  ["a key that is none", { ...sftp, credential_type: "key_file", credentials: { host: "h", username: "u", private_key_data: "no key" } }, "credentials.private_key_data"],
  ["tokens without a token", { provider: "google", credential_type: "google_oauth", credentials: { scope: "x" } }, "credentials"],
  ["a connection string that is none", { provider: "postgresql", credential_type: "user_password", credentials: { connection_string: "nonsense" } }, "credentials.connection_string"],
])("%s is a 400 that names the key", async (_, body, field) => {
  const answer = await call("POST", "/integrations/credentials", { body });
  expectEnvelope(answer, 400, "bad_request", "Invalid request data");
  expect(answer.json.error.details.map((detail: { field: string }) => detail.field).join(" ")).toContain(field);
});

test("the wrong place, method, media type or size has its own envelope", async () => {
  expectEnvelope(await call("GET", "/integrations/nothing"), 404, "not_found", /./);
  const wrongMethod = await call("PUT", "/integrations/credentials", { body: sftp });
  expect([wrongMethod.status, wrongMethod.headers.get("allow")]).toEqual([405, expect.stringContaining("POST")]);
  const plain = await call("POST", "/integrations/credentials", { raw: JSON.stringify(sftp), headers: { "content-type": "text/plain" } });
  expect(plain.status).toBe(415);
  const large = await call("POST", "/integrations/credentials", { body: { ...sftp, credentials: { ...sftp.credentials, filler: "x".repeat(140_000) } } });
  expect([large.status, large.json.request_id]).toEqual([413, expect.stringMatching(ULID)]);
});

test("a secret of 64 KiB is stored; one byte more is a 400", async () => {
  const empty = { ...sftp.credentials, filler: "" };
  const filler = 65_536 - JSON.stringify(empty).length;
  const sized = (length: number) => ({ ...sftp, credentials: { ...empty, filler: "x".repeat(length) } });
  expect((await call("POST", "/integrations/credentials", { body: sized(filler) })).status).toBe(201);
  expectEnvelope(await call("POST", "/integrations/credentials", { body: sized(filler + 1) }), 400, "bad_request", "Invalid request data");
});

test("an etag that is current lets an update through, a stale one is a 412 without any change", async () => {
  const made = (await call("POST", "/integrations/credentials", { body: sftp })).json.id;
  const path = `/integrations/credentials/${made}`;
  const { etag, updated_at } = (await call("GET", path)).json;
  const updated = await call("PATCH", path, { body: { ...change, etag } });
  expect([updated.status, updated.json.updated_at > updated_at]).toEqual([200, true]);
  const stale = await call("PATCH", path, { body: { ...change, etag } });
  expect(stale.status).toBe(412);
  expect((await call("GET", path)).json.updated_at).toBe(updated.json.updated_at);
});
