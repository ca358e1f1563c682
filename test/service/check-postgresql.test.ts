import { getCACertificates, setDefaultCACertificates } from "node:tls";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { checkPostgresql, type PostgresqlTarget } from "../../src/providers/checks/postgresql.ts";
import { NO_DEMANDS } from "../../src/providers/connection-string.ts";
import { providers } from "../../src/providers/index.ts";
import { directIo, shows } from "../support/hostile-dialer.ts";
import { startTlsPostgres, type TlsPostgres } from "../support/tls-postgres.ts";

const PASSWORD = "canary-password-0123456789";
let server: TlsPostgres;
beforeAll(async () => {
  server = await startTlsPostgres();
  await server.run(
    `create role app login password '${PASSWORD}'`,
    `create role group_only nologin password '${PASSWORD}'`,
    `create role narrow login password '${PASSWORD}' connection limit 0`,
    `create role reader login password '${PASSWORD}'`,
    "alter role reader set default_transaction_read_only = on",
    `create role expired login password '${PASSWORD}' valid until '2020-01-01'`,
    "set password_encryption = 'md5'",
    `create role old login password '${PASSWORD}'`,
    "create database closed allow_connections false",
    "create database private",
    "revoke connect on database private from public",
  );
});
afterAll(() => server.stop());

const check = async (changes: Partial<PostgresqlTarget> = {}) => {
  const io = directIo({ maxBytes: 64 * 1024 });
  const given = { host: "localhost", port: server.port, username: "app", password: PASSWORD, database: "postgres", sslmode: "verify-full", caCertificate: server.ca, demands: NO_DEMANDS } as const;
  const result = await checkPostgresql({ ...given, ...changes }, io);
  expect([io.open(), shows(result, "canary")]).toEqual([0, false]);
  return result;
};

