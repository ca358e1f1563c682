import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { Client, credentials, Metadata } from "@grpc/grpc-js";
import { afterAll, beforeAll, expect, test } from "vitest";
import { canary, leaks } from "../support/canary.ts";
import { startCollector, tree } from "../support/collector.ts";
import { type Fleet, NO_SWEEP, startFleet } from "../support/fleet.ts";
import { scrape } from "../support/metrics.ts";
import { rest, type Service } from "../support/service.ts";
import { startTokenEndpoint, type TokenEndpoint } from "../support/token-endpoint.ts";

const SERVICE = "flow.credentials.v1.CredentialService";
const HEADER_SECRET = canary("collector");

let collector: Awaited<ReturnType<typeof startCollector>>;
let provider: TokenEndpoint;
let fleet: Fleet;
let service: Service;
beforeAll(async () => {
  [collector, provider] = await Promise.all([startCollector(), startTokenEndpoint("strict")]);
  fleet = await startFleet(1, {
    ...NO_SWEEP,
    CREDENTIALS_GOOGLE_ISSUER: provider.issuer,
    CREDENTIALS_REST_RESOLVE: "on",
    CREDENTIALS_OTLP_ENDPOINT: collector.url,
    CREDENTIALS_OTLP_HEADERS: `authorization=Bearer ${HEADER_SECRET}`,
    CREDENTIALS_OTLP_INTERVAL_MS: "50",
  });
  service = fleet.replicas[0] as Service;
});
afterAll(async () => {
  await fleet[Symbol.asyncDispose]();
  await provider[Symbol.asyncDispose]();
  await collector[Symbol.asyncDispose]();
});

function metadataWith(values: Record<string, string>): Metadata {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(values)) metadata.set(name, value);
  return metadata;
}

/** What a caller sends to have its trace continued. */
function caller(flags = "01") {
  const [traceId, spanId] = [randomBytes(16).toString("hex"), randomBytes(8).toString("hex")];
  return { traceId, spanId, headers: { traceparent: `00-${traceId}-${spanId}-${flags}` } };
}
/** The spans of a trace once that many of that name have come. */
async function arrived(traceId: string, name: string) {
  await expect.poll(() => collector.spans.filter((span) => span.traceId === traceId && span.name === name).length, { timeout: 10_000 }).toBeGreaterThan(0);
  return collector.spans.filter((span) => span.traceId === traceId);
}
const grant = () => provider.grant();

test("a creation over REST is one trace: route, method, statements", async () => {
  const { traceId, spanId, headers } = caller();
  const { status, headers: answered } = await rest(service, "POST", "/integrations/credentials", { token: fleet.user, body: { provider: "google", credential_type: "oauth2", credentials: grant() }, headers });
  expect(status).toBe(201);
  const spans = await arrived(traceId, "POST /integrations/credentials");
  const lines = tree(spans, traceId);
  expect(lines.slice(0, 2)).toEqual(["POST /integrations/credentials", `  ${SERVICE}/CreateCredential`]);
  expect(lines.slice(2).every((line) => line.startsWith("    "))).toBe(true);
  expect(lines).toContain("    credential_create");
  const [route] = spans.filter(({ parentSpanId }) => parentSpanId === spanId);
  expect(route).toMatchObject({ kind: 2, failed: false, facts: { "http.route": "/integrations/credentials", "http.response.status_code": 201, "flow.request_id": answered.get("x-request-id") } });
  expect(spans.find(({ name }) => name.endsWith("CreateCredential"))).toMatchObject({ kind: 2, facts: { "rpc.method": "CreateCredential", "rpc.grpc.status_code": 0 } });
  expect(spans.find(({ name }) => name === "credential_create")).toMatchObject({ kind: 3, facts: { "db.system.name": "postgresql" } });
  for (const { startTimeUnixNano, endTimeUnixNano } of spans) expect(BigInt(endTimeUnixNano)).toBeGreaterThanOrEqual(BigInt(startTimeUnixNano));
  const logged = service.output().split("\n").find((line) => line.includes(answered.get("x-request-id") as string));
  expect(JSON.parse(logged as string)).toMatchObject({ trace_id: traceId, method: `/${SERVICE}/CreateCredential` });
});

test("resolving what has to be renewed first is one trace, from the route to the provider", async () => {
  const id = await fleet.post(grant());
  await fleet.expire([id]);
  const { traceId, headers } = caller();
  const { status, json } = await rest(service, "GET", `/integrations/credentials/${id}/credentials`, { token: fleet.machine, headers });
  expect([status, provider.issued.has(json.access_token)]).toEqual([200, true]);
  const spans = await arrived(traceId, "GET /integrations/credentials/{credential_id}/credentials");
  const lines = tree(spans, traceId);
  expect(lines.filter((line) => /^ {0,2}\S/.test(line))).toEqual(["GET /integrations/credentials/{credential_id}/credentials", `  ${SERVICE}/ResolveCredential`]);
  for (const name of ["credential_resolve", "renewal"]) expect(lines).toContain(`    ${name}`);
  expect(lines).toContain("      POST google");
  expect(lines.filter((line) => /^ {6}refresh_/.test(line)).length).toBeGreaterThanOrEqual(2);
  expect(spans.find(({ name }) => name === "POST google")).toMatchObject({ kind: 3, facts: { "http.response.status_code": 200 } });
});

