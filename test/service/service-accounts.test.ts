import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createCredentialClient } from "../../src/client/index.ts";
import { administratorToken, operatorToken, rest, type Service, startFresh, startService, token } from "../support/service.ts";

let service: Awaited<ReturnType<typeof startFresh>>;
let other: Service;
let admin: string;
let user: string;
const [organization, adminId] = [randomUUID(), randomUUID()] as const;
const SFTP = { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password: "p" } };
const MAIL = { provider: "aws_ses", credential_type: "api_key", credentials: { access_key_id: "AK", secret_access_key: "s", region: "eu-central-1" } };

beforeAll(async () => {
  service = await startFresh({ CREDENTIALS_API_KEY_CACHE_SECONDS: "60" });
  other = await startService(service.env);
  [admin, user] = await Promise.all([administratorToken(organization, adminId), token("user", organization)]);
});
afterAll(async () => {
  await other.stop();
  await service[Symbol.asyncDispose]();
});

const call = (method: string, path: string, body?: unknown, as = admin, on: Pick<Service, "rest"> = service, headers = {}) =>
  rest(on, method, path, { token: as, headers, ...(body === undefined ? {} : { body }) });

const account = async (name = "executor") => (await call("POST", "/api/service-accounts", { name })).json as { id: string };
const key = async (id: string, body: object = {}) => (await call("POST", `/api/service-accounts/${id}/api-keys`, body)).json as { id: string; token: string; token_prefix: string };
const credential = async (body: object = SFTP) => (await call("POST", "/integrations/credentials", body, user)).json as { id: string };

/** What a key gets when it resolves a credential on one of the replicas: the reason of the refusal, or "OK". */
async function resolved(apiKey: string, credentialId: string, on: Pick<Service, "grpc"> = service): Promise<string> {
  const client = createCredentialClient({ target: on.grpc, token: apiKey, tls: "insecure" });
  try {
    await client.resolveCredential({ credentialId });
    return "OK";
  } catch (error) {
    return String((error as { reason?: unknown }).reason);
  } finally {
    client.close();
  }
}

describe("an organization's administrator over REST", () => {
  test("creates, describes, lists, changes and deletes a service account as documented", async () => {
    const created = await call("POST", "/api/service-accounts", { name: "nightly", description: "runs at night" });
    expect(created.status).toBe(201);
    const { id } = created.json;
    expect(created.headers.get("location")).toBe(`/api/service-accounts/${id}`);
    const shown = {
      id, name: "nightly", description: "runs at night", organization_id: organization, modified_by: adminId, status: "active", last_used_at: null,
      access: { everything: true, providers: [], credential_ids: [] }, created_at: expect.any(String), updated_at: expect.any(String),
    };
    expect(created.json).toEqual(shown);
    expect((await call("GET", `/service-accounts/${id}`)).json).toEqual(shown);
    const second = await account("second");
    expect((await call("GET", "/api/service-accounts?limit=1")).json.map((row: { id: string }) => row.id)).toEqual([second.id]);
    expect((await call("GET", "/api/service-accounts?limit=1&offset=1")).json).toEqual([shown]);
    const changed = await call("PATCH", `/api/service-accounts/${id}`, { name: "daily", description: "", status: "inactive" });
    expect(changed.json).toEqual({ ...shown, name: "daily", description: null, status: "inactive" });
    expect((await call("DELETE", `/api/service-accounts/${id}`)).status).toBe(204);
    for (const path of [`/service-accounts/${id}`, `/service-accounts/${id}/api-keys`]) expect((await call("GET", path)).status).toBe(404);
    expect((await call("DELETE", `/api/service-accounts/${id}`)).status).toBe(404);
  });

  test("creates, lists, changes and revokes a key, which is shown once", async () => {
    const { id } = await account();
    const created = await call("POST", `/api/service-accounts/${id}/api-keys`, { name: "blue", expires_at: "2099-01-01T00:00:00+01:00" });
    expect(created.status).toBe(201);
    const { token: whole, ...shown } = created.json;
    expect(whole).toMatch(new RegExp(`^saf_org_${organization.slice(0, 8)}_${id.slice(0, 8)}_`));
    expect(shown).toEqual({
      id: expect.any(String), name: "blue", description: null, service_account_id: id, organization_id: organization, user_id: null, token_prefix: whole.slice(0, 34),
      created_at: expect.any(String), updated_at: expect.any(String), modified_by: adminId, expires_at: "2098-12-31T23:00:00.000Z", last_used_at: null,
    });
    const listed = await call("GET", `/api/service-accounts/${id}/api-keys`);
    expect(listed.json).toEqual([shown]);
    expect(listed.text).not.toContain(whole.slice(34));
    expect((await call("PATCH", `/api/service-accounts/${id}/api-keys/${shown.id}`, { description: "of the blue cluster" })).json).toMatchObject({ name: "blue", description: "of the blue cluster" });
    expect((await call("DELETE", `/api/service-accounts/${id}/api-keys/${shown.id}`)).status).toBe(204);
    expect((await call("DELETE", `/api/service-accounts/${id}/api-keys/${shown.id}`)).status).toBe(404);
    expect((await call("GET", `/api/service-accounts/${id}/api-keys`)).json).toEqual([]);
  });

  test("is told what is wrong, by field and without the value", async () => {
    const { id } = await account();
    expect(await call("GET", "/service-accounts/nonsense")).toMatchObject({ status: 400, json: { error: { message: "Invalid service account ID" } } });
    expect(await call("DELETE", `/service-accounts/${id}/api-keys/nonsense`)).toMatchObject({ status: 400, json: { error: { message: "Invalid API key ID" } } });
    for (const [body, field] of [[{}, "name"], [{ name: "x".repeat(256) }, "name"], [{ name: "n", description: "d".repeat(1_025) }, "description"]] as const) {
      expect((await call("POST", "/service-accounts", body)).json.detail).toEqual([expect.objectContaining({ loc: ["body", field] })]);
    }
    expect((await call("GET", "/service-accounts?limit=1001")).json.detail).toEqual([expect.objectContaining({ loc: ["body", "limit"] })]);
    expect((await call("POST", `/service-accounts/${id}/api-keys`, { expires_at: "tomorrow" })).json.detail).toEqual([expect.objectContaining({ loc: ["body", "expires_at"], type: "datetime_parsing" })]);
    expect((await call("PUT", `/service-accounts/${id}/access`, { providers: ["sftp", "nowhere"], credential_ids: [1] })).json.detail.map((fault: { loc: unknown }) => fault.loc)).toEqual([["body", "providers"], ["body", "credential_ids"]]);
  });
});

