import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { createCredentialClient, type CredentialClient } from "../../src/client/index.ts";
import { block } from "../support/blocker.ts";
import { connectionOf } from "../support/postgres.ts";
import { rest, startFresh, startService, token } from "../support/service.ts";

let service: Awaited<ReturnType<typeof startFresh>>;
let administrator: pg.Client;
let client: CredentialClient;
let user: string;
let machine: string;
const [organization, userId, accountId] = [randomUUID(), randomUUID(), randomUUID()] as const;
const sftp = { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password: "p" } };
const { provider: _, ...change } = sftp;

beforeAll(async () => {
  service = await startFresh();
  administrator = new pg.Client(connectionOf(service.database.superuserUrl));
  await administrator.connect();
  [user, machine] = await Promise.all([token("user", organization, userId), token("service_account", organization, accountId)]);
  client = createCredentialClient({ target: service.grpc, token: machine, tls: "insecure" });
});
afterAll(async () => {
  client.close();
  await administrator.end();
  await service[Symbol.asyncDispose]();
});

/** The trail of one request. */
async function trail(requestId: string | null): Promise<unknown[]> {
  const { rows } = await administrator.query(
    "select organization_id, actor_kind, actor_id, action, outcome, reason, credential_id, flow_id, run_id from audit_event where request_id = $1 order by link, position",
    [requestId],
  );
  return rows;
}

const record = (action: string, credentialId: string | null, extra: Record<string, unknown> = {}) => ({
  organization_id: organization,
  actor_kind: "user",
  actor_id: userId,
  action,
  outcome: "allowed",
  reason: null,
  credential_id: credentialId,
  flow_id: null,
  run_id: null,
  ...extra,
});

const call = async (method: string, path: string, options: Parameters<typeof rest>[3] = {}) => {
  const answer = await rest(service, method, path, { token: user, ...options });
  return { ...answer, requestId: answer.headers.get("x-request-id") };
};

test("every write is recorded with who, what and which, under the request id that the caller saw", async () => {
  const created = await call("POST", "/integrations/credentials", { body: sftp });
  const path = `/integrations/credentials/${created.json.id}`;
  expect(await trail(created.requestId)).toEqual([record("create_credential", created.json.id)]);
  const updated = await call("PATCH", path, { body: change, token: machine });
  expect(await trail(updated.requestId)).toEqual([record("update_credential", created.json.id, { actor_kind: "service_account", actor_id: accountId })]);
  const deleted = await call("DELETE", path);
  expect(await trail(deleted.requestId)).toEqual([record("delete_credential", created.json.id)]);
});

test("every resolve is recorded with the flow and the run that asked", async () => {
  const { json } = await call("POST", "/integrations/credentials", { body: sftp });
  await client.resolveCredential({ credentialId: json.id }, { flowId: "invoices", runId: "run-7" });
  const { rows } = await administrator.query("select flow_id, run_id, outcome from audit_event where credential_id = $1 and action = 'resolve_credential'", [json.id]);
  expect(rows).toEqual([{ flow_id: "invoices", run_id: "run-7", outcome: "allowed" }]);
});

test("every refusal of a verified caller is recorded; a caller who is not verified leaves no record", async () => {
  const { json } = await call("POST", "/integrations/credentials", { body: sftp });
  const forbidden = await call("POST", "/integrations/credentials", { body: sftp, token: machine });
  expect(await trail(forbidden.requestId)).toEqual([
    record("create_credential", null, { actor_kind: "service_account", actor_id: accountId, outcome: "refused", reason: "USER_REQUIRED" }),
  ]);
  const missing = randomUUID();
  const absent = await call("GET", `/integrations/credentials/${missing}`);
  expect(await trail(absent.requestId)).toEqual([record("get_credential", missing, { outcome: "refused", reason: "CREDENTIAL_NOT_FOUND" })]);
  const malformed = await call("PATCH", `/integrations/credentials/${json.id}`, { body: {} });
  expect(await trail(malformed.requestId)).toEqual([record("update_credential", json.id, { outcome: "refused", reason: "INVALID_REQUEST" })]);
  const error = await client.resolveCredential({ credentialId: missing }).catch((reason: unknown) => reason as { requestId: string });
  expect(await trail((error as { requestId: string }).requestId)).toEqual([
    record("resolve_credential", missing, { actor_kind: "service_account", actor_id: accountId, outcome: "refused", reason: "CREDENTIAL_NOT_FOUND" }),
  ]);
  const unknown = await call("GET", "/integrations/credentials", { token: "nonsense" });
  expect(await trail(unknown.requestId)).toEqual([]);
});

