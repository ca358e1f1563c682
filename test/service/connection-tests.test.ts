import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { canary } from "../support/canary.ts";
import { connect, connectionOf } from "../support/postgres.ts";
import { rest, startFresh, token } from "../support/service.ts";
import { sshdAvailable, startSshd, type Sshd } from "../support/sshd.ts";
import { startTlsPostgres, type TlsPostgres } from "../support/tls-postgres.ts";

const available = await sshdAvailable();
const organization = randomUUID();
let service: Awaited<ReturnType<typeof startFresh>>;
let user: string;

/** What the service's environment holds that the drivers would read, were they asked in its process. */
const TEMPTING = { PGPASSWORD: canary("pgpassword"), PGHOST: "127.0.0.1", PGUSER: "postgres", PGSSLROOTCERT: "/etc/passwd", SSH_AUTH_SOCK: "/nowhere/agent" };

beforeAll(async () => {
  service = await startFresh({ CREDENTIALS_EGRESS_ALLOW: "127.0.0.0/8", ...TEMPTING });
  user = await token("user", organization);
});
afterAll(async () => service[Symbol.asyncDispose]());

const call = (path: string, body?: unknown, as = user) => rest(service, "POST", path, { token: as, ...(body === undefined ? {} : { body }) });

describe.skipIf(!available)("an SFTP test against a real OpenSSH server", () => {
  let sshd: Sshd;
  const secret = (extra: Record<string, unknown> = {}) => ({ host: sshd.host, port: String(sshd.port), username: sshd.username, auth_type: "password", password: sshd.password, test_path: sshd.path("."), ...extra });

  beforeAll(async () => {
    sshd = await startSshd({ files: { "a.txt": "a" } });
  });
  afterAll(async () => sshd.stop());

  test.each(["", "/api"])("under %s/integrations succeeds, says which host key it saw, and leaves no file behind", async (prefix) => {
    const answer = await call(`${prefix}/integrations/sftp/test-connection`, secret());
    expect(answer.status, answer.text).toBe(200);
    expect(answer.json).toMatchObject({ success: true, layer: null, reason: "ok", next_step: "", duration_ms: expect.any(Number), details: { host_key_fingerprint: sshd.hostKeyFingerprint } });
    expect(answer.text).not.toContain(sshd.password);
  });

  test.each([
    ["a wrong password", { password: "wrong" }, { layer: "auth", reason: "ssh_password_refused" }],
    ["another host key", { host_key_fingerprint: `SHA256:${"A".repeat(43)}` }, { layer: "host_key", reason: "host_key_changed" }],
    ["a folder that is not there", { test_path: "/nowhere" }, { reason: "sftp_path_missing" }],
    ["a port where nobody listens", { port: 1 }, { layer: "connect", reason: "connection_refused" }],
  ])("tells %s from everything else, and what to do", async (_, extra, expected) => {
    const { status, json } = await call("/integrations/sftp/test-connection", secret(extra));
    expect(status).toBe(200);
    expect(json).toMatchObject({ success: false, ...expected, message: expect.stringMatching(/\.$/), next_step: expect.stringMatching(/\.$/) });
  });

  test("of a stored credential needs no secret again, and is there for its own organization only", async () => {
    const credentials = { host: sshd.host, port: sshd.port, username: sshd.username, password: sshd.password };
    const { json } = await rest(service, "POST", "/integrations/credentials", { token: user, body: { provider: "sftp", credential_type: "user_password", credentials } });
    const path = `/integrations/credentials/${json.id}/test`;
    expect((await call(path)).json).toMatchObject({ success: true });
    expect((await call(path, undefined, await token("user", randomUUID()))).status).toBe(404);
    const asDatabase = await call(`/integrations/postgres/test-connection/${json.id}`);
    expect([asDatabase.status, asDatabase.json.error.code]).toEqual([400, "bad_request"]);
  });
});

