import { randomUUID } from "node:crypto";
import type { MethodDefinition } from "@grpc/grpc-js";
import { expect, it, test } from "vitest";
import { Provider } from "../../gen/flow/credentials/v1/resources.ts";
import { ACTIONS } from "../../src/domain/access.ts";
import { fail } from "../../src/domain/errors.ts";
import { call, metadataOf, record, RPCS, type RpcName, startGrpc, testAuthenticator } from "../support/grpc.ts";

const CREDENTIALS = { host: "h", username: "u", password: "p" };
const id = randomUUID();
const ACCOUNT = { organizationId: id, serviceAccountId: id, status: 0 };

/** For each RPC a sound request and, where it has such fields, one with a fault in the path and one in the body only. */
const REQUESTS: { [N in Exclude<RpcName, "completeAuthorization" | "watchCredentials">]: { good: object; badPath?: object; pathReason?: string; badBody?: object } } = {
  createCredential: { good: { provider: 3, credentialType: 5, credentials: CREDENTIALS }, badBody: { provider: 0, credentialType: 99 } },
  listCredentials: { good: { provider: 3 }, badPath: { provider: 99 }, pathReason: "INVALID_PROVIDER" },
  getCredential: { good: { credentialId: id }, badPath: { credentialId: "nonsense" }, pathReason: "INVALID_CREDENTIAL_ID" },
  updateCredential: {
    good: { credentialId: id, credentialType: 5, credentials: CREDENTIALS, etag: "" },
    badPath: { credentialId: "nonsense", credentialType: 0, etag: "" },
    pathReason: "INVALID_CREDENTIAL_ID",
    badBody: { credentialId: id, credentialType: 0, etag: "" },
  },
  deleteCredential: {
    good: { credentialId: id, etag: "" },
    badPath: { credentialId: "", etag: "a b" },
    pathReason: "INVALID_CREDENTIAL_ID",
    badBody: { credentialId: id, etag: "a b" },
  },
  resolveCredential: { good: { credentialId: id }, badPath: { credentialId: "nonsense" }, pathReason: "INVALID_CREDENTIAL_ID" },
  reportCredentialUses: { good: { reports: [{ credentialId: id, uses: 1n, flowId: "f", runId: "r" }] }, badBody: { reports: [{ credentialId: "x", uses: 0n, flowId: "\n" }] } },
  listIntegrations: { good: {} },
  testSftpConnection: { good: { host: "h", username: "u", authType: "password", password: "p" }, badBody: { host: "", username: "u", authType: "x" } },
  testPostgresConnection: { good: { connectionString: "postgresql://u:p@h/d" }, badBody: { host: "h" } },
  testPostgresCredential: { good: { credentialId: id }, badPath: { credentialId: "nonsense" }, pathReason: "INVALID_CREDENTIAL_ID" },
  testCredential: { good: { credentialId: id }, badPath: { credentialId: "nonsense" }, pathReason: "INVALID_CREDENTIAL_ID" },
  rollbackCredential: { good: { credentialId: id, etag: "", organizationId: "" }, badPath: { credentialId: "nonsense", etag: "", organizationId: "" }, pathReason: "INVALID_CREDENTIAL_ID", badBody: { credentialId: id, etag: "a b", organizationId: "" } },
  beginAuthorization: {
    good: { provider: 5, redirectTo: "", credentialId: "", scopes: ["a b"] },
    badPath: { provider: 99, redirectTo: "", credentialId: "x", scopes: [] },
    pathReason: "INVALID_PROVIDER",
    badBody: { provider: 5, redirectTo: "", credentialId: "", scopes: ["\0"] },
  },
  createServiceAccount: { good: { organizationId: id, name: "n" }, badBody: { organizationId: "nonsense", name: "" } },
  listServiceAccounts: { good: { organizationId: id, offset: 0, limit: 0 }, badBody: { organizationId: "x", offset: 0, limit: 1_001 } },
  getServiceAccount: { good: ACCOUNT, badPath: { organizationId: "", serviceAccountId: "x" }, pathReason: "INVALID_SERVICE_ACCOUNT_ID" },
  updateServiceAccount: { good: { ...ACCOUNT, name: "n" }, badPath: { organizationId: id, serviceAccountId: "x", status: 0 }, pathReason: "INVALID_SERVICE_ACCOUNT_ID", badBody: { ...ACCOUNT, status: 9 } },
  deleteServiceAccount: { good: ACCOUNT, badPath: { organizationId: id, serviceAccountId: "x" }, pathReason: "INVALID_SERVICE_ACCOUNT_ID" },
  setServiceAccountAccess: {
    good: { ...ACCOUNT, everything: false, providers: [3], credentialIds: [id] },
    badPath: { organizationId: id, serviceAccountId: "x", everything: false, providers: [], credentialIds: [] },
    pathReason: "INVALID_SERVICE_ACCOUNT_ID",
    badBody: { ...ACCOUNT, everything: true, providers: [99], credentialIds: ["x"] },
  },
  createServiceAccountKey: {
    good: ACCOUNT, badPath: { organizationId: id, serviceAccountId: "x" }, pathReason: "INVALID_SERVICE_ACCOUNT_ID", badBody: { ...ACCOUNT, name: "", expiresAt: new Date(0) },
  },
  listServiceAccountKeys: { good: { ...ACCOUNT, offset: 0, limit: 0 }, badPath: { organizationId: id, serviceAccountId: "x", offset: 0, limit: 0 }, pathReason: "INVALID_SERVICE_ACCOUNT_ID", badBody: { ...ACCOUNT, offset: 0, limit: 1_001 } },
  updateServiceAccountKey: { good: { ...ACCOUNT, keyId: id }, badPath: { ...ACCOUNT, keyId: "x" }, pathReason: "INVALID_KEY_ID", badBody: { ...ACCOUNT, keyId: id, name: "" } },
  revokeServiceAccountKey: { good: { ...ACCOUNT, keyId: id }, badPath: { ...ACCOUNT, keyId: "x" }, pathReason: "INVALID_KEY_ID" },
  listAuditEvents: { good: { pageSize: 0, pageToken: "" }, badBody: { organizationId: "x", pageSize: 1_001, pageToken: "?" } },
  listSignedAuditHeads: { good: { afterLink: 0n }, badBody: { organizationId: "x", afterLink: 0n } },
  verifyAudit: { good: { afterLink: 0n }, badBody: { organizationId: "x", afterLink: 1n << 60n } },
  restoreCredential: { good: { organizationId: id, credentialId: id }, badPath: { organizationId: "", credentialId: "x" }, pathReason: "INVALID_CREDENTIAL_ID", badBody: { organizationId: "", credentialId: id } },
  purgeDeleted: { good: {}, badBody: { olderThanDays: 36_501 } },
  setCredentialLimit: { good: { organizationId: id, provider: 3, limit: 60 }, badBody: { organizationId: "x", provider: 99, limit: 0 } },
  listCredentialUses: { good: { organizationId: id, credentialId: id }, badPath: { organizationId: "", credentialId: "x" }, pathReason: "INVALID_CREDENTIAL_ID" },
  getKeyStatus: { good: {} },
  rotateMasterKey: { good: { masterKeyId: "k2" }, badBody: { masterKeyId: "", rowsPerSecond: 0 } },
  rotateOrganizationKey: { good: { organizationId: randomUUID() }, badBody: { organizationId: "x", rowsPerSecond: 0 } },
  verifyKeys: { good: {}, badBody: { organizationId: "x", rowsPerSecond: 0 } },
  getRotation: { good: { rotationId: randomUUID() }, badBody: { rotationId: "" } },
  controlRotation: { good: { rotationId: randomUUID(), paused: true }, badBody: { rotationId: "x" } },
  rollBackRotation: { good: { rotationId: randomUUID() }, badBody: { rotationId: "" } },
  retireRotatedKeys: { good: { rotationId: randomUUID() }, badBody: { rotationId: "" } },
  destroyOrganization: { good: { organizationId: randomUUID() }, badBody: { organizationId: "" } },
  importCredential: {
    good: {
      organizationId: randomUUID(), userId: randomUUID(), provider: 3, credentialType: 5, credentials: CREDENTIALS, source: "1", sealedAt: new Date(),
      keyCheckValues: [Buffer.alloc(32)],
    },
    badBody: { organizationId: "", userId: "x", provider: 99, credentialType: 0, source: "", keyCheckValues: [] },
  },
};

