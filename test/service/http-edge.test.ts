import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { MIGRATION_LOCK } from "../../src/store/migrate.ts";
import { startGrpcAlone } from "../support/alone.ts";
import { scrape } from "../support/metrics.ts";
import { connect, freshDatabase } from "../support/postgres.ts";
import { rest, type Service, serviceEnv, startFresh, startService, token } from "../support/service.ts";
import { freePort, wire } from "../support/wire.ts";

const LIST = "/integrations/credentials";
const ORIGIN = "https://app.example";
const head = (line: string, ...headers: string[]) => `${[line, "Host: a", ...headers].join("\r\n")}\r\n`;
const statusOf = (text: string) => Number(/^HTTP\/1\.1 (\d{3}) /.exec(text)?.[1]);

describe("a running service", () => {
  let service: Service;
  beforeAll(async () => {
    service = await startFresh({
      CREDENTIALS_OPS_LISTEN: "127.0.0.1:0",
      CREDENTIALS_CORS_ORIGINS: `${ORIGIN},https://other.example`,
      CREDENTIALS_REST_HEADERS_TIMEOUT_MS: "300",
      CREDENTIALS_REST_REQUEST_TIMEOUT_MS: "600",
      CREDENTIALS_REST_KEEPALIVE_MS: "300",
      CREDENTIALS_REST_MAX_HEADER_BYTES: "2048",
      CREDENTIALS_REST_MAX_BODY_BYTES: "2048",
      CREDENTIALS_REST_MAX_CONNECTIONS: "16",
      CREDENTIALS_GRPC_DEADLINE_MS: "1000",
    });
  });
  afterAll(() => service[Symbol.asyncDispose]());

  test("cuts off headers that trickle in, however steadily", async () => {
    const loris = await wire(service.rest, head(`GET ${LIST} HTTP/1.1`));
    const dripping = new AbortController();
    void (async () => {
      while (!dripping.signal.aborted) {
        loris.socket.write("X-A: b\r\n");
        await sleep(50);
      }
    })();
    const text = await loris.closed;
    dripping.abort();
    expect(statusOf(text)).toBe(408);
    expect(text).toContain('"request_timeout"');
  });

  test("cuts off a body that trickles in", async () => {
    const loris = await wire(service.rest, head(`POST ${LIST} HTTP/1.1`, "Content-Type: application/json", "Content-Length: 1000"), "\r\n{");
    const dripping = new AbortController();
    void (async () => {
      while (!dripping.signal.aborted) {
        loris.socket.write(" ");
        await sleep(50);
      }
    })();
    const text = await loris.closed;
    dripping.abort();
    expect(statusOf(text)).toBe(408);
  });

  test("cuts off a client that takes nothing of its answers", async () => {
    const open = async () => (await scrape(service)).value("credentials_connections", { listener: "rest" });
    const stuck = await wire(service.rest);
    stuck.socket.pause();
    for (let n = 0; n < 20; n += 1) stuck.socket.write(`${head("GET /docs/swagger-ui-bundle.js HTTP/1.1")}\r\n`);
    await expect.poll(open, { timeout: 10_000 }).toBe(1);
    await expect.poll(open, { timeout: 10_000 }).toBe(0);
    stuck.socket.resume();
    const got = await stuck.closed;
    expect(got.match(/^HTTP\/1\.1 200 /gm)?.length).toBeLessThan(20);
  });

  test("closes a connection that says nothing, and one that has nothing more to say", async () => {
    const silent = await wire(service.rest);
    expect(statusOf(await silent.closed)).toBe(408);
    const quiet = await wire(service.rest, `${head(`GET ${LIST} HTTP/1.1`)}\r\n`);
    expect(statusOf(await quiet.closed)).toBe(401);
  });

  test("refuses large headers, whether in one or in many, and a long request line", async () => {
    const many = Array.from({ length: 300 }, (_, n) => `X-${n}: aaaaaaaa`);
    for (const text of [head(`GET ${LIST} HTTP/1.1`, `X-A: ${"a".repeat(2_100)}`), head(`GET ${LIST} HTTP/1.1`, ...many), head(`GET ${LIST}?${"a".repeat(2_100)} HTTP/1.1`)]) {
      const answer = await (await wire(service.rest, `${text}\r\n`)).closed;
      expect(statusOf(answer), answer).toBe(431);
    }
    expect((await rest(service, "GET", LIST, { headers: { "x-a": "a".repeat(1_000) } })).status).toBe(401);
  });

  test("refuses a large body before it has all come, whether its length is said or not", async () => {
    const post = (...headers: string[]) => head(`POST ${LIST} HTTP/1.1`, "Content-Type: application/json", ...headers);
    const said = await wire(service.rest, post("Content-Length: 100000000"), "\r\n{");
    expect(statusOf(await said.closed)).toBe(413);
    const chunk = `800\r\n${" ".repeat(2_048)}\r\n`;
    const unsaid = await wire(service.rest, post("Transfer-Encoding: chunked"), "\r\n", chunk, chunk);
    expect(statusOf(await unsaid.closed)).toBe(413);
  });

  test("takes no more connections than it may, and takes them again afterwards", async () => {
    const held = await Promise.all(Array.from({ length: 16 }, () => wire(service.rest)));
    const extra = await wire(service.rest, `${head(`GET ${LIST} HTTP/1.1`)}\r\n`);
    expect(await extra.closed).toBe("");
    expect((await fetch(`${service.ops}/healthz`)).status).toBe(200);
    for (const { socket } of held) socket.destroy();
    await expect.poll(() => rest(service, "GET", LIST).then(({ status }) => status, () => 0)).toBe(401);
  });

  test("lets pages of the listed origins in, and of no other, and never with cookies", async () => {
    const ask = async (origin: string) => {
      const { status, headers } = await rest(service, "OPTIONS", LIST, { headers: { origin, "access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type" } });
      return { status, allowed: headers.get("access-control-allow-origin"), methods: headers.get("access-control-allow-methods"), vary: headers.get("vary"), credentials: headers.get("access-control-allow-credentials") };
    };
    expect(await ask(ORIGIN)).toEqual({ status: 204, allowed: ORIGIN, methods: "POST, GET", vary: "Origin", credentials: null });
    expect(await ask("https://evil.example")).toEqual({ status: 405, allowed: null, methods: null, vary: "Origin", credentials: null });
  });

  test("tells operators, and only them, how it is", async () => {
    const answers = await Promise.all(["/healthz", "/readyz", "/metrics"].map((path) => fetch(service.ops + path)));
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
    expect(await answers[2]?.text()).toContain("credentials_call_seconds");
    for (const path of ["/healthz", "/readyz", "/metrics"]) expect((await rest(service, "GET", path)).status, path).toBe(404);
    for (const path of [LIST, "/docs", "/openapi.json", "/", "/metrics/"]) expect((await fetch(service.ops + path)).status, path).toBe(404);
    expect((await fetch(`${service.ops}/metrics`, { method: "POST" })).status).toBe(405);
    expect((await fetch(`${service.ops}/metrics`, { method: "HEAD" })).headers.get("content-type")).toMatch(/^text\/plain/);
  });
});