describe("who may manage service accounts", () => {
  test("administrators of the organization and operators, nobody else", async () => {
    const { id } = await account();
    const { token: machine } = await key(id);
    for (const as of [user, machine]) {
      for (const [method, path, body] of [["POST", "/service-accounts", { name: "n" }], ["GET", "/service-accounts", undefined], ["DELETE", `/service-accounts/${id}`, undefined], ["POST", `/service-accounts/${id}/api-keys`, {}]] as const) {
        expect((await call(method, path, body, as)).status, `${method} ${path}`).toBe(403);
      }
    }
    const operator = await operatorToken();
    expect((await call("POST", "/service-accounts", { name: "n" }, operator)).json.detail).toEqual([expect.objectContaining({ loc: ["body", "organization_id"], type: "missing" })]);
    expect(await call("POST", "/service-accounts", { name: "n", organization_id: organization }, operator)).toMatchObject({ status: 201, json: { modified_by: "operator" } });
  });

  test("in their own organization alone: another one's ids are as good as missing", async () => {
    const { id } = await account();
    const { id: keyId } = await key(id);
    const stranger = await administratorToken(randomUUID());
    const requests = [
      ["GET", `/service-accounts/${id}`, undefined], ["PATCH", `/service-accounts/${id}`, { name: "mine" }], ["DELETE", `/service-accounts/${id}`, undefined],
      ["PUT", `/service-accounts/${id}/access`, { everything: true }], ["GET", `/service-accounts/${id}/api-keys`, undefined], ["POST", `/service-accounts/${id}/api-keys`, {}],
      ["PATCH", `/service-accounts/${id}/api-keys/${keyId}`, { name: "mine" }], ["DELETE", `/service-accounts/${id}/api-keys/${keyId}`, undefined],
    ] as const;
    for (const [method, path, body] of requests) expect((await call(method, path, body, stranger)).status, `${method} ${path}`).toBe(404);
    expect((await call("POST", "/service-accounts", { name: "n", organization_id: organization }, stranger)).status).toBe(403);
    expect((await call("GET", "/service-accounts", undefined, stranger)).json).toEqual([]);
    expect((await call("GET", `/service-accounts/${id}/api-keys`)).json).toEqual([expect.objectContaining({ id: keyId, name: "key" })]);
  });
});