const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`) as keyof typeof ACTIONS;
const TOKENS = { user: "user", service_account: "machine", operator: "operator" } as const;
const MALFORMED = Buffer.from([0x0a, 0xff]);

test("completeAuthorization needs no identity, and looks at none", async () => {
  const authenticator = testAuthenticator();
  await using grpc = await startGrpc({ deps: { authenticator } });
  const request = { provider: Provider.PROVIDER_GOOGLE, state: "s", code: "c", error: "", errorDescription: "", iss: "", browser: undefined };
  for (const token of [null, "stranger", "machine"]) expect((await call(grpc.client, RPCS.completeAuthorization, request, metadataOf(token))).error).toBeUndefined();
  expect((await call(grpc.client, RPCS.completeAuthorization, { ...request, provider: 99 as Provider }, metadataOf(null))).reason).toBe("INVALID_PROVIDER");
  expect((await call(grpc.client, RPCS.completeAuthorization, MALFORMED, metadataOf(null))).reason).toBe("INVALID_REQUEST");
  expect((await call(grpc.client, RPCS.completeAuthorization, request, metadataOf(null, { "x-flow-id": "x".repeat(129) }))).reason).toBe("METADATA_INVALID");
  expect(authenticator.shown).toEqual([]);
});

test.each(Object.keys(REQUESTS) as (keyof typeof REQUESTS)[])("%s refuses in the order 401, 403, 400 of the path, 422 of the body, and then runs", async (name) => {
  await using grpc = await startGrpc();
  grpc.vault.rows.set(id, { record: record({ id }), document: CREDENTIALS });
  const method = RPCS[name] as unknown as MethodDefinition<object, object>;
  const { good, badPath, pathReason, badBody } = REQUESTS[name];
  const kinds: readonly string[] = ACTIONS[snake(name)];
  const allowed = TOKENS[kinds[0] as keyof typeof TOKENS];
  const refused = Object.entries(TOKENS).filter(([kind]) => !kinds.includes(kind));
  const worst = { "x-flow-id": "x".repeat(129) };

  for (const bytes of [MALFORMED, method.requestSerialize(badPath ?? badBody ?? {})]) {
    expect((await call(grpc.client, method, bytes, metadataOf(null, worst))).reason).toBe("UNAUTHENTICATED");
    expect((await call(grpc.client, method, bytes, metadataOf("stranger", worst))).reason).toBe("INVALID_TOKEN");
  }
  expect(grpc.events).toEqual([]);
  expect(refused).toHaveLength(Object.keys(TOKENS).length - kinds.length);
  for (const [, token] of refused) {
    for (const request of [MALFORMED, method.requestSerialize(badPath ?? badBody ?? good)]) {
      const { facts } = await call(grpc.client, method, request, metadataOf(token, worst));
      expect(facts).toMatchObject({ http_status: "403", code: "forbidden" });
    }
  }
  expect((await call(grpc.client, method, good, metadataOf(allowed, worst))).reason).toBe("METADATA_INVALID");
  expect((await call(grpc.client, method, MALFORMED, metadataOf(allowed))).reason).toBe("INVALID_REQUEST");
  if (badPath) expect((await call(grpc.client, method, badPath, metadataOf(allowed))).reason).toBe(pathReason);
  if (badBody) expect((await call(grpc.client, method, badBody, metadataOf(allowed))).facts).toMatchObject({ http_status: "422", code: "validation_error" });
  expect((await call(grpc.client, method, good, metadataOf(allowed))).error).toBeUndefined();

  // Every refusal of a verified caller left one record, and nothing else did.
  const refusals = grpc.calls().filter(({ caller_id, reason }) => caller_id !== undefined && reason !== undefined);
  expect(grpc.events.map(({ reason, requestId }) => [reason, requestId])).toEqual(refusals.map(({ reason, request_id }) => [reason, request_id]));
  expect(new Set(grpc.events.map(({ action, outcome }) => `${action} ${outcome}`))).toEqual(new Set([`${snake(name)} refused`]));
});

test("watchCredentials refuses in the same order, and then tells until its caller has heard enough", async () => {
  await using grpc = await startGrpc();
  const method = RPCS.watchCredentials as unknown as MethodDefinition<object, object>;
  const ask = (request: object | Buffer, caller: string | null, more = {}) => call(grpc.client, method, request as object, metadataOf(caller, more));
  const worst = { "x-flow-id": "x".repeat(129) };
  expect((await ask(MALFORMED, null, worst)).reason).toBe("UNAUTHENTICATED");
  expect((await ask(MALFORMED, "stranger", worst)).reason).toBe("INVALID_TOKEN");
  for (const refused of ["user", "operator"]) expect((await ask(MALFORMED, refused, worst)).reason).toBe("SERVICE_ACCOUNT_REQUIRED");
  expect((await ask({ position: "" }, "machine", worst)).reason).toBe("METADATA_INVALID");
  expect((await ask(MALFORMED, "machine")).reason).toBe("INVALID_REQUEST");
  for (const position of ["x", "1.0", "-1.0000000000000000", "01.0000000000000000", `1.${"0".repeat(16)}\n`, "9".repeat(64)]) expect((await ask({ position }, "machine")).violations).toMatchObject([{ field: "position" }]);
  expect(grpc.events.map(({ action, outcome }) => `${action} ${outcome}`)).toEqual(Array.from({ length: 10 }, () => "watch_credentials refused"));
  const stream = grpc.client.makeServerStreamRequest(method.path, method.requestSerialize, RPCS.watchCredentials.responseDeserialize, { position: "" }, metadataOf("machine"));
  stream.on("error", () => {});
  for await (const message of stream) {
    expect(message).toMatchObject({ message: { $case: "bookmark", value: { revision: 0n } } });
    stream.cancel();
    break;
  }
  await expect.poll(() => grpc.calls().at(-1)).toMatchObject({ method: RPCS.watchCredentials.path, code: "CANCELLED" });
});

test.each([
  ["a comma-joined authorization", { authorization: "Bearer user, Bearer machine" }, "INVALID_TOKEN"],
  ["a token and an API key", { authorization: "Bearer user", "x-api-key": "user" }, "CONFLICTING_IDENTITIES"],
])("hands %s to the authenticator as it came", async (_what, headers, reason) => {
  await using grpc = await startGrpc();
  expect((await call(grpc.client, RPCS.listIntegrations, {}, metadataOf(null, headers))).reason).toBe(reason);
});

it("records a refusal before the answer leaves, once, with the credential the caller named", async () => {
  const order: string[] = [];
  let proceed = () => {};
  const held = new Promise<void>((resolve) => (proceed = resolve));
  const audit = {
    async append() {
      order.push("asked");
      await held;
      order.push("recorded");
    },
  };
  await using grpc = await startGrpc({ deps: { audit } });
  const refused = call(grpc.client, RPCS.resolveCredential, { credentialId: id.toUpperCase() }, metadataOf("user"));
  const answered = refused.then(({ reason }) => order.push(String(reason)));
  await expect.poll(() => order).toEqual(["asked"]);
  expect(grpc.lines).toEqual([]);
  proceed();
  await answered;
  expect(order).toEqual(["asked", "recorded", "SERVICE_ACCOUNT_REQUIRED"]);
  expect(grpc.calls()).toMatchObject([{ credential_id: id, reason: "SERVICE_ACCOUNT_REQUIRED", caller_kind: "user" }]);
});

it("keeps a refusal a refusal while the audit trail is down", async () => {
  const audit = { append: async () => Promise.reject(fail("AUDIT_UNAVAILABLE")) };
  await using grpc = await startGrpc({ deps: { audit } });
  expect((await call(grpc.client, RPCS.resolveCredential, { credentialId: id }, metadataOf("user"))).reason).toBe("SERVICE_ACCOUNT_REQUIRED");
});

it("keeps the flow and the run that a caller names in the record of its refusal", async () => {
  await using grpc = await startGrpc();
  const named = metadataOf("machine", { "x-flow-id": "flow 7", "x-run-id": "run/9", "x-request-id": "01K8KABR6S16YETA2SZPVBS9SP" });
  const { requestId } = await call(grpc.client, RPCS.resolveCredential, { credentialId: id }, named);
  expect(requestId).toBe("01K8KABR6S16YETA2SZPVBS9SP");
  expect(grpc.events).toMatchObject([{ requestId, flowId: "flow 7", runId: "run/9", credentialId: id, reason: "CREDENTIAL_NOT_FOUND", outcome: "refused" }]);
});
