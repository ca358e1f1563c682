import { describe, expect, test } from "vitest";
import { ConfigError, loadConfig } from "../../src/config.ts";
import { patternIn } from "../../src/domain/pattern.ts";
import { Grace, refuseInspection } from "../../src/process.ts";

const production = {
  CREDENTIALS_PROFILE: "production",
  CREDENTIALS_DATABASE_URL: "postgresql://app:canary@db.example.com/x",
  CREDENTIALS_MASTER_KEYS: "k1:canary",
  CREDENTIALS_PRIMARY_KEY_ID: "k1",
  CREDENTIALS_JWT_SECRET: "canary",
};

describe("the configuration", () => {
  test.each([
    ["a name that is no setting", { CREDENTIALS_REST_LISTN: "127.0.0.1:1" }, "CREDENTIALS_REST_LISTN is not a setting"],
    ["a file for what is no secret", { CREDENTIALS_PROFILE_FILE: "/x" }, "CREDENTIALS_PROFILE_FILE is not a setting"],
    ["an empty value", { CREDENTIALS_CORS_ORIGINS: " " }, "CREDENTIALS_CORS_ORIGINS is present but empty"],
    ["an address without a port", { CREDENTIALS_GRPC_LISTEN: "canary" }, "CREDENTIALS_GRPC_LISTEN must be host:port"],
    ["a port that is none", { CREDENTIALS_GRPC_LISTEN: "127.0.0.1:70000" }, "CREDENTIALS_GRPC_LISTEN must be host:port"],
    ["a limit of zero", { CREDENTIALS_LIMIT_PER_USER: "0" }, "CREDENTIALS_LIMIT_PER_USER must be at least 1"],
    ["a number that is none", { CREDENTIALS_LIMIT_PER_USER: "canary" }, "CREDENTIALS_LIMIT_PER_USER must be a whole number"],
    ["a lease too short for its provider's deadline", { CREDENTIALS_REFRESH_LEASE_MS: "19999" }, "CREDENTIALS_REFRESH_LEASE_MS must be at least twice"],
    ["webhooks without a secret", { CREDENTIALS_WEBHOOK_URL: "https://example.com" }, "CREDENTIALS_WEBHOOK_URL and CREDENTIALS_WEBHOOK_SECRET go together"],
    ["failpoints in production", { ...production, CREDENTIALS_FAILPOINTS: "after-send=kill" }, "CREDENTIALS_FAILPOINTS is for the development profile only"],
    ["webhooks in the clear in production", { ...production, CREDENTIALS_WEBHOOK_URL: "http://example.com", CREDENTIALS_WEBHOOK_SECRET: "canary" }, "CREDENTIALS_WEBHOOK_URL must be https"],
    ["a switch that is none", { CREDENTIALS_REST_RESOLVE: "true" }, "CREDENTIALS_REST_RESOLVE must be on or off"],
    ["a role that is none", { CREDENTIALS_ROLES: "grpc,canary" }, "CREDENTIALS_ROLES must name grpc, rest or both"],
    ["keys without a primary", { CREDENTIALS_MASTER_KEYS: "k1:canary" }, "CREDENTIALS_PRIMARY_KEY_ID is required"],
    ["two kinds of JWT key", { CREDENTIALS_JWT_SECRET: "canary", CREDENTIALS_JWT_PUBLIC_KEY: "canary" }, "CREDENTIALS_JWT_SECRET and CREDENTIALS_JWT_PUBLIC_KEY are both set"],
    ["a secret and its file", { CREDENTIALS_JWT_SECRET: "canary", CREDENTIALS_JWT_SECRET_FILE: "/x" }, "CREDENTIALS_JWT_SECRET and CREDENTIALS_JWT_SECRET_FILE are both set"],
    ["a file that is not there", { CREDENTIALS_JWT_SECRET_FILE: "/nowhere/canary" }, "CREDENTIALS_JWT_SECRET_FILE cannot be read (ENOENT)"],
    ["a certificate without its key", { CREDENTIALS_TLS_CERT_FILE: "/x" }, "CREDENTIALS_TLS_CERT_FILE and CREDENTIALS_TLS_KEY_FILE go together"],
    ["a client authority without a certificate", { CREDENTIALS_TLS_CLIENT_CA_FILE: "/x" }, "CREDENTIALS_TLS_CLIENT_CA_FILE needs"],
    ["rest alone without a target", { CREDENTIALS_ROLES: "rest" }, "CREDENTIALS_GRPC_TARGET is required"],
    ["bodies larger than messages", { CREDENTIALS_REST_MAX_BODY_BYTES: "1000000" }, "CREDENTIALS_REST_MAX_BODY_BYTES must not be above"],
    ["any origin at all", { CREDENTIALS_CORS_ORIGINS: "https://app.example,*" }, "CREDENTIALS_CORS_ORIGINS must list origins"],
    ["an origin with a path", { CREDENTIALS_CORS_ORIGINS: "https://canary.example/" }, "CREDENTIALS_CORS_ORIGINS must list origins"],
    ["headers that may take longer than their request", { CREDENTIALS_REST_HEADERS_TIMEOUT_MS: "30001" }, "CREDENTIALS_REST_HEADERS_TIMEOUT_MS must not be above"],
    ["a collector's headers without a collector", { CREDENTIALS_OTLP_HEADERS: "authorization=canary" }, "CREDENTIALS_OTLP_HEADERS is given without"],
    ["a key set beside a secret", { CREDENTIALS_JWT_JWKS_URL: "https://issuer.example/canary", CREDENTIALS_JWT_SECRET: "canary" }, "CREDENTIALS_JWT_JWKS_URL goes without"],
  ])("refuses %s, names the setting, and shows no value", (_, env: Record<string, string>, message) => {
    const attempt = () => loadConfig(env);
    expect(attempt).toThrow(ConfigError);
    expect(attempt).toThrow(message);
    expect(attempt).not.toThrow(/canary/);
  });

  test.each([
    ["a public gRPC address without TLS", { CREDENTIALS_GRPC_LISTEN: "0.0.0.0:1" }, "CREDENTIALS_GRPC_LISTEN is a public address"],
    ["a public REST address without TLS", { CREDENTIALS_REST_LISTEN: "10.0.0.1:1" }, "CREDENTIALS_REST_LISTEN is a public address"],
    ["rest alone that reaches gRPC in the clear", { CREDENTIALS_ROLES: "rest", CREDENTIALS_GRPC_TARGET: "10.1.2.3:50051" }, "CREDENTIALS_GRPC_TARGET is another machine"],
  ])("in production refuses %s", (_, extra, message) => {
    expect(() => loadConfig({ ...production, ...extra })).toThrow(message);
  });

  test("in production needs a database", () => {
    const { CREDENTIALS_DATABASE_URL: _, ...without } = production;
    expect(() => loadConfig(without)).toThrow("CREDENTIALS_DATABASE_URL is required in production");
  });

  test("has profile-dependent defaults: reflection and an operator audience in development only", () => {
    expect(loadConfig({}).settings).toMatchObject({ grpcReflection: true, jwtOperatorAudience: "flow-credentials-operator" });
    expect(loadConfig(production).settings).toMatchObject({ grpcReflection: false, jwtOperatorAudience: undefined });
  });

  test("prints no secret", () => {
    expect(JSON.stringify(loadConfig(production))).not.toContain("canary");
  });
});