describe("a PostgreSQL test against a real server with TLS and SCRAM", () => {
  let postgres: TlsPostgres;
  const secret = (extra: Record<string, unknown> = {}) => ({ host: "127.0.0.1", port: String(postgres.port), username: "tested", password: "test-only-password", database: "postgres", ...extra });

  beforeAll(async () => {
    postgres = await startTlsPostgres();
    await postgres.run("create role tested login password 'test-only-password'");
  });
  afterAll(async () => postgres.stop());

  test("succeeds and says how safe the connection was", async () => {
    const { json } = await call("/integrations/postgres/test-connection", secret({ sslmode: "verify-ca", ca_certificate: postgres.ca }));
    expect(json).toMatchObject({ success: true, details: { tls: "verified-ca" } });
    expect((await call("/integrations/postgres/test-connection", secret({ sslmode: "require" }))).json).toMatchObject({ success: true, details: { tls: "unverified" } });
  });

  test.each([
    ["a wrong password", { password: "wrong" }, "pg_password_refused"],
    ["a database that is not there", { database: "nowhere" }, "pg_database_missing"],
    ["a certificate of an unknown authority", { sslmode: "verify-ca" }, "tls_certificate_unknown_authority"],
    ["a certificate for another name", { sslmode: "verify-full", other: true }, "tls_certificate_wrong_name"],
  ])("tells %s from everything else", async (_, { other, ...extra }: Record<string, unknown>, reason) => {
    const trusted = other === true ? { ca_certificate: postgres.ca } : {};
    expect((await call("/integrations/postgres/test-connection", secret({ ...extra, ...trusted }))).json).toMatchObject({ success: false, reason });
  });

  test("of a stored credential answers under both of its addresses", async () => {
    const { json } = await rest(service, "POST", "/integrations/credentials", { token: user, body: { provider: "postgresql", credential_type: "user_password", credentials: secret() } });
    for (const path of [`/integrations/postgres/test-connection/${json.id}`, `/integrations/credentials/${json.id}/test`]) expect((await call(path)).json).toMatchObject({ success: true });
  });
});

test.each([
  ["a link-local address", "169.254.169.254"],
  ["another private address", "10.1.2.3"],
  ["IPv4 in IPv6", "::ffff:10.1.2.3"],
  ["IPv4 behind NAT64", "64:ff9b::a01:203"],
])("%s is refused with one and the same answer", async (_, host) => {
  const { status, json } = await call("/integrations/postgres/test-connection", { host, port: "5432", username: "u", password: "p", database: "d" });
  expect([status, json.success, json.layer, json.reason]).toEqual([200, false, "address", "address_not_allowed"]);
});

test.each([["an octal spelling", "0177.0.0.1"], ["a short spelling", "127.1"]])("%s of an address is told as what it is, and nothing is dialled", async (_, host) => {
  const { status, json } = await call("/integrations/postgres/test-connection", { host, port: "5432", username: "u", password: "p", database: "d" });
  expect([status, json.success, json.layer, json.reason]).toEqual([200, false, "address", "host_malformed"]);
});

test("an empty connection string counts as none", async () => {
  const { json } = await call("/integrations/postgres/test-connection", { host: "10.1.2.3", port: "5432", username: "u", password: "p", database: "d", connection_string: "" });
  expect(json).toMatchObject({ success: false, reason: "address_not_allowed" });
});

test("a PostgreSQL test never falls back to what is in the service's environment", async () => {
  const answer = await call("/integrations/postgres/test-connection", { host: "127.0.0.1", port: 1, username: "u", password: "p", database: "d" });
  expect(answer.json).toMatchObject({ success: false, reason: "connection_refused" });
  const empty = await call("/integrations/postgres/test-connection", { host: "127.0.0.1", port: 1, username: "u", password: "", database: "d" });
  expect([empty.status, empty.json.error.details[0].field]).toEqual([400, "password"]);
});

test("a connection string wins over the fields and makes them optional; a bad one is named and not repeated", async () => {
  const tried = await call("/integrations/postgres/test-connection", { host: "192.0.2.1", connection_string: "postgresql://u:p@127.0.0.1:1/d" });
  expect(tried.json).toMatchObject({ success: false, reason: "connection_refused" });
  const planted = canary("dsn");
  const refused = await call("/integrations/postgres/test-connection", { connection_string: `postgresql://u:${planted}@h/d?sslrootcert=/etc/passwd` });
  expect([refused.status, refused.json.error.details[0].field]).toEqual([400, "connection_string"]);
  expect(refused.text).not.toContain(planted);
});