test("without an allow-list no page of any origin is let in, and nothing is said of origins", async () => {
  await using service = await startFresh();
  const { status, headers } = await rest(service, "OPTIONS", LIST, { headers: { origin: ORIGIN, "access-control-request-method": "POST" } });
  expect([status, headers.get("access-control-allow-origin"), headers.get("vary")]).toEqual([405, null, null]);
  for (const path of ["/healthz", "/readyz", "/metrics"]) expect((await rest(service, "GET", path)).status, path).toBe(200);
});

test("a process that serves gRPC alone has its probes where they are asked for, until it ends", async () => {
  await using service = await startGrpcAlone();
  for (const path of ["/healthz", "/readyz", "/metrics"]) expect((await fetch(service.ops + path)).status, path).toBe(200);
});

test("probes are answered while the service starts, and until its last call has ended", async () => {
  await using database = await freshDatabase();
  await using holder = await connect(database.superuserUrl);
  await holder.query("select pg_advisory_lock($1)", [MIGRATION_LOCK]);
  const port = await freePort();
  const env = serviceEnv(database, { CREDENTIALS_OPS_LISTEN: `127.0.0.1:${port}` });
  const starting = startService(env);
  const ask = (path: string) => fetch(`http://127.0.0.1:${port}${path}`).then(({ status }) => status, () => 0);
  await expect.poll(() => ask("/healthz"), { timeout: 20_000 }).toBe(200);
  expect(await ask("/readyz")).toBe(503);
  await holder.query("select pg_advisory_unlock($1)", [MIGRATION_LOCK]);
  const service = await starting;
  await expect.poll(() => ask("/readyz")).toBe(200);

  await holder.query("begin; lock table credential in access exclusive mode");
  const call = rest(service, "GET", LIST, { token: await token("user", "7b0c4f0e-52a4-4a53-9d53-3b1f0a4f5e01") });
  const waits = async () => (await holder.query("select 1 from pg_locks where relation = 'credential'::regclass and not granted")).rowCount;
  await expect.poll(waits).toBe(1);
  const ended = service.stop();
  await expect.poll(() => ask("/readyz")).toBe(503);
  expect(await ask("/healthz")).toBe(200);
  await holder.query("commit");
  expect((await call).status).toBe(200);
  expect(await ended).toBe(0);
  expect(await ask("/healthz")).toBe(0);
});
