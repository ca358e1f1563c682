import { generateKeyPairSync, randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createApp } from "../../src/app.ts";
import { loadConfig } from "../../src/config.ts";
import { startFailure } from "../../src/serve.ts";
import { MIGRATION_LOCK } from "../../src/store/migrate.ts";
import { connect, type FreshDatabase, freshDatabase } from "../support/postgres.ts";
import { rest, type Service, serviceEnv, spawnService, startService, temporaryFolder, token } from "../support/service.ts";

/** Each start of a process takes a second or two: the short form starts one for a fault of the settings, of the keys, and of the database, and all else in this process. */
const LONG = process.env["FLOW_TEST_LONG"] !== undefined;
const APART = /^(a misspelt setting|a key too short|another key under a known id)$/;

const ORGANIZATION = "7b0c4f0e-52a4-4a53-9d53-3b1f0a4f5e01";
const key = randomBytes(32).toString("base64");
const other = randomBytes(32).toString("base64");
const body = { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password: "p" } };

/** Starts a process that is expected to refuse; gives its exit code and what it printed. */
async function refusal(env: Record<string, string>): Promise<{ code: number | string; output: string }> {
  const { ended, output, process: child } = spawnService(env);
  const limit = setTimeout(() => child.kill("SIGKILL"), 20_000);
  const code = await ended;
  clearTimeout(limit);
  return { code, output: output() };
}

/** The line with which a start with these settings ends. */
async function complaint(env: Record<string, string>): Promise<string> {
  try {
    await using app = await createApp(loadConfig(env));
    return `ready ${app.grpc?.port}`;
  } catch (error) {
    return startFailure(error);
  }
}

describe("a service that cannot be right refuses to start", () => {
  let database: FreshDatabase;
  const env = (extra: Record<string, string>) => serviceEnv(database, { CREDENTIALS_MASTER_KEYS: `k1:${key}`, CREDENTIALS_PRIMARY_KEY_ID: "k1", ...extra });

  beforeAll(async () => {
    database = await freshDatabase();
    await using service = await startService(env({}));
    const created = await rest(service, "POST", "/integrations/credentials", { token: await token("user", ORGANIZATION), body });
    expect(created.status).toBe(201);
  });
  afterAll(async () => {
    await database[Symbol.asyncDispose]();
  });

  test.each([
    ["another key under a known id", { CREDENTIALS_MASTER_KEYS: `k1:${other}` }, /"?k1"? is not the key/],
    ["the key in use is missing", { CREDENTIALS_MASTER_KEYS: `k2:${other}`, CREDENTIALS_PRIMARY_KEY_ID: "k2" }, /"k1" is not loaded, and 1 row/],
    ["a key too short", { CREDENTIALS_MASTER_KEYS: `k1:${randomBytes(16).toString("base64")}` }, /k1/],
    ["a key of zeros", { CREDENTIALS_MASTER_KEYS: `k1:${Buffer.alloc(32).toString("base64")}` }, /k1/],
    ["a key that is a phrase", { CREDENTIALS_MASTER_KEYS: `k1:${Buffer.from("change-me-change-me-change-me-32").toString("base64")}` }, /k1/],
    ["a primary that is not loaded", { CREDENTIALS_PRIMARY_KEY_ID: "k9" }, /k9/],
    ["the same id twice", { CREDENTIALS_MASTER_KEYS: `k1:${key},k1:${other}` }, /k1/],
    ["the same bytes under two ids", { CREDENTIALS_MASTER_KEYS: `k1:${key},k2:${key}` }, /k[12]/],
    ["a short JWT secret", { CREDENTIALS_JWT_SECRET: "short" }, /CREDENTIALS_JWT_SECRET/],
    ["a misspelt setting", { CREDENTIALS_MASTER_KEY: "x" }, /CREDENTIALS_MASTER_KEY is not a setting/],
    ["an empty setting", { CREDENTIALS_LOG_LEVEL: "" }, /CREDENTIALS_LOG_LEVEL is present but empty/],
    ["production without TLS on a public address", { CREDENTIALS_PROFILE: "production", CREDENTIALS_GRPC_LISTEN: "0.0.0.0:0" }, /CREDENTIALS_GRPC_LISTEN/],
  ])("%s", async (what, extra: Record<string, string>, names) => {
    const { code, output } = LONG || APART.test(what) ? await refusal(env(extra)) : { code: 1, output: await complaint(env(extra)) };
    expect(code).toBe(1);
    expect(output).toMatch(names);
    expect(output).not.toContain("ready");
    expect(output.trim().split("\n")).toHaveLength(1);
    for (const secretText of [key, other, "change-me"]) expect(output).not.toContain(secretText);
  });

  test("in production nothing is generated: every missing key is named", async () => {
    const { CREDENTIALS_MASTER_KEYS: _keys, CREDENTIALS_PRIMARY_KEY_ID: _id, ...rest } = env({ CREDENTIALS_PROFILE: "production" });
    expect(await complaint(rest)).toContain("CREDENTIALS_MASTER_KEYS is required in production");
    const { CREDENTIALS_JWT_SECRET: _secret, ...unverified } = env({ CREDENTIALS_PROFILE: "production" });
    expect(await complaint(unverified)).toContain("CREDENTIALS_JWT_SECRET, CREDENTIALS_JWT_PUBLIC_KEY or CREDENTIALS_JWT_JWKS_URL is required in production");
    const unsigned = await refusal(env({ CREDENTIALS_PROFILE: "production" }));
    expect(unsigned.code).toBe(1);
    expect(unsigned.output.trim()).toMatch(/^\S+: CREDENTIALS_AUDIT_SIGNING_KEY is required in production: `openssl genpkey -algorithm ed25519` makes one$/);
  });

  test("in production it starts with all of them, and only with an Ed25519 key among them", async () => {
    const of = (key: { export(options: { format: "pem"; type: "pkcs8" }): string | Buffer }) => env({ CREDENTIALS_PROFILE: "production", CREDENTIALS_AUDIT_SIGNING_KEY: String(key.export({ format: "pem", type: "pkcs8" })) });
    const wrong = await complaint(of(generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey));
    expect(wrong).toContain("CREDENTIALS_AUDIT_SIGNING_KEY");
    expect(wrong).not.toContain("PRIVATE KEY-----");
    await using service = await startService(of(generateKeyPairSync("ed25519").privateKey));
    expect((await rest(service, "GET", "/readyz")).status).toBe(200);
  });

  test("keys come from a file as well, and both sources at once are refused", async () => {
    using folder = temporaryFolder();
    const file = join(folder.path, "keys");
    writeFileSync(file, `k1:${key}\n`, { mode: 0o600 });
    const { CREDENTIALS_MASTER_KEYS: _, ...rest } = env({ CREDENTIALS_MASTER_KEYS_FILE: file });
    await using service = await startService(rest);
    expect(service.output()).toMatch(/^ready /m);
    expect(await complaint(env({ CREDENTIALS_MASTER_KEYS_FILE: file }))).toContain("CREDENTIALS_MASTER_KEYS and CREDENTIALS_MASTER_KEYS_FILE are both set");
  });

  test("a role that could bypass row-level security is refused", async () => {
    const { code, output } = await refusal(env({ CREDENTIALS_DATABASE_URL: database.superuserUrl }));
    expect(code).toBe(1);
    expect(output.trim().split("\n")).toHaveLength(1);
  });
});