test("a process whose memory is open is refused in production", () => {
  expect(() => refuseInspection({}, "")).not.toThrow();
  expect(() => refuseInspection({ NODE_OPTIONS: "--inspect=0.0.0.0:9229" }, "")).toThrow(ConfigError);
  for (const option of ["--heapsnapshot-signal=SIGUSR2", "--report_on_signal", "--max-old-space-size=99 --heap_prof", "--tls-keylog=keys", "--trace-tls", "--trace", "--experimental_config_file=x"]) {
    expect(() => refuseInspection({ NODE_OPTIONS: option }, ""), option).toThrow("--inspect and its like");
  }
  expect(() => refuseInspection({ NODE_OPTIONS: "--trace-warnings --max-old-space-size=300" }, "")).not.toThrow();
  for (const name of ["NODE_DEBUG", "NODE_DEBUG_NATIVE", "GRPC_TRACE", "GRPC_NODE_TRACE"]) expect(() => refuseInspection({ [name]: "all" }, "")).toThrow(`production refuses ${name}`);
});

test("a process that may leave a core file is refused in production", () => {
  const limits = (soft: string) => `Limit                     Soft Limit           Hard Limit           Units     \nMax core file size        ${soft.padEnd(20)} unlimited            bytes     \n`;
  for (const soft of ["0", "1"]) expect(() => refuseInspection({}, limits(soft))).not.toThrow();
  for (const soft of ["2", "4096", "unlimited"]) expect(() => refuseInspection({}, limits(soft)), soft).toThrow("core file");
});

test.each([["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"], ["changemechangemechangemechangeme"], ["\u0001\u0002\u0003\u0004\u0005\u0006\u0007\u0008"]])("%j was not drawn at random", (text) => {
  expect(patternIn(Buffer.from(text))).toBeDefined();
});

test("the time for stopping runs once, from the first who is told, for everyone together", () => {
  let now = 100;
  const grace = new Grace(25, () => now);
  expect(grace.leftMs).toBe(25);
  grace.begin();
  now += 20;
  grace.begin();
  expect(grace.leftMs).toBe(5);
  now += 20;
  expect(grace.leftMs).toBe(0);
});
