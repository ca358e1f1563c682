import { expect, test } from "vitest";
import { canary } from "../support/canary.ts";
import { testProber } from "../support/probe-tools.ts";
import { startTlsPostgres } from "../support/tls-postgres.ts";

const PASSWORD = canary("password");

test("a real PostgreSQL is tried over verified TLS with SCRAM", async () => {
  const server = await startTlsPostgres();
  try {
    await server.run(`create role app login password '${PASSWORD}'`);
    await using it = testProber();
    const result = await it.run({
      document: { host: "127.0.0.1", port: server.port, username: "app", password: PASSWORD, database: "postgres", sslmode: "verify-ca", ca_certificate: server.ca },
    });
    expect(result).toMatchObject({ success: true, reason: "ok", details: { tls: "verified-ca", password_method: "scram-sha-256", can_select: true } });
    expect(JSON.stringify(result)).not.toContain(PASSWORD);
  } finally {
    await server.stop();
  }
});
