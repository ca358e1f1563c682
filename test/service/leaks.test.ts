import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import pg from "pg";
import { expect, test } from "vitest";
import { createCredentialClient } from "../../src/client/index.ts";
import { canary, encodings, leaks, leaksBelow } from "../support/canary.ts";
import { startCollector } from "../support/collector.ts";
import { connectionOf } from "../support/postgres.ts";
import { rest, startFresh, startService, temporaryFolder, token } from "../support/service.ts";
import { startWebhookEndpoint, webhookSecret } from "../support/webhook-endpoint.ts";

/** Every provider and type, with a planted value in each secret field, in an unknown key, and nested. */
function planted(): { values: string[]; bodies: Record<string, unknown>[] } {
  const values: string[] = [];
  const plant = (name: string): string => {
    values.push(canary(name));
    return values.at(-1) as string;
  };
  const oauth = () => ({ access_token: plant("access"), refresh_token: plant("refresh"), id_token: plant("id"), client_id: "c", client_secret: plant("client"), expires_in: 3600 });
  const bodies = [
    { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password: plant("password"), note: plant("unknown"), deep: { inner: [plant("nested")] } } },
    { provider: "postgresql", credential_type: "user_password", credentials: { host: "db.example.com", username: "u", password: plant("pg"), database: "d" } },
    { provider: "internal_postgresql", credential_type: "user_password", credentials: { connection_string: `postgresql://u:${plant("uri")}@db.example.com/d` } },
    { provider: "aws_ses", credential_type: "api_key", credentials: { access_key_id: "AKIAEXAMPLE", secret_access_key: plant("aws"), region: "eu-central-1", session_token: plant("session") } },
    { provider: "aws_ses", credential_type: "user_password", credentials: { username: "u", password: plant("smtp"), region: "eu-central-1" } },
    { provider: "google", credential_type: "google_oauth", credentials: oauth() },
    { provider: "google", credential_type: "api_key", credentials: { api_key: plant("key") } },
    { provider: "sharepoint", credential_type: "sharepoint_oauth", credentials: oauth() },
    { provider: "microsoft", credential_type: "oauth2", credentials: oauth() },
  ];
  return { values, bodies };
}

test("no secret reaches a response, a log line, a metric, a trace, a webhook, the reference, a database column or a file, in any encoding, on good days and bad", async () => {
  await using collector = await startCollector();
  await using hooks = await startWebhookEndpoint();
  await using service = await startFresh({
    CREDENTIALS_LOG_LEVEL: "debug", CREDENTIALS_OTLP_ENDPOINT: collector.url, CREDENTIALS_OTLP_INTERVAL_MS: "100",
    CREDENTIALS_WEBHOOK_URL: hooks.url, CREDENTIALS_WEBHOOK_SECRET: webhookSecret(), CREDENTIALS_EGRESS_ALLOW: "127.0.0.0/8",
  });
  const { values, bodies } = planted();
  const organization = randomUUID();
  const [user, machine] = await Promise.all([token("user", organization), token("service_account", organization)]);
  const answers: string[] = [];
  const call = async (...args: Parameters<typeof rest> extends [unknown, ...infer R] ? R : never) => {
    const answer = await rest(service, ...args);
    answers.push(answer.text, JSON.stringify([...answer.headers]));
    return answer;
  };
  await using client = createCredentialClient({ target: service.grpc, token: machine, tls: "insecure" });
  for (const body of bodies) {
    const created = await call("POST", "/integrations/credentials", { token: user, body });
    expect(created.status, created.text).toBe(201);
    const path = `/integrations/credentials/${created.json.id}`;
    await call("GET", path, { token: user });
    expect((await call("PATCH", path, { token: user, body })).status).toBe(200);
    await client.resolveCredential({ credentialId: created.json.id });
    // Refused in as many ways as a body with secrets can be: each answer may name fields and nothing else.
    await call("POST", "/integrations/credentials", { token: machine, body });
    await call("POST", "/integrations/credentials", { body });
    await call("POST", "/integrations/credentials", { token: user, body: { ...body, provider: values[0] } });
    await call("POST", "/integrations/credentials", { token: user, body: { ...body, credential_type: "key_file" } });
    await call("POST", "/integrations/credentials", { token: user, body: { ...body, credentials: JSON.stringify(body.credentials) } });
    await call("POST", "/integrations/credentials", { token: user, raw: `${JSON.stringify(body)}}` });
    await call("POST", "/integrations/credentials", { token: user, raw: JSON.stringify(body).replace("{", '{"provider":"sftp",') });
    await call("PATCH", `/integrations/credentials/${values[0]}`, { token: user, body });
    for (const key of Object.keys(body.credentials as object)) {
      await call("POST", "/integrations/credentials", { token: user, body: { ...body, credentials: { ...(body.credentials as object), [key]: { wrapped: values[0] } } } });
    }
  }
  await call("GET", "/integrations/credentials", { token: user });
  await call("GET", "/integrations/credentials", { token: values[0] as string });
  await call("POST", "/integrations/sftp/test-connection", { token: user, body: { host: "169.254.1.1", username: "u", auth_type: "password", password: values[0] } });
  await call("POST", "/integrations/postgres/test-connection", { token: user, body: { connection_string: `postgresql://u:${values[0]}@169.254.1.1/d` } });
  for (const path of ["/metrics", "/healthz", "/readyz", "/docs", "/openapi.json"]) expect((await call("GET", path)).status).toBe(200);
  await hooks.until((all) => all.filter(({ body }) => body.includes("credential.updated")).length === bodies.length);
  expect(leaks(values, "a response", Buffer.from(answers.join("\n")))).toEqual([]);
  await service.stop();
  expect(leaks(values, "the webhooks", Buffer.from(JSON.stringify(hooks.deliveries)))).toEqual([]);
  expect(collector.spans.filter(({ name }) => name.includes("ResolveCredential")).length).toBeGreaterThanOrEqual(bodies.length);
  expect(leaks(values, "the traces", Buffer.from(collector.bodies.join("\n")))).toEqual([]);
  expect(leaks(values, "what the process printed", Buffer.from(service.output()))).toEqual([]);
  const dump = await dumpEverything(service.database.superuserUrl);
  expect(dump).toContain(organization);
  expect(leaks(values, "a database dump", Buffer.from(dump))).toEqual([]);
}, 60_000);

