import { generateKeyPairSync } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { canary } from "../support/canary.ts";
import { closedPort } from "../support/egress.ts";
import { answerOf, hangUp, login, OK, postgresServer, READY } from "../support/hostile-postgres.ts";
import { acceptAll, sshServer } from "../support/hostile-ssh.ts";
import { listen } from "../support/hostile-tcp.ts";
import { runHere, testProber } from "../support/probe-tools.ts";

const LONG = process.env["FLOW_TEST_LONG"] !== undefined;
const PASSWORD = canary("password");
const POISON = canary("environment");
const NAMES = ["PGPASSWORD", "PGUSER", "PGHOST", "PGPORT", "PGDATABASE", "PGOPTIONS", "PGSSLMODE", "PGSSLROOTCERT", "PGAPPNAME", "SSH_AUTH_SOCK", "USER", "HTTPS_PROXY"];
const saved = new Map(NAMES.map((name) => [name, process.env[name]]));
let tools: ReturnType<typeof testProber>;
beforeAll(() => {
  for (const name of NAMES) process.env[name] = POISON;
  tools = testProber();
});
afterAll(async () => {
  await tools[Symbol.asyncDispose]();
  for (const [name, value] of saved) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
});

const database = (port: number, more: Record<string, unknown> = {}) => ({ document: { host: "127.0.0.1", port, username: "user", password: PASSWORD, database: "db", sslmode: "disable", ...more } });
const files = (port: number, more: Record<string, unknown> = {}) => ({ provider: "sftp" as const, document: { host: "127.0.0.1", port, username: "user", password: PASSWORD, ...more } });
/** Asks for the password as it is, and refuses it. */
const CLEARTEXT = login(3);

describe("a real test in its process", () => {
  test("logs in to an SFTP server with a password, lists, writes and removes", async () => {
    await using server = await sshServer({ login: acceptAll });
    const result = await tools.run(files(server.port));
    expect(result).toMatchObject({ success: true, layer: null, reason: "ok", nextStep: "" });
    expect(server.passwords).toEqual([PASSWORD]);
    expect(JSON.stringify(result)).not.toContain(PASSWORD);
  });

  test("logs in with a private key", async () => {
    await using server = await sshServer({ login: acceptAll });
    const privateKey = generateKeyPairSync("ed25519").privateKey.export({ format: "pem", type: "pkcs8" }).toString();
    expect(await tools.run({ ...files(server.port, { private_key_data: privateKey }), credentialType: "key_file" })).toMatchObject({ success: true });
    expect(server.methods).toContain("publickey");
  });

  test.each(["chacha20-poly1305@openssh.com", "aes256-gcm@openssh.com"])("speaks %s without native code", async (cipher) => {
    await using server = await sshServer({ login: acceptAll, config: { algorithms: { cipher: [cipher] } } as never });
    expect(await tools.run(files(server.port))).toMatchObject({ success: true });
  });

  test("sends nothing of the service's environment to a server", async () => {
    await using server = await postgresServer(Buffer.concat([OK, READY]), answerOf("1"), hangUp);
    await using ssh = await sshServer({ login: acceptAll });
    await Promise.all([tools.run(database(server.port)), tools.run(files(ssh.port))]);
    for (const { heard } of [server, ssh]) expect([heard().length > 0, heard().includes(POISON)]).toEqual([true, false]);
    expect(server.heard().includes("user\0user\0database\0db\0")).toBe(true);
  });

  test("with an empty password does not send another one", async () => {
    await using server = await postgresServer(CLEARTEXT, OK);
    expect(await tools.run(database(server.port, { password: "" }))).toMatchObject({ success: false });
    expect(server.heard().includes(POISON)).toBe(false);
  });

  test("says what has no test", async () => {
    expect(await tools.run({ provider: "sftp", credentialType: "api_key", document: {} })).toMatchObject({ success: false, reason: "not_supported" });
  });
});

describe("the way out of a test", () => {
  const REFUSED: readonly (readonly [host: string, reason: string])[] = [
    ["10.0.0.1", "address_not_allowed"], ["169.254.169.254", "address_not_allowed"], ["::1", "address_not_allowed"], ["[::ffff:127.0.0.1]", "address_not_allowed"],
    // What the text alone says is told.
    ["0x7f000001", "host_malformed"], ["2130706433", "host_malformed"], ["127.1", "host_malformed"], ["localhost\0.example.com", "host_malformed"], ["/var/run/postgresql", "host_malformed"],
  ];
  // The short form starts a process for the first of each kind.
  test.each(REFUSED)("to %j is refused as %s", async (host, reason) => {
    const apart = LONG || REFUSED.find((row) => row[1] === reason)?.[0] === host;
    expect(await (apart ? tools.run : runHere)(files(22, { host }))).toMatchObject({ success: false, layer: "address", reason });
  });

  test("to a port that is not listed for its provider is refused as that", async () => {
    await using it = testProber({ egress: { profile: "development", allow: ["127.0.0.0/8"], ports: { sftp: [22] } } });
    expect(await it.run(files(25))).toMatchObject({ success: false, layer: "address", reason: "port_not_allowed" });
  });

  test("to a network behind NAT64 of its own is refused", async () => {
    await using it = testProber({ egress: { profile: "development", allow: ["127.0.0.0/8"], nat64: ["2001:470:1:1::/96"], ports: {} } });
    expect(await it.run(files(22, { host: "2001:470:1:1::a9fe:a9fe" }))).toMatchObject({ layer: "address", reason: "address_not_allowed" });
  });

  test("is closed to loopback in production, and nothing arrives there", async () => {
    await using it = testProber({ egress: { profile: "production", allow: [], ports: {} } });
    await using server = await postgresServer(OK);
    expect(await it.run(database(server.port))).toMatchObject({ layer: "address", reason: "address_not_allowed" });
    expect(server.heard()).toHaveLength(0);
  });

  test("to a port where nobody listens says so", async () => {
    expect(await tools.run(database(await closedPort()))).toMatchObject({ layer: "connect", reason: "connection_refused" });
  });

  test("ends in silence before the deadline with the test's own words", async () => {
    await using server = await listen(() => {});
    const result = await tools.run(database(server.port));
    expect(result).toMatchObject({ success: false, layer: "timeout" });
    expect(result.reason).not.toBe("deadline_exceeded");
  });
});