test("a call that is refused says why in a word", async () => {
  const { traceId, headers } = caller();
  const missing = "99999999-9999-4999-8999-999999999999";
  expect((await rest(service, "GET", `/integrations/credentials/${missing}`, { token: fleet.user, headers })).status).toBe(404);
  const spans = await arrived(traceId, "GET /integrations/credentials/{credential_id}");
  expect(spans.find(({ name }) => name === `${SERVICE}/GetCredential`)).toMatchObject({ failed: true, facts: { "error.type": "CREDENTIAL_NOT_FOUND" } });
});

test("a caller who keeps no trace has none kept, and a header that is malformed or doubled begins a new one", async () => {
  const unkept = caller("00");
  await rest(service, "GET", "/integrations/credentials", { token: fleet.user, headers: unkept.headers });
  const odd = caller();
  for (const text of [`01-${odd.traceId}-${odd.spanId}-01`, `00-${"0".repeat(32)}-${odd.spanId}-01`, `00-${odd.traceId}-${odd.spanId}`, `${odd.headers.traceparent}, ${odd.headers.traceparent}`, "canary"]) {
    const before = collector.spans.length;
    await rest(service, "GET", "/integrations/catalog", { token: fleet.user, headers: { traceparent: text } });
    await expect.poll(() => collector.spans.slice(before).some(({ name, parentSpanId }) => name === "GET /integrations/catalog" && parentSpanId === undefined), { timeout: 10_000 }).toBe(true);
  }
  expect(collector.spans.filter(({ traceId }) => traceId === odd.traceId || traceId === unkept.traceId)).toEqual([]);
});

test("a collector that is away costs its spans and nothing else, and is told of once", async () => {
  collector.answer(503);
  for (let n = 0; n < 3; n += 1) {
    expect((await rest(service, "GET", "/integrations/catalog", { token: fleet.user })).status).toBe(200);
    await expect.poll(async () => (await scrape(service)).value("credentials_spans_total", { outcome: "lost" }), { timeout: 10_000 }).toBeGreaterThan(n);
  }
  expect(service.output().match(/the collector of traces does not take them/g)).toHaveLength(1);
  collector.answer(200);
});

test("no span holds a secret, a parameter of a statement, or anything of a tenant", async () => {
  const planted = [canary("password"), canary("name"), canary("host"), canary("flow"), canary("query")] as const;
  const [password, name, host, flow, query] = planted;
  const { traceId, headers } = caller();
  const send = (body: object) => rest(service, "POST", `/integrations/credentials?x=${query}`, { token: fleet.user, body, headers: { ...headers, "x-flow-id": flow } });
  const created = await send({ provider: "sftp", credential_type: "user_password", name, credentials: { host: `${host}.example`, username: "u", password } });
  expect(created.status).toBe(201);
  await send({ provider: password, credential_type: name, credentials: { password } });
  await rest(service, "GET", `/integrations/credentials/${password}`, { token: fleet.user, headers });
  await arrived(traceId, "GET /integrations/credentials/{credential_id}");
  const grants = provider.calls.map(({ refreshToken }) => refreshToken);
  expect(grants.length).toBeGreaterThan(0);
  const secrets = [...planted, HEADER_SECRET, ...grants, ...provider.issued, fleet.organization, created.json.id as string, fleet.user, fleet.machine];
  expect(leaks(secrets, "the traces", Buffer.from(collector.bodies.join("\n")))).toEqual([]);
  for (const { name: span, facts } of collector.spans) expect([span, ...Object.keys(facts)].join(" "), span).toMatch(/^[\w.{}/; ]+$/);
  expect(collector.headers[0]?.["authorization"]).toBe(`Bearer ${HEADER_SECRET}`);
  expect(leaks([HEADER_SECRET], "the log", Buffer.from(service.output()))).toEqual([]);
});

test("a call that is turned away before it is read, and a stream that ends, have their spans", async () => {
  const [refused, watched] = [caller(), caller()];
  const anonymous = new Client(service.grpc, credentials.createInsecure());
  const ask = (path: string) =>
    new Promise((resolve) => anonymous.makeUnaryRequest(path, () => Buffer.alloc(0), (bytes) => bytes, {}, metadataWith({ traceparent: refused.headers.traceparent }), resolve));
  await Promise.all([ask(`/${SERVICE}/GetCredential`), ask(`/${SERVICE}/Canary`)]);
  const stream = anonymous.makeServerStreamRequest(`/${SERVICE}/WatchCredentials`, () => Buffer.alloc(0), (bytes) => bytes, {}, metadataWith({ traceparent: watched.headers.traceparent, authorization: `Bearer ${fleet.machine}` }));
  stream.on("error", () => {});
  await once(stream, "data");
  stream.cancel();
  anonymous.close();
  const [spans, watches] = [await arrived(refused.traceId, `${SERVICE}/GetCredential`), await arrived(watched.traceId, `${SERVICE}/WatchCredentials`)];
  expect(spans.map(({ name, facts }) => [name, facts["error.type"], facts["rpc.grpc.status_code"]]).sort()).toEqual([
    [`${SERVICE}/GetCredential`, "UNAUTHENTICATED", 16],
    ["unknown method", "UNIMPLEMENTED", 12],
  ]);
  expect(watches.find(({ name }) => name.endsWith("WatchCredentials"))).toMatchObject({ kind: 2, parentSpanId: watched.spanId, facts: { "error.type": "CANCELLED" } });
});