describe("a service that runs", () => {
  let database: FreshDatabase;
  let service: Service;
  beforeAll(async () => {
    database = await freshDatabase();
    service = await startService(serviceEnv(database));
  });
  afterAll(async () => {
    await service.stop();
    await database[Symbol.asyncDispose]();
  });

  test("keeps its memory closed: SIGUSR1 opens no inspector", async () => {
    service.process.kill("SIGUSR1");
    expect((await rest(service, "GET", "/readyz")).status).toBe(200);
    expect(service.output()).not.toContain("Debugger listening");
  });

  test("answers health, readiness and metrics without authentication and without secrets", async () => {
    expect((await rest(service, "GET", "/healthz")).status).toBe(200);
    expect((await rest(service, "GET", "/readyz")).status).toBe(200);
    const metrics = await rest(service, "GET", "/metrics");
    expect(metrics.status).toBe(200);
    expect(metrics.text).toContain("credentials_sealing_total");
  });

  test("stops cleanly on SIGTERM, with exit code 0", async () => {
    expect(await service.stop("SIGTERM")).toBe(0);
  });
});

describe("a service that starts", () => {
  test("can be stopped while it waits for its turn to migrate: exit code 0, and never ready", async () => {
    await using database = await freshDatabase();
    await using holder = await connect(database.superuserUrl);
    await holder.query("select pg_advisory_lock($1)", [MIGRATION_LOCK]);
    const { process: child, ended, output } = spawnService(serviceEnv(database));
    // The owner's connection shows that the start has come as far as the lock.
    const waits = async () => (await holder.query("select 1 from pg_stat_activity where usename = 'credentials_owner' and datname = current_database()")).rowCount;
    await expect.poll(waits, { timeout: 20_000 }).toBeGreaterThan(0);
    child.kill("SIGTERM");
    expect(await ended).toBe(0);
    expect(output()).not.toContain("ready");
  });

  test("needs nothing at all: embedded database and generated keys in its data directory, kept over a restart", async () => {
    using folder = temporaryFolder();
    const env = {
      PATH: process.env["PATH"] ?? "",
      CREDENTIALS_DATA_DIR: join(folder.path, "data"),
      CREDENTIALS_GRPC_LISTEN: "127.0.0.1:0",
      CREDENTIALS_REST_LISTEN: "127.0.0.1:0",
    };
    const first = await startService(env);
    const pasted = /Bearer (\S+)'/.exec(await printedSteps(first))?.[1] ?? "";
    const created = await rest(first, "POST", "/integrations/credentials", { token: pasted, body });
    expect(created.status).toBe(201);
    expect(await first.stop()).toBe(0);
    await using second = await startService(env);
    const again = await rest(second, "GET", `/integrations/credentials/${created.json.id}`, { token: pasted });
    expect(again.status).toBe(200);
  });
});

async function printedSteps(service: { output(): string }): Promise<string> {
  while (!service.output().includes("--list-services")) await new Promise((resolve) => setTimeout(resolve, 20));
  return service.output();
}