describe("on every replica, with the next call", () => {
  const replicas = () => [service, other];

  test("a revoked key is refused, although its proof is remembered", async () => {
    const [{ id }, { id: credentialId }] = await Promise.all([account(), credential()]);
    const { id: keyId, token: apiKey } = await key(id);
    for (const replica of replicas()) expect(await resolved(apiKey, credentialId, replica)).toBe("OK");
    await call("DELETE", `/service-accounts/${id}/api-keys/${keyId}`);
    for (const replica of replicas()) {
      expect(await resolved(apiKey, credentialId, replica)).toBe("INVALID_TOKEN");
      expect((await call("GET", "/integrations/credentials", undefined, apiKey, replica)).status).toBe(401);
    }
  });

  test("a disabled account is refused with its keys and with its issuer's tokens, and let in again once it is active", async () => {
    const [{ id }, { id: credentialId }] = await Promise.all([account(), credential()]);
    const { token: apiKey } = await key(id);
    const issued = await token("service_account", organization, id);
    for (const status of ["active", "inactive", "active"]) {
      await call("PATCH", `/service-accounts/${id}`, { status });
      for (const replica of replicas()) {
        for (const proof of [apiKey, issued]) {
          expect(await resolved(proof, credentialId, replica)).toBe(status === "active" ? "OK" : "INVALID_TOKEN");
          expect((await call("GET", "/integrations/catalog", undefined, proof, replica)).status).toBe(status === "active" ? 200 : 401);
        }
      }
    }
    await call("DELETE", `/service-accounts/${id}`);
    for (const proof of [apiKey, issued]) expect(await resolved(proof, credentialId, other)).toBe("INVALID_TOKEN");
  });

  test("a narrowed account touches what it was granted and nothing else", async () => {
    const [{ id }, sftp, mail, odd] = await Promise.all([account(), credential(), credential(MAIL), credential(MAIL)]);
    const { token: apiKey } = await key(id);
    const set = (access: object) => call("PUT", `/service-accounts/${id}/access`, access);
    const touched = () => Promise.all([sftp, mail, odd].map(async (one) => (await resolved(apiKey, one.id, other)) === "OK"));
    const listed = async () => new Set((await call("GET", "/integrations/credentials", undefined, apiKey)).json.map((row: { id: string }) => row.id));
    expect((await set({ providers: ["sftp"], credential_ids: [odd.id] })).json.access).toEqual({ everything: false, providers: ["sftp"], credential_ids: [odd.id] });
    expect(await touched()).toEqual([true, false, true]);
    expect([sftp, mail, odd].map((one) => one.id).filter((one) => one === mail.id)).toHaveLength(1);
    expect([(await listed()).has(sftp.id), (await listed()).has(mail.id), (await listed()).has(odd.id)]).toEqual([true, false, true]);
    expect(await resolved(apiKey, mail.id)).toBe("NOT_GRANTED");
    expect(await resolved(apiKey, randomUUID())).toBe("CREDENTIAL_NOT_FOUND");
    const { provider: _, ...change } = MAIL;
    for (const [method, path, body] of [["GET", "", undefined], ["PATCH", "", change], ["DELETE", "", undefined], ["POST", "/test", undefined], ["POST", "/rollback", undefined]] as const) {
      expect((await call(method, `/integrations/credentials/${mail.id}${path}`, body, apiKey)).status, `${method} ${path}`).toBe(403);
    }
    await set({ providers: [], credential_ids: [] });
    expect(await touched()).toEqual([false, false, false]);
    await set({ everything: true });
    expect(await touched()).toEqual([true, true, true]);
  });
});

test("uses are told by the account, its key and the credential", async () => {
  const [{ id }, { id: credentialId }] = await Promise.all([account(), credential()]);
  const { token: apiKey } = await key(id);
  const client = createCredentialClient({ target: service.grpc, token: apiKey, tls: "insecure" });
  for (const [flowId, runId] of [["invoices", "run-1"], ["invoices", "run-2"], ["reports", "run-3"]] as const) await client.resolveCredential({ credentialId }, { flowId, runId });
  client.close();
  const detail = (await call("GET", `/integrations/credentials/${credentialId}`, undefined, user)).json;
  const use = (flow_id: string, last_run_id: string, uses: string) => ({ service_account_id: id, flow_id, last_run_id, uses, last_used_at: expect.any(String) });
  expect(detail.used_by).toEqual(expect.arrayContaining([use("invoices", "run-2", "2"), use("reports", "run-3", "1")]));
  expect(detail.used_by).toHaveLength(2);
  expect(detail.last_used_at).toBe(detail.used_by[0].last_used_at);
  expect((await call("GET", `/service-accounts/${id}/api-keys`)).json[0].last_used_at).toEqual(expect.any(String));
  expect((await call("GET", `/service-accounts/${id}`)).json.last_used_at).toEqual(expect.any(String));
});

test("a credential that was used lately is not deleted where that is asked for, and its users are named", async () => {
  const [{ id }, { id: credentialId }, unused] = await Promise.all([account(), credential(), credential()]);
  const { token: apiKey } = await key(id);
  await resolved(apiKey, credentialId);
  const path = (one: string) => `/integrations/credentials/${one}?refuse_if_used_within_seconds=3600`;
  expect((await call("DELETE", path(unused.id), undefined, user)).status).toBe(204);
  const refused = await call("DELETE", path(credentialId), undefined, user);
  expect(refused).toMatchObject({ status: 409, json: { error: { code: "conflict", details: [{ field: "used_by", message: expect.stringContaining(id) }] } } });
  expect((await call("DELETE", `/integrations/credentials/${credentialId}`, undefined, user)).status).toBe(204);
});