describe("a PostgreSQL server with TLS and SCRAM", () => {
  test("passes, and says what it is and how safe the connection was", async () => {
    expect(await check()).toEqual({
      success: true,
      layer: null,
      reason: "ok",
      message: "The login works and queries run.",
      nextStep: "",
      details: {
        tls: "verified", password_checked: true, password_method: "scram-sha-256", scram_iterations: 4096, channel_binding: true,
        can_connect: true, can_select: true, server_version: expect.any(Number), standby: false, read_only: false,
      },
    });
  });

  test.each<readonly [PostgresqlTarget["sslmode"], "ca" | "", "localhost" | "127.0.0.1", string]>([
    ["disable", "ca", "localhost", "none"],
    ["allow", "", "localhost", "unverified"],
    ["prefer", "", "localhost", "unverified"],
    ["prefer", "ca", "localhost", "verified"],
    ["require", "", "127.0.0.1", "unverified"],
    ["require", "ca", "127.0.0.1", "verified-ca"],
    ["verify-ca", "ca", "127.0.0.1", "verified-ca"],
    ["verify-full", "ca", "localhost", "verified"],
  ])("with sslmode %s and CA '%s' at %s is %s", async (sslmode, ca, host, tls) => {
    expect(await check({ sslmode, host, caCertificate: ca === "" ? "" : server.ca })).toMatchObject({ success: true, details: { tls } });
  });

  test("whose authority alone was verified says that its name was not checked", async () => {
    expect((await check({ sslmode: "verify-ca", host: "127.0.0.1" })).message).toContain("name was not checked");
  });

  test("of a public authority must have the name that it is reached by where sslmode is verify-ca", async () => {
    const before = getCACertificates("default");
    setDefaultCACertificates([...before, server.ca]);
    try {
      const given = { sslmode: "verify-ca", caCertificate: "" } as const;
      expect(await check({ ...given, host: "127.0.0.1" })).toMatchObject({ success: false, reason: "tls_certificate_wrong_name", details: { password_checked: false } });
      expect(await check(given)).toMatchObject({ success: true, details: { tls: "verified" } });
    } finally {
      setDefaultCACertificates(before);
    }
  });

  test("keeps what a connection string demands", async () => {
    const shape = providers.postgresql.types.user_password;
    const by = async (query: string) => {
      const connection_string = `postgresql://app:${PASSWORD}@localhost:${server.port}/postgres?sslmode=verify-full&${query}`;
      return shape?.check?.({ connection_string, ca_certificate: server.ca }, directIo(), { testPath: "/" });
    };
    expect(await by("channel_binding=require")).toMatchObject({ success: true, details: { channel_binding: true } });
    await server.rules("host all app 127.0.0.1/32 password");
    expect(await by("channel_binding=prefer")).toMatchObject({ success: true });
    expect(await by("channel_binding=require")).toMatchObject({ success: false, layer: "auth", reason: "pg_channel_binding_missing" });
    await server.rules();
    await server.run("alter system set ssl_max_protocol_version = 'TLSv1.2'");
    await server.rules();
    expect(await by("ssl_min_protocol_version=TLSv1.2")).toMatchObject({ success: true });
    expect(await by("ssl_min_protocol_version=TLSv1.3")).toMatchObject({ success: false, layer: "tls", reason: "tls_version_not_supported" });
    await server.run("alter system reset ssl_max_protocol_version");
    await server.rules();
  });

  test("tells that transactions are read-only", async () => {
    expect(await check({ username: "reader" })).toMatchObject({ success: true, details: { read_only: true } });
  });

  test("is reached through the provider by fields and by connection string", async () => {
    const shape = providers.postgresql.types.user_password;
    const uri = `postgresql://app:${PASSWORD}@localhost:${server.port}/postgres?sslmode=require`;
    const byString = await shape?.check?.({ connection_string: uri, ca_certificate: server.ca }, directIo(), { testPath: "/" });
    const byFields = await shape?.check?.({ host: "localhost", port: server.port, username: "app", password: PASSWORD, database: "postgres" }, directIo(), { testPath: "/" });
    expect([byString, byFields]).toMatchObject([{ success: true, details: { tls: "verified-ca" } }, { success: true, details: { tls: "unverified" } }]);
  });

  test.each<readonly [string, Partial<PostgresqlTarget>, string, string]>([
    ["a wrong password", { password: "canary" }, "auth", "pg_password_refused"],
    ["a role that does not exist", { username: "canary" }, "auth", "pg_password_refused"],
    ["a password that has expired", { username: "expired" }, "auth", "pg_password_refused"],
    ["a role that may not log in", { username: "group_only" }, "auth", "pg_role_may_not_log_in"],
    ["a role without a connection left", { username: "narrow" }, "connect", "pg_too_many_connections"],
    ["a database that does not exist", { database: "canary" }, "authorization", "pg_database_missing"],
    ["a database that is closed", { database: "closed" }, "authorization", "pg_database_closed"],
    ["a database that was not granted", { database: "private" }, "authorization", "pg_connect_not_granted"],
    ["a CA that is not trusted", { caCertificate: "" }, "tls", "tls_certificate_unknown_authority"],
    ["a name that is not the certificate's", { host: "127.0.0.1" }, "tls", "tls_certificate_wrong_name"],
    ["a CA that cannot be read", { caCertificate: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" }, "tls", "tls_ca_unreadable"],
    ["a port where nothing listens", { port: 1 }, "connect", "connection_refused"],
  ])("tells %s apart", async (_, changes, layer, reason) => {
    expect(await check(changes)).toMatchObject({ success: false, layer, reason });
  });

  test.each<readonly [string, string, Partial<PostgresqlTarget>, string]>([
    ["another address", "host all app 127.0.0.1/32 reject", { sslmode: "disable" }, "pg_host_not_permitted"],
    ["a client certificate", "hostssl all app 127.0.0.1/32 scram-sha-256 clientcert=verify-full", {}, "pg_client_certificate_required"],
    ["the password in clear text, unverified,", "host all app 127.0.0.1/32 password", { sslmode: "require", caCertificate: "" }, "pg_cleartext_refused"],
    ["the password in clear text, without TLS,", "host all app 127.0.0.1/32 password", { sslmode: "disable" }, "pg_cleartext_refused"],
    ["the password in clear text, of the given authority,", "host all app 127.0.0.1/32 password", { sslmode: "verify-ca", host: "127.0.0.1" }, "ok"],
    ["the password in clear text, verified,", "host all app 127.0.0.1/32 password", {}, "ok"],
    ["an MD5 hash, unverified,", "host all old 127.0.0.1/32 md5", { username: "old", sslmode: "require", caCertificate: "" }, "pg_md5_refused"],
    ["an MD5 hash", "host all old 127.0.0.1/32 md5", { username: "old" }, "ok"],
    ["nothing at all", "host all app 127.0.0.1/32 trust", {}, "ok"],
    ["nothing of a role that does not exist", "host all canary 127.0.0.1/32 trust", { username: "canary" }, "pg_role_missing"],
  ])("that asks for %s is understood", async (what, rules, changes, reason) => {
    await server.rules(rules);
    const result = await check(changes);
    expect(result.reason).toBe(reason);
    if (reason === "ok") expect(result.details["password_method"] ?? "none").toBe({ "an MD5 hash": "md5", "nothing at all": "none" }[what] ?? "cleartext");
    await server.rules();
  });

  test("that lets in only the encrypted, or only another network, says so", async () => {
    await server.onlyRules("hostssl all all 127.0.0.1/32 scram-sha-256");
    expect(await check({ sslmode: "disable" })).toMatchObject({ success: false, layer: "tls", reason: "pg_tls_required" });
    await server.onlyRules("host all all 192.0.2.0/24 scram-sha-256");
    expect(await check()).toMatchObject({ success: false, layer: "auth", reason: "pg_host_not_permitted" });
    await server.rules();
  });

  test.each([
    ["expired", "tls_certificate_expired"],
    ["future", "tls_certificate_not_yet_valid"],
    ["otherName", "tls_certificate_wrong_name"],
    ["selfSigned", "tls_certificate_self_signed"],
    ["client", "tls_certificate_invalid"],
  ] as const)("with the certificate '%s' is refused by verify-full as %s, and used by prefer as unverified", async (kind, reason) => {
    await server.certificate(kind);
    expect(await check()).toMatchObject({ success: false, layer: "tls", reason, details: { password_checked: false } });
    expect(await check({ sslmode: "prefer" })).toMatchObject({ success: true, details: { tls: "unverified" } });
    await server.certificate("good");
  });

  test("that is full says so", async () => {
    await server.run("alter role app connection limit 0");
    expect(await check()).toMatchObject({ success: false, reason: "pg_too_many_connections" });
    await server.run("alter role app connection limit -1");
  });
});
