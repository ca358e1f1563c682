import { type ServiceError, status } from "@grpc/grpc-js";
import { fromBinary } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import {
  CreateCredentialResponse,
  DeleteCredentialResponse,
  GetCredentialResponse,
  ListCredentialsResponse,
  ListIntegrationsResponse,
  ResolveCredentialResponse,
} from "../../gen/flow/credentials/v1/credential_service.ts";
import { CredentialStatus, CredentialType, Provider } from "../../gen/flow/credentials/v1/resources.ts";
import { fail, type Reason, REASONS } from "../../src/domain/errors.ts";
import { toStatus } from "../../src/grpc/status.ts";
import { loadDescriptors } from "../../src/rest/descriptors.ts";
import { presentError } from "../../src/rest/envelope.ts";
import { presentResponse } from "../../src/rest/present.ts";
import { compileRoutes, findRoute } from "../../src/rest/routes.ts";

const routes = compileRoutes(loadDescriptors(), []);
const COLLECTION = "/integrations/credentials";
const ONE = `${COLLECTION}/0190a3f2-0000-7000-8000-000000000001`;

function present<T>(verb: string, path: string, codec: { encode(message: T): { finish(): Uint8Array } }, message: T) {
  const found = findRoute(routes, verb, path);
  if (found.kind !== "route") throw new Error(found.kind);
  const { status: code, headers, body } = presentResponse(found.route, fromBinary(found.route.method.output, codec.encode(message).finish()), path);
  return { status: code, headers, body: body === undefined ? undefined : JSON.parse(body) };
}

const credential = {
  id: "0190a3f2-0000-7000-8000-000000000001",
  createdAt: new Date("2025-01-23T15:30:00.123Z"),
  updatedAt: new Date("2025-01-23T15:30:00Z"),
  modifiedBy: "system",
  provider: Provider.PROVIDER_AWS_SES,
  userId: undefined,
  googleEmail: undefined,
};
const shown = {
  id: credential.id,
  created_at: "2025-01-23T15:30:00.123Z",
  updated_at: "2025-01-23T15:30:00.000Z",
  modified_by: "system",
  provider: "aws_ses",
  user_id: null,
  google_email: null,
};

describe("a response", () => {
  it("to a create is 201 with the documented keys, nulls among them, and a Location below the path that was asked for", () => {
    for (const path of [COLLECTION, `/api${COLLECTION}`]) {
      const { status: code, headers, body } = present("POST", path, CreateCredentialResponse, CreateCredentialResponse.create({ credential, etag: "e" }));
      expect([code, headers["location"], body]).toEqual([201, `${path}/${credential.id}`, shown]);
    }
  });

  it("to a list is a bare array", () => {
    expect(present("GET", COLLECTION, ListCredentialsResponse, { credentials: [credential, credential] })).toMatchObject({ status: 200, body: [shown, shown] });
    expect(present("GET", COLLECTION, ListCredentialsResponse, { credentials: [] }).body).toEqual([]);
  });

  it("to a get adds what only that shows", () => {
    const [credentialType, status] = [CredentialType.CREDENTIAL_TYPE_OAUTH2, CredentialStatus.CREDENTIAL_STATUS_REAUTH_REQUIRED];
    const detail = { ...credential, userId: "u", credentialType, status, etag: "7", tokenExpiresAt: new Date(0), statusSince: new Date(1) };
    const times = { token_expires_at: "1970-01-01T00:00:00.000Z", status_since: "1970-01-01T00:00:00.001Z" };
    const extra = { user_id: "u", credential_type: "oauth2", status: "reauth_required", status_reason: null, name: null, etag: "7", last_used_at: null, used_by: [], previous_kept_until: null, ...times };
    expect(present("GET", ONE, GetCredentialResponse, GetCredentialResponse.create({ credential: detail })).body).toEqual({ ...shown, ...extra });
  });

  it("without fields is 204 without a body", () => {
    expect(present("DELETE", ONE, DeleteCredentialResponse, {})).toEqual({ status: 204, headers: {}, body: undefined });
  });

  it("of the catalog spells types in lists and keeps schemas as they are", () => {
    const schema = { type: "object", $defs: { "a-b": [1, { x: null }] } };
    const integration = {
      id: "i", category: "storage", provider: Provider.PROVIDER_SFTP, name: "sftp", displayName: undefined, description: "d", isPlugin: false,
      credentialTypes: [CredentialType.CREDENTIAL_TYPE_USER_PASSWORD, CredentialType.CREDENTIAL_TYPE_KEY_FILE],
      credentialProviders: [{ isOauth: false, name: "user_password", credentialSchema: schema }],
    };
    expect(present("GET", "/integrations/catalog", ListIntegrationsResponse, { integrations: [integration] }).body).toEqual([
      {
        id: "i", category: "storage", provider: "sftp", name: "sftp", display_name: null, description: "d", credential_types: ["user_password", "key_file"], is_plugin: false,
        credential_providers: [{ is_oauth: false, name: "user_password", credential_schema: schema }],
      },
    ]);
  });

  it("with a secret is the flat shape, empty fields left out, beside the extra keys, which never replace a field", () => {
    const value = { host: "h", port: 22, username: "u", password: "p", hostKeyFingerprint: "" };
    const extra = { note: { a: [1] }, password: "other" };
    const facts = { credentialId: "c", provider: Provider.PROVIDER_SFTP, secretVersion: 3n };
    const message = ResolveCredentialResponse.create({ ...facts, credentials: { $case: "sftpPassword", value }, extra });
    const flat = { host: "h", port: 22, username: "u", password: "p", note: { a: [1] } };
    expect(present("GET", `${ONE}/credentials`, ResolveCredentialResponse, message).body).toEqual(flat);
    const token = { accessToken: "t", tokenType: "Bearer", expiresAt: new Date(1), scopes: ["a", "b"], tenantId: "", siteUrl: "" };
    const oauth = ResolveCredentialResponse.create({ credentials: { $case: "oauthToken", value: token } });
    const shape = { access_token: "t", token_type: "Bearer", expires_at: "1970-01-01T00:00:00.001Z", scopes: ["a", "b"] };
    expect(present("GET", `${ONE}/credentials`, ResolveCredentialResponse, oauth).body).toEqual(shape);
  });
});

