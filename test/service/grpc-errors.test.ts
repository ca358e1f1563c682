import { randomUUID } from "node:crypto";
import { type Metadata, type MethodDefinition, status } from "@grpc/grpc-js";
import { expect, it, test } from "vitest";
import { fail, GRPC_CODE, type Reason, REASONS } from "../../src/domain/errors.ts";
import { toStatus } from "../../src/grpc/status.ts";
import { canary, leaks } from "../support/canary.ts";
import { call, CALLERS, detailsOf, metadataOf, record, RPCS, startGrpc } from "../support/grpc.ts";

const SECRET = canary("grpc");
const get = { credentialId: randomUUID() };

class Driver extends Error {
  readonly code = "23505";
  readonly detail = SECRET;
}

/** Everything an answer says, as bytes: status text, decoded and raw trailers. */
function said(answer: object): Buffer {
  const { error } = answer as { error?: { details?: string; message?: string; metadata?: Metadata } };
  return Buffer.from(JSON.stringify([answer, error?.details, error?.message, error?.metadata?.toHttp2Headers()]));
}

test.each<[string, () => never | Promise<never>]>([
  ["throws", () => { throw new Driver(`duplicate ${SECRET}`); }],
  ["rejects", async () => Promise.reject(new Driver(SECRET))],
  ["rejects later", () => new Promise((_, reject) => setImmediate(reject, new Error(SECRET)))],
  ["throws a string", () => { throw SECRET as unknown; }],
  ["rejects with an object that looks like a status", () => Promise.reject({ code: 5, details: SECRET, metadata: metadataOf(null), message: SECRET })],
  ["throws our error with the secret as its cause", () => { throw fail("DATABASE_UNAVAILABLE", { cause: new Error(SECRET) }); }],
  ["gives what cannot be written", async () => ({ ...record(), createdAt: { getTime: () => { throw new Error(SECRET); } } }) as never],
  ["gives an id that is no text", async () => ({ ...record(), id: { toString: () => { throw new Error(SECRET); } } }) as never],
])("says nothing of what is inside where a use case %s", async (_how, getCredential) => {
  await using grpc = await startGrpc({ vault: { getCredential } });
  const answer = await call(grpc.client, RPCS.getCredential, get, metadataOf("user"));
  expect(["Internal server error", "Database operation failed"]).toContain(answer.error?.details);
  expect(answer.facts?.["http_status"]).toMatch(/^50[03]$/);
  expect(leaks([SECRET], "answer", said(answer))).toEqual([]);
  expect(leaks([SECRET], "log", Buffer.from(grpc.lines.join("")))).toEqual([]);
  expect(grpc.calls()).toHaveLength(1);
});

it("says nothing of what is inside where the authenticator fails, and calls it an error of ours", async () => {
  const authenticator = { known: () => undefined, authenticate: () => { throw new Driver(SECRET); } };
  await using grpc = await startGrpc({ deps: { authenticator: authenticator as never } });
  const answer = await call(grpc.client, RPCS.getCredential, get, metadataOf("user"));
  expect(answer.reason).toBe("INTERNAL");
  expect(leaks([SECRET], "answer", said(answer))).toEqual([]);
  expect(grpc.calls()).toMatchObject([{ level: "error", code: "INTERNAL", error_name: "Error", error_code: "23505" }]);
});

it("answers with the code, the public sentence and the details of every reason", () => {
  for (const reason of Object.keys(REASONS) as Reason[]) {
    const { code, details, metadata } = toStatus(fail(reason, { incident: "01K8KABR6S16YETA2SZPVBS9SP", cause: new Error(SECRET) }));
    const { grpc, http, message, code: word } = REASONS[reason];
    expect([code, status[code], details]).toEqual([GRPC_CODE[grpc], grpc, message]);
    expect(detailsOf(metadata)).toEqual({ reason, facts: { http_status: String(http), code: word, incident: "01K8KABR6S16YETA2SZPVBS9SP" }, violations: [] });
  }
});

it("keeps the trailer of an error with many violations below 8 KiB", () => {
  const violations = Array.from({ length: 500 }, (_, i) => ({ in: "body" as const, path: ["credentials", `key${i}`], type: "missing", message: "Field required" }));
  const { metadata } = toStatus(fail("INVALID_REQUEST", { violations }));
  const [bytes] = metadata.get("grpc-status-details-bin");
  expect((bytes as Buffer).toString("base64").length).toBeLessThan(8_000);
  expect(detailsOf(metadata).violations.length).toBeGreaterThan(50);
});

const FAULTY: [string, object, [string, string][]][] = [
  ["every missing field", { provider: 0, credentialType: 0 }, [["provider", "missing"], ["credential_type", "missing"], ["credentials", "missing"]]],
  ["enum numbers it does not know", { provider: 99, credentialType: -1, credentials: {} }, [["provider", "enum"], ["credential_type", "enum"]]],
  ["an empty name", { provider: 3, credentialType: 5, credentials: {}, name: "" }, [["name", "string_too_short"]]],
  ["a name of 256 characters", { provider: 3, credentialType: 5, credentials: {}, name: "é".repeat(256) }, [["name", "string_too_long"]]],
  ["a name with NUL", { provider: 3, credentialType: 5, credentials: {}, name: "a\0b" }, [["name", "string_pattern_mismatch"]]],
  ["a number that JSON lacks", { provider: 3, credentialType: 5, credentials: { port: Number.NaN } }, [["credentials", "finite_number"]]],
  ["a key like a member of every object", { provider: 3, credentialType: 5, credentials: { deep: [{ toString: SECRET }] } }, [["credentials", "forbidden_key"]]],
  ["a key constructor", { provider: 3, credentialType: 5, credentials: { constructor: { prototype: 1 } } }, [["credentials", "forbidden_key"]]],
];