test("what is missing or of the wrong kind is a 422 that names it", async () => {
  const bare = await call("/integrations/postgres/test-connection", {});
  expect([bare.status, bare.json.detail.map((item: { loc: string[] }) => item.loc.at(-1))]).toEqual([422, ["host", "port", "username", "password", "database"]]);
  const wrong = await call("/integrations/sftp/test-connection", { host: 5, port: "x", username: "u", auth_type: "agent" });
  expect([wrong.status, wrong.json.detail.map((item: { loc: string[] }) => item.loc.at(-1)).sort()]).toEqual([422, ["auth_type", "host", "port"]]);
});

test("a credential of a provider without a test says so", async () => {
  const { json } = await rest(service, "POST", "/integrations/credentials", { token: user, body: { provider: "google", credential_type: "api_key", credentials: { api_key: "k" } } });
  expect((await call(`/integrations/credentials/${json.id}/test`)).json).toMatchObject({ success: false, reason: "not_supported" });
});

test("every test leaves one line that says who had what dialled and how it ended, without the secret", async () => {
  const planted = canary("logged");
  const answer = await call("/integrations/postgres/test-connection", { connection_string: `postgresql://u:${planted}@127.0.0.1:1/d` });
  const requestId = answer.headers.get("x-request-id") as string;
  // The line comes through a pipe of its own, perhaps after the answer.
  const line = () => service.output().split("\n").find((text) => text.includes('"connection test"') && text.includes(requestId));
  await expect.poll(line).toBeDefined();
  expect(JSON.parse(line() as string)).toMatchObject({ method: "test_postgres_connection", organization_id: organization, address: "127.0.0.1:1", reason: "connection_refused" });
  expect(service.output()).not.toContain(planted);
});

test("a test is recorded before it dials, under the caller's organization", async () => {
  const administrator = new pg.Client(connectionOf(service.database.superuserUrl));
  await administrator.connect();
  const answer = await call("/integrations/postgres/test-connection", { host: "127.0.0.1", port: 1, username: "u", password: "p", database: "d" });
  const { rows } = await administrator.query("select action, outcome, organization_id from audit_event where request_id = $1", [answer.headers.get("x-request-id")]);
  await administrator.end();
  expect(rows).toEqual([{ action: "test_postgres_connection", outcome: "allowed", organization_id: organization }]);
});

test("a third test of one organization at a time is refused at once, and says so", async () => {
  const silent = createServer(() => {}).listen(0, "127.0.0.1");
  await once(silent, "listening");
  const { port } = silent.address() as AddressInfo;
  const mine = await token("user", randomUUID());
  const body = { host: "127.0.0.1", port, username: "u", password: "p", database: "d" };
  const abort = new AbortController();
  const running = [1, 2].map(() =>
    fetch(`${service.rest}/integrations/postgres/test-connection`, { method: "POST", signal: abort.signal, headers: { authorization: `Bearer ${mine}`, "content-type": "application/json" }, body: JSON.stringify(body) }).catch(() => {}),
  );
  let connections = 0;
  silent.on("connection", () => connections++);
  await expect.poll(() => connections, { timeout: 8_000 }).toBe(2);
  const third = await call("/integrations/postgres/test-connection", body, mine);
  expect([third.status, third.headers.has("retry-after")]).toEqual([429, true]);
  await using administrator = await connect(service.database.superuserUrl);
  const { rows } = await administrator.query("select outcome, reason from audit_event where request_id = $1", [third.headers.get("x-request-id")]);
  expect(rows).toEqual([{ outcome: "refused", reason: "TEST_LIMIT_REACHED" }]);
  abort.abort();
  await Promise.all(running);
  silent.close();
  // Also of a test that nobody waited for it is told whom it dialled.
  await expect.poll(() => service.output().split("\n").filter((text) => text.includes('"connection test"') && text.includes(`127.0.0.1:${port}`) && text.includes("not_finished"))).toHaveLength(2);
  // A caller who hangs up gives the place back.
  await expect.poll(async () => (await call("/integrations/postgres/test-connection", { ...body, port: 1 }, mine)).status, { timeout: 8_000, interval: 200 }).toBe(200);
});
