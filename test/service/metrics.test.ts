import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { createCredentialClient } from "../../src/client/index.ts";
import { canary, leaks } from "../support/canary.ts";
import { type Scrape, scrape } from "../support/metrics.ts";
import { operatorToken, rest, type Service, startFresh, token } from "../support/service.ts";

const SETTINGS = {
  CREDENTIALS_TALLY_INTERVAL_MS: "150",
  CREDENTIALS_REFRESH_SWEEP_MS: "50",
  CREDENTIALS_AUDIT_SIGN_INTERVAL_MS: "150",
  CREDENTIALS_LIMIT_PER_PROVIDER: "5",
  CREDENTIALS_LIMIT_PER_USER: "6",
};
const METHOD = "/flow.credentials.v1.CredentialService/";

let service: Service;
let metrics: Scrape;
const planted = [canary("password"), canary("token"), canary("name"), canary("host"), canary("flow"), canary("path")];
const [password, accessToken, name, host, flow, path] = planted as [string, string, string, string, string, string];
const organization = randomUUID();
const user = randomUUID();
const ids: string[] = [];
let startedAt: number;

beforeAll(async () => {
  startedAt = Date.now() / 1000;
  service = await startFresh(SETTINGS);
  const [userToken, machineToken] = await Promise.all([token("user", organization, user), token("service_account", organization)]);
  const create = async (body: object) => {
    const { status, json } = await rest(service, "POST", "/integrations/credentials", { token: userToken, body, headers: { "x-flow-id": flow } });
    if (status === 201) ids.push(json.id);
    return status;
  };
  const sftp = { provider: "sftp", credential_type: "user_password", name, credentials: { host: `${host}.example`, username: "u", password } };
  for (let n = 0; n < 5; n += 1) expect(await create(sftp)).toBe(201);
  expect(await create(sftp)).toBe(400);
  expect(await create({ provider: "google", credential_type: "google_oauth", credentials: { access_token: accessToken, expires_in: 1 } })).toBe(201);
  expect((await rest(service, "GET", `/integrations/credentials/${randomUUID()}`, { token: userToken })).status).toBe(404);
  expect((await rest(service, "GET", `/integrations/credentials/${path}`, { token: userToken })).status).toBe(400);
  expect((await rest(service, "GET", `/${path}`)).status).toBe(404);
  expect((await rest(service, "GET", "/integrations/credentials", { token: password })).status).toBe(401);
  const tested = await rest(service, "POST", "/integrations/sftp/test-connection", { token: userToken, body: { host: "10.0.0.5", username: "u", auth_type: "password", password } });
  expect(tested.json).toMatchObject({ success: false, layer: "address" });
  await using client = createCredentialClient({ target: service.grpc, token: machineToken, tls: "insecure" });
  await client.resolveCredential({ credentialId: ids[0] as string }, { flowId: flow });
  await client.resolveCredential({ credentialId: ids[1] as string }, { flowId: flow });
  await expect(rest(service, "GET", "/integrations/credentials", { token: await operatorToken() }).then(({ status }) => status)).resolves.toBe(403);
  // What is counted now and then has to have been counted after all this.
  await vi.waitFor(async () => {
    metrics = await scrape(service);
    expect(metrics.value("credentials_stored", { provider: "google", status: "reauth_required" })).toBe(1);
    expect(metrics.value("credentials_webhook_backlog")).toBe(1);
  }, { timeout: 20_000, interval: 100 });
}, 60_000);
afterAll(() => service[Symbol.asyncDispose]());

test("calls are counted and timed by method and code, and refusals by their word", () => {
  expect(metrics.value("credentials_call_seconds_count", { method: `${METHOD}CreateCredential`, code: "OK" })).toBe(6);
  expect(metrics.value("credentials_call_seconds_count", { method: `${METHOD}ResolveCredential`, code: "OK" })).toBe(2);
  expect(metrics.value("credentials_call_seconds_bucket", { method: `${METHOD}ResolveCredential`, code: "OK", le: "+Inf" })).toBe(2);
  expect(metrics.value("credentials_call_seconds_sum", { method: `${METHOD}ResolveCredential` })).toBeGreaterThan(0);
  expect(metrics.value("credentials_call_seconds_count", { code: "UNAUTHENTICATED" })).toBe(1);
  for (const reason of ["LIMIT_PER_PROVIDER_REACHED", "CREDENTIAL_NOT_FOUND", "INVALID_TOKEN"]) expect(metrics.value("credentials_refusals_total", { reason }), reason).toBe(1);
  expect(metrics.value("credentials_refusals_total", { reason: "AUDIT_UNAVAILABLE" })).toBe(0);
});