test.each(FAULTY)("names the fields at fault for %s", async (_what, request, faults) => {
  await using grpc = await startGrpc();
  const method = RPCS.createCredential as unknown as MethodDefinition<object, object>;
  const answer = await call(grpc.client, method, request, metadataOf("user"));
  expect(answer.violations.map(({ field, reason }) => [field, reason])).toEqual(faults);
  expect(answer.facts).toEqual({ http_status: "422", code: "validation_error" });
  expect(leaks([SECRET], "answer", said(answer))).toEqual([]);
  expect(grpc.vault.rows.size).toBe(0);
});

it("takes names of 255 characters, whatever they are made of", async () => {
  await using grpc = await startGrpc();
  const name = "😀".repeat(255);
  const credentials = { a: null, b: [true, 1.5, "x"] };
  const { response } = await call(grpc.client, RPCS.createCredential, { provider: 3, credentialType: 5, credentials, name }, metadataOf("user"));
  expect(grpc.vault.rows.get(response?.credential?.id ?? "")).toMatchObject({ record: { name }, document: credentials });
});

const field = (number: number, bytes: Buffer) => Buffer.concat([Buffer.from([number * 8 + 2, bytes.length]), bytes]);
/** A Struct in bytes, since the generated code cannot write a key `__proto__`. */
const struct = (key: string | Buffer, value: Buffer) => field(1, Buffer.concat([field(1, Buffer.from(key)), field(2, value)]));
const text = (value: string | Buffer) => field(3, Buffer.from(value));
const create = (credentials: Buffer) => Buffer.concat([Buffer.from([8, 3, 16, 5]), field(3, credentials)]);

test.each([
  ["a key __proto__", create(struct("__proto__", text("x")))],
  ["a key __proto__ inside an object", create(struct("deep", field(5, struct("__proto__", field(5, struct("polluted", text("x"))))))) ],
  ["a key __proto__ inside a list", create(struct("deep", field(6, field(1, field(5, struct("__proto__", text("x")))))))],
])("refuses %s, which a JavaScript object would lose", async (_what, bytes) => {
  await using grpc = await startGrpc();
  const answer = await call(grpc.client, RPCS.createCredential, bytes, metadataOf("user"));
  expect(answer.violations).toMatchObject([{ field: "credentials", reason: "forbidden_key" }]);
  expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
});

it("takes __proto__ as a value", async () => {
  await using grpc = await startGrpc();
  expect((await call(grpc.client, RPCS.createCredential, create(struct("password", text("__proto__"))), metadataOf("user"))).error).toBeUndefined();
  expect([...grpc.vault.rows.values()]).toMatchObject([{ document: { password: "__proto__" } }]);
});

const nested = (depth: number): Record<string, unknown> => (depth === 0 ? {} : { a: nested(depth - 1) });

test.each([
  ["cut short", Buffer.from([0x1a, 0x7f, 0x01])],
  ["with text that is not UTF-8", create(struct("password", text(Buffer.from([0x63, 0xff]))))],
  ["nested deeper than a reader follows", RPCS.createCredential.requestSerialize({ provider: 3, credentialType: 5, credentials: nested(50) })],
])("calls a message %s malformed, and does not say how", async (_what, bytes) => {
  await using grpc = await startGrpc();
  const answer = await call(grpc.client, RPCS.createCredential, bytes, metadataOf("user"));
  expect(answer.violations).toEqual([{ field: "", reason: "message", description: "Request should be a valid protobuf message", localizedMessage: undefined }]);
  expect(grpc.events).toMatchObject([{ reason: "INVALID_REQUEST" }]);
});

it("answers an unknown method and an unknown service with UNIMPLEMENTED", async () => {
  await using grpc = await startGrpc();
  for (const path of ["/flow.credentials.v1.CredentialService/Nothing", "/flow.none.v1.None/Get"]) {
    const { error } = await call(grpc.client, { ...RPCS.getCredential, path } as never as typeof RPCS.getCredential, get, metadataOf("user"));
    expect(error?.code).toBe(status.UNIMPLEMENTED);
  }
});

it("writes one line for each call, with who, what and how it went, and never what was sent or given", async () => {
  await using grpc = await startGrpc();
  const credentials = { host: "h", username: "u", password: SECRET, [SECRET]: SECRET };
  const { response } = await call(grpc.client, RPCS.createCredential, { provider: 3, credentialType: 5, credentials, name: SECRET }, metadataOf("user"));
  const id = response?.credential?.id ?? "";
  const resolved = await call(grpc.client, RPCS.resolveCredential, { credentialId: id.toUpperCase() }, metadataOf("machine"));
  expect(resolved.response?.credentials).toMatchObject({ $case: "sftpPassword", value: { password: SECRET } });
  await call(grpc.client, RPCS.getCredential, { credentialId: SECRET }, metadataOf("user"));
  await call(grpc.client, RPCS.getCredential, get, metadataOf(SECRET));
  expect(leaks([SECRET], "log", Buffer.from(grpc.lines.join("")))).toEqual([]);
  const { id: caller_id } = CALLERS["machine"] ?? {};
  expect(grpc.calls()).toHaveLength(4);
  expect(grpc.calls()[1]).toMatchObject({
    method: RPCS.resolveCredential.path,
    code: "OK",
    credential_id: id,
    caller_kind: "service_account",
    caller_id,
    request_id: resolved.requestId,
    duration_ms: expect.any(Number),
  });
  expect(grpc.calls()[2]).not.toHaveProperty("credential_id");
  expect(grpc.observed).toEqual(grpc.calls().map(({ method, code }) => ({ method, code })));
});