const ID = "01K8KABR6S16YETA2SZPVBS9SP";
const bare = (code: status, details: string): ServiceError => Object.assign(new Error(details), { code, details, metadata: toStatus(fail("INTERNAL")).metadata });
const error = (reason: Reason, facts = {}): ServiceError => Object.assign(new Error(), toStatus(fail(reason, facts)));
const rendered = (failure: ServiceError) => {
  const answer = presentError(failure, ID);
  return { ...answer, body: JSON.parse(answer.body ?? "") };
};

describe("an error", () => {
  it.each((Object.keys(REASONS) as Reason[]).filter((reason) => REASONS[reason].http !== 422))("of the service is the documented envelope: %s", (reason) => {
    const { status: code, headers, body } = rendered(error(reason));
    expect(code).toBe(REASONS[reason].http);
    expect(body).toEqual({ error: { message: REASONS[reason].message, code: REASONS[reason].code, details: null }, request_id: ID });
    expect("www-authenticate" in headers).toBe(code === 401);
    expect("retry-after" in headers).toBe(code === 429 || code === 503);
  });

  it("of body fields is a list of faults and nothing else", () => {
    const violations = [
      { in: "body", path: ["credentials", "ports", 0], type: "dict_type", message: "m1" },
      { in: "body", path: [], type: "json_invalid", message: "m2" },
    ];
    expect(rendered(error("INVALID_REQUEST", { violations })).body).toEqual({
      detail: [
        { loc: ["body", "credentials", "ports", 0], msg: "m1", type: "dict_type" },
        { loc: ["body"], msg: "m2", type: "json_invalid" },
      ],
    });
    expect(rendered(error("INVALID_REQUEST")).body).toEqual({ detail: [{ loc: ["body"], msg: "Request validation failed", type: "value_error" }] });
  });

  it("of credential keys names them in details", () => {
    const violations = [{ in: "body", path: ["credentials", "host"], type: "missing", message: "Field required" }];
    expect(rendered(error("INVALID_CREDENTIALS", { violations })).body.error.details).toEqual([{ field: "credentials.host", message: "Field required" }]);
  });

  it("with an incident names it", () => {
    expect(rendered(error("SECRET_UNREADABLE", { incident: "01K8KABR6S16YETA2SZPVBS9SQ" })).body.error.details).toEqual({ incident: "01K8KABR6S16YETA2SZPVBS9SQ" });
  });

  it("names a token that is not good, and only that, as invalid (RFC 6750)", () => {
    expect(rendered(error("INVALID_TOKEN")).headers["www-authenticate"]).toBe('Bearer realm="flow-credentials", error="invalid_token"');
    expect(rendered(error("UNAUTHENTICATED")).headers["www-authenticate"]).toBe('Bearer realm="flow-credentials"');
  });

  it.each([
    [status.UNAVAILABLE, 503], [status.DEADLINE_EXCEEDED, 504], [status.RESOURCE_EXHAUSTED, 429], [status.CANCELLED, 499], [status.UNAUTHENTICATED, 401],
    [status.PERMISSION_DENIED, 403], [status.UNKNOWN, 500], [status.UNIMPLEMENTED, 500], [status.INTERNAL, 500], [status.INVALID_ARGUMENT, 500],
  ])("of the transport keeps its words to itself: status %d is %d", (code, http) => {
    const failure = bare(code, "canary: connect ENOENT /run/secret.sock");
    failure.metadata.remove("grpc-status-details-bin");
    const answer = presentError(failure, ID);
    expect([answer.status, answer.body?.includes("canary")]).toEqual([http, false]);
  });
});