test("credentials are counted by state, limits that are near without a name, renewals by how they ended and why", () => {
  expect(metrics.value("credentials_stored", { provider: "sftp", status: "active" })).toBe(5);
  expect([metrics.value("credentials_limits_near", { limit: "provider" }), metrics.value("credentials_limits_near", { limit: "user" })]).toEqual([1, 1]);
  expect(metrics.value("credentials_refresh_total", { provider: "google", outcome: "ended" })).toBeGreaterThan(0);
  expect(metrics.samples.find(({ name: it }) => it === "credentials_refresh_total")?.labels["cause"]).toBe("none");
  expect(metrics.value("credentials_refresh_overdue")).toBe(0);
  expect(metrics.value("credentials_webhook_backlog")).toBe(1);
});

test("pools, queues and connections are told with their limits, the audit with its lag", () => {
  const labels = (metric: string, label: string) => metrics.samples.filter((sample) => sample.name === metric).map((sample) => sample.labels[label]).sort();
  expect(labels("credentials_pool_connections", "pool")).toEqual(["api_keys", "authorizations", "background", "calls", "rotations", "watches"]);
  expect(metrics.value("credentials_pool_connections", { pool: "calls" })).toBeGreaterThan(0);
  expect([metrics.value("credentials_pool_limit", { pool: "calls" }), metrics.value("credentials_pool_waiting", { pool: "calls" })]).toEqual([10, 0]);
  for (const lane of ["audit", "resolve"]) {
    expect([metrics.value("credentials_queue_waiting", { lane }), metrics.value("credentials_queue_limit", { lane }), metrics.value("credentials_audit_lag_seconds", { lane }), metrics.value("credentials_lane_up", { lane })]).toEqual([0, 4096, 0, 1]);
    expect(metrics.value("credentials_audit_commit_seconds_count", { lane }), lane).toBeGreaterThan(0);
  }
  expect(metrics.value("credentials_connections", { listener: "rest" })).toBeGreaterThan(0);
  expect(metrics.value("credentials_connections_limit", { listener: "rest" })).toBe(2_048);
  expect(metrics.value("credentials_audit_signed_timestamp_seconds")).toBeGreaterThanOrEqual(Math.floor(startedAt));
});

test("connection tests are counted by the layer where they ended", () => {
  expect(metrics.value("credentials_connection_test_total", { provider: "sftp", layer: "address" })).toBe(1);
  expect([metrics.value("credentials_connection_tests_running"), metrics.value("credentials_connection_tests_limit")]).toEqual([0, 16]);
});

test("no label has anything of a tenant, whatever was sent, and none has many values", () => {
  expect(leaks([...planted, organization, user, ...ids], "the metrics", Buffer.from(metrics.text))).toEqual([]);
  const values = new Map<string, Set<string>>();
  for (const { name: metric, labels } of metrics.samples.filter((sample) => sample.name.startsWith("credentials_"))) {
    for (const [label, value] of Object.entries(labels)) {
      const key = label === "reason" || label === "le" ? label : `${metric.replace(/_(bucket|sum|count)$/, "")}.${label}`;
      values.set(key, (values.get(key) ?? new Set()).add(value));
    }
  }
  expect([...values].filter(([key, set]) => key !== "reason" && set.size > 16)).toEqual([]);
  for (const [, set] of values) for (const value of set) expect(value).toMatch(/^(?:[a-z][a-z0-9_]*|[A-Z][A-Z_]*|\/flow\.credentials\.v1\.[A-Za-z]+\/[A-Za-z]+|[0-9.]+|\+Inf)$/);
});