test("a secret that was recorded as handed out, and is not because its caller went away, has a second record", async () => {
  const { json } = await call("POST", "/integrations/credentials", { body: sftp });
  // Another process, which has to read the organization's key before it can open the secret.
  const cold = await startService(service.env);
  const impatient = createCredentialClient({ target: cold.grpc, token: machine, tls: "insecure" });
  const outcomes = async () => {
    const { rows } = await administrator.query("select outcome, reason from audit_event where credential_id = $1 and action = 'resolve_credential' order by link, position", [json.id]);
    return rows;
  };
  try {
    await using blocker = await block(service.database.superuserUrl, "lock table organization_key in access exclusive mode");
    const aborter = new AbortController();
    const resolved = impatient.resolveCredential({ credentialId: json.id }, { signal: aborter.signal });
    await blocker.holds(1);
    aborter.abort();
    await expect(resolved).rejects.toThrow(/cancelled/i);
    expect(await outcomes()).toEqual([{ outcome: "allowed", reason: null }]);
    // The call is over for the service as well once it has logged its end.
    await vi.waitFor(() => expect(cold.output()).toContain('"reason":"CANCELLED"'));
    await blocker.release();
    await vi.waitFor(async () => expect(await outcomes()).toEqual([{ outcome: "allowed", reason: null }, { outcome: "cancelled", reason: "CANCELLED" }]), { timeout: 10_000 });
  } finally {
    impatient.close();
    await cold.stop();
  }
});

test("while no record can be written nothing is handed out, stored, changed or deleted, and a refusal stays a refusal", async () => {
  const { json: created } = await call("POST", "/integrations/credentials", { body: sftp });
  const path = `/integrations/credentials/${created.id}`;
  const opened = await sealingOperations();
  await administrator.query("revoke insert on audit_event from credentials_app");
  try {
    await expect(client.resolveCredential({ credentialId: created.id }, { deadlineMs: 3_000 })).rejects.toMatchObject({ reason: "AUDIT_UNAVAILABLE" });
    for (const answer of [await call("POST", "/integrations/credentials", { body: sftp }), await call("PATCH", path, { body: change }), await call("DELETE", path)]) {
      expect(answer.status).toBeGreaterThanOrEqual(500);
    }
    expect((await call("POST", "/integrations/credentials", { body: sftp, token: machine })).status).toBe(403);
    expect((await call("GET", `/integrations/credentials/${randomUUID()}`)).status).toBe(404);
  } finally {
    await administrator.query("grant insert on audit_event to credentials_app");
  }
  expect(await sealingOperations()).toBe(opened);
  expect((await call("GET", path)).json).toMatchObject({ id: created.id, updated_at: created.updated_at });
  expect(await client.resolveCredential({ credentialId: created.id })).toMatchObject({ secretVersion: 1n });
});

/** How many secrets this service has opened so far. A scrape is served again for a second, so this one waits for a new one. */
async function sealingOperations(): Promise<string | undefined> {
  await sleep(1_100);
  const { text } = await rest(service, "GET", "/metrics");
  return /credentials_sealing_total\{operation="opened"\} (\d+)/.exec(text)?.[1];
}