test("the files of an embedded database, its log and the data directory hold no secret", async () => {
  using folder = temporaryFolder();
  const data = `${folder.path}/data`;
  const secretValue = canary("file");
  const env = { PATH: process.env["PATH"] ?? "", CREDENTIALS_DATA_DIR: data, CREDENTIALS_GRPC_LISTEN: "127.0.0.1:0", CREDENTIALS_REST_LISTEN: "127.0.0.1:0" };
  const service = await startService({ ...env, CREDENTIALS_JWT_SECRET: "test-only-jwt-secret-0123456789abcdef0123456789abcdef" });
  const user = await token("user", randomUUID());
  const body = { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password: secretValue } };
  expect((await rest(service, "POST", "/integrations/credentials", { token: user, body })).status).toBe(201);
  expect(await service.stop()).toBe(0);
  const files = readdirSync(data, { recursive: true, encoding: "utf8" });
  expect(files.filter((name) => name.includes("pg_wal"))).not.toEqual([]);
  expect(leaksBelow([secretValue], data)).toEqual([]);
  expect(leaks([secretValue], "what the process printed", Buffer.from(service.output()))).toEqual([]);
});

test("no example of the reference could be taken for a token or a key of anybody's", () => {
  const shapes = /eyJ[\w-]{10,}\.|saf_[a-z]+_[\w-]{40,}|AKIA(?!EXAMPLE|IOSFODNN7EXAMPLE)[A-Z0-9]{8,}|ya29\.[\w-]{10,}|GOCSPX-[\w-]{10,}|whsec_[\w+/]{20,}|-----BEGIN [A-Z ]*PRIVATE KEY-----\\?n?[A-Za-z0-9+/]{20,}/;
  for (const file of ["gen/openapi.json", "docs/grpc.md", "docs/operations.md", "README.md"]) expect([file, shapes.exec(readFileSync(file, "utf8"))?.[0]]).toEqual([file, undefined]);
  for (const [kind, real] of Object.entries({ jwt: `eyJ${"a".repeat(20)}.b.c`, key: `saf_org_${"b".repeat(60)}`, pem: `-----BEGIN PRIVATE KEY-----\\n${"M".repeat(30)}` })) expect(shapes.test(real), kind).toBe(true);
});

test("the search itself finds a planted value in every encoding it knows", () => {
  const value = canary("self");
  for (const [form, bytes] of encodings(value)) expect(leaks([value], "itself", Buffer.concat([Buffer.from("xx"), bytes, Buffer.from("yy")])), form).not.toEqual([]);
});

/** Every row of every table, as text and as bytes, read past row-level security. */
async function dumpEverything(superuserUrl: string): Promise<string> {
  const client = new pg.Client(connectionOf(superuserUrl));
  await client.connect();
  const { rows: tables } = await client.query<{ name: string }>("select format('%I.%I', schemaname, tablename) as name from pg_tables where schemaname not in ('pg_catalog', 'information_schema')");
  const parts: string[] = [];
  for (const { name } of tables) {
    const { rows } = await client.query<Record<string, unknown>>(`select * from ${name}`);
    for (const row of rows) parts.push(JSON.stringify(row), ...Object.values(row).filter(Buffer.isBuffer).map((bytes) => bytes.toString("latin1")));
  }
  await client.end();
  return parts.join("\n");
}
