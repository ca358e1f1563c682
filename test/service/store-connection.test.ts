import { chownSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import pg from "pg";
import { generate } from "selfsigned";
import { describe, expect, test } from "vitest";
import { cancelUntil } from "../../src/store/cancel.ts";
import { parseDatabaseUrl } from "../../src/store/connection.ts";
import { startEmbedded } from "../../src/store/embedded.ts";
import { freePort } from "../support/wire.ts";

describe("a database URL", () => {
  const parsed = (url: string, caFile?: string) => {
    const { host, port, user, database, password, ssl } = parseDatabaseUrl(url, caFile);
    return { host, port, user, database, password: password(), ssl };
  };

  test("is read into fields, percent-encoding included", () => {
    expect(parsed("postgresql://app:p%40ss%2Fw@db.example:6432/flow%20db?sslmode=verify-full")).toEqual({
      host: "db.example", port: 6432, user: "app", database: "flow db", password: "p@ss/w", ssl: { host: "db.example", rejectUnauthorized: true },
    });
    expect(parsed("postgres://app@[::1]/db")).toMatchObject({ host: "::1", port: 5432, password: "", ssl: false });
    expect(parsed("postgresql://app@/db?host=%2Frun%2Fpg&port=6000")).toMatchObject({ host: "/run/pg", port: 6000, database: "db" });
    expect(parsed("postgresql://app@db.example")).toMatchObject({ database: "app" });
  });

  test("that is malformed, unknown in part, or would fall back to plaintext is refused, and never quoted", () => {
    const faults = [
      "mysql://app:canary@h/db", "postgresql://app:can@ary@h/db", "postgresql://:canary@h/db", "postgresql://app:canary@h:99999/db", "postgresql://app:%zzcanary@h/db",
      "postgresql://app:canary@h/db?sslmode=prefer", "postgresql://app:canary@h/db?options=-c%20role%3Dpostgres", "postgresql://app:canary@h/db?sslrootcert=/etc/passwd",
    ];
    for (const url of faults) {
      let message = "";
      try {
        parseDatabaseUrl(url);
      } catch (error) {
        message = (error as Error).message;
      }
      expect(message, url).toMatch(/database URL/);
      expect(message, url).not.toMatch(/canary|passwd/);
    }
  });

  test("prints without its password", () => {
    const fields = parseDatabaseUrl("postgresql://app:canary@h/db");
    expect(`${JSON.stringify(fields)} ${String(Object.values(fields))}`).not.toContain("canary");
  });
});

test("a connection with a certificate authority is encrypted, one that cancels too, and refused where certificate or name is another", async () => {
  const folder = mkdtempSync("/tmp/flow-tls-");
  const outside = mkdtempSync("/tmp/flow-tls-files-");
  const certificate = await generate([{ name: "commonName", value: "localhost" }], { extensions: [{ name: "subjectAltName", altNames: [{ type: 2, value: "localhost" }] }] });
  const stranger = await generate([{ name: "commonName", value: "localhost" }]);
  const write = (name: string, text: string): string => {
    const at = path.join(folder, name);
    writeFileSync(at, text, { mode: 0o600 });
    if (process.getuid?.() === 0) chownSync(at, 65_534, 65_534);
    return at;
  };
  const authority = path.join(outside, "ca.pem");
  writeFileSync(authority, certificate.cert);
  writeFileSync(path.join(outside, "stranger.pem"), stranger.cert);
  const port = await freePort();
  const server = await startEmbedded(folder, {
    settings: {
      fsync: "off",
      listen_addresses: "127.0.0.1",
      port: String(port),
      ssl: "on",
      ssl_cert_file: write("server.crt", certificate.cert),
      ssl_key_file: write("server.key", certificate.private),
      hba_file: write("hba.conf", "local all all trust\nhostssl all all 127.0.0.1/32 trust\n"),
    },
  });
  const attempt = async (host: string, caFile?: string) => {
    const client = new pg.Client(parseDatabaseUrl(`postgresql://credentials_app@${host}:${port}/flow_credentials`, caFile));
    client.on("error", () => {});
    try {
      await client.connect();
      return (await client.query("select ssl from pg_stat_ssl where pid = pg_backend_pid()")).rows;
    } catch (error) {
      return (error as { code?: string }).code;
    } finally {
      await client.end().catch(() => {});
    }
  };
  expect(await attempt("localhost", authority)).toEqual([{ ssl: true }]);
  expect(await attempt("localhost", path.join(outside, "stranger.pem"))).toMatch(/SELF_SIGNED|VERIFY|ISSUER/);
  expect(await attempt("127.0.0.1", authority)).toBe("ERR_TLS_CERT_ALTNAME_INVALID");
  expect(await attempt("localhost")).toBe("28000");

  const fields = parseDatabaseUrl(`postgresql://credentials_app@localhost:${port}/flow_credentials`, authority);
  const client = new pg.Client({ ...fields });
  await client.connect();
  const done = new AbortController();
  const cancelling = cancelUntil(done.signal, fields, client);
  await expect(client.query("select pg_sleep(60)")).rejects.toMatchObject({ code: "57014" });
  done.abort();
  await cancelling;
  await client.end();
  await server.stop();
  for (const at of [folder, outside]) rmSync(at, { recursive: true, force: true });
});
