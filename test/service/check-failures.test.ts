import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { connect, createServer as listener, type AddressInfo, type Server, type Socket } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { CheckResult } from "../../src/domain/check.ts";
import { canary } from "../support/canary.ts";
import { closedPort } from "../support/egress.ts";
import { type Disk, mountable, mountDisk } from "../support/mount.ts";
import { runHere, testProber } from "../support/probe-tools.ts";
import { CONFINED, generateKey, type Sshd, sshdAvailable, startSshd } from "../support/sshd.ts";
import { startTlsPostgres, type TlsPostgres } from "../support/tls-postgres.ts";

// One table of failures as users meet them: a real OpenSSH server and a real PostgreSQL that are set up wrongly, each tried as a tenant's test is, behind the guarded
// dialer. In the long form each has a process of its own, as tenants' tests have; else the first failure of each layer does, time apart.

const LONG = process.env["FLOW_TEST_LONG"] !== undefined;
const PASSWORD = canary("password");
/** What a test is told beyond what works. */
type Changes = Readonly<Record<string, unknown>>;

let sshd: Sshd;
let postgres: TlsPostgres;
let tools: ReturnType<typeof testProber>;
/** How a test is run. */
let run: typeof runHere = runHere;
const open: (() => unknown)[] = [];
const seen = new Set<string>();

/** Starts a server for the time of this file; gives its port. */
async function serve(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  open.push(() => server.close());
  return (server.address() as AddressInfo).port;
}

const sftp = async ({ testPath = sshd.path(""), ...changes }: Changes = {}): Promise<CheckResult> => {
  const document = { host: "127.0.0.1", port: sshd.port, username: sshd.username, password: sshd.password, ...changes };
  const credentialType = "private_key_data" in changes ? "key_file" : "user_password";
  return run({ provider: "sftp", credentialType, document, options: { testPath: String(testPath) } });
};
const sql = (changes: Changes = {}): Promise<CheckResult> =>
  run({ document: { host: "127.0.0.1", port: postgres.port, username: "app", password: PASSWORD, database: "postgres", sslmode: "verify-full", ca_certificate: postgres.ca, ...changes } });
/** By a connection string, with more of its parameters. */
const by = (query: string): Promise<CheckResult> =>
  run({ document: { connection_string: `postgresql://app:${PASSWORD}@127.0.0.1:${postgres.port}/postgres?sslmode=verify-full&${query}`, ca_certificate: postgres.ca } });
/** A test that nobody waits long for. */
const impatient = (changes: Changes): Promise<CheckResult> =>
  run({ provider: "sftp", document: { host: "127.0.0.1", username: "user", password: PASSWORD, ...changes } }, 2_500);
/** Tries the user at a server with other settings. */
const at = (lines: readonly string[], changes: Changes = {}) => async () => sftp({ port: await sshd.with(lines), ...changes });
/** Tries under other rules, which end with the attempt. */
const under = (rules: string, attempt: () => Promise<CheckResult> = sql) => async () => {
  await postgres.rules(rules);
  try {
    return await attempt();
  } finally {
    await postgres.rules();
  }
};
const withCertificate = (kind: Parameters<TlsPostgres["certificate"]>[0]) => async () => {
  await postgres.certificate(kind);
  try {
    return await sql();
  } finally {
    await postgres.certificate("address");
  }
};
/** Tries with a setting of the server that is undone afterwards. */
const set = (setting: string, value: string, attempt: () => Promise<CheckResult> = sql) => async () => {
  await postgres.run(`alter system set ${setting} = ${value}`);
  await postgres.rules();
  try {
    return await attempt();
  } finally {
    await postgres.run(`alter system set ${setting} = default`);
    await postgres.rules();
  }
};
async function withoutTls(): Promise<CheckResult> {
  await postgres.run("alter system set ssl = off");
  await postgres.rules();
  try {
    return await sql();
  } finally {
    await postgres.run("alter system set ssl = on");
    await postgres.rules();
  }
}
const UNVERIFIED = { sslmode: "require", ca_certificate: undefined };
const ONLY_OLD = { kex: "KexAlgorithms diffie-hellman-group14-sha1", cipher: "Ciphers aes256-cbc", ctr: "Ciphers aes256-ctr", mac: "MACs hmac-sha1" };
const pem = (kind: "ed25519" | "secp256k1"): string =>
  kind === "ed25519"
    ? generateKeyPairSync("ed25519").privateKey.export({ format: "pem", type: "pkcs8" }).toString()
    : generateKeyPairSync("ec", { namedCurve: "secp256k1" }).privateKey.export({ format: "pem", type: "sec1" }).toString();

/** A server that holds its only place for somebody else. */
async function crowded(): Promise<CheckResult> {
  const port = await sshd.with([...CONFINED, "MaxStartups 1:100:1"]);
  const first: Socket = connect(port, "127.0.0.1");
  await new Promise((resolve) => first.once("data", resolve));
  try {
    return await sftp({ port });
  } finally {
    first.destroy();
  }
}

/** A file system of its own below the served folder. */
async function onDisk(then: (disk: Disk) => unknown): Promise<CheckResult> {
  await using disk = mountDisk(sshd.path("mounted"));
  await then(disk);
  return await sftp({ testPath: disk.folder });
}

const locked = generateKey("ed25519", "correct horse");
const SSH: readonly (readonly [what: string, run: () => Promise<CheckResult>, layer: string, reason: string])[] = [
  ["an address inside", () => sftp({ host: "169.254.169.254" }), "address", "address_not_allowed"],
  ["a port where nothing listens", async () => sftp({ port: await closedPort() }), "connect", "connection_refused"],
  ["a web server", async () => sftp({ port: await serve(createServer()) }), "protocol", "http_instead_of_ssh"],
  ["a server for FTP", async () => sftp({ port: await serve(listener((socket) => void socket.on("error", () => {}).write("220 FTP ready\r\n"))) }), "protocol", "ftp_instead_of_ssh"],
  ["a server that is silent", async () => impatient({ port: await serve(listener((socket) => void socket.on("error", () => {}))) }), "timeout", "ssh_banner_timed_out"],
  ["a server that hangs up", async () => sftp({ port: await serve(listener((socket) => socket.end())) }), "connect", "ssh_banner_closed"],
  ["an OpenSSH that is crowded", crowded, "connect", "ssh_too_many_connections"],
  ["old key exchanges alone", at([...CONFINED, ONLY_OLD.kex]), "protocol", "ssh_no_common_key_exchange"],
  ["old host keys alone", async () => at([...CONFINED, `HostKey ${(await sshd.makeHostKey("rsa")).file}`, "HostKeyAlgorithms ssh-rsa"])(), "protocol", "ssh_no_common_host_key"],
  ["old ciphers alone", at([...CONFINED, ONLY_OLD.cipher]), "protocol", "ssh_no_common_cipher"],
  ["old message authentication alone", at([...CONFINED, ONLY_OLD.ctr, ONLY_OLD.mac]), "protocol", "ssh_no_common_mac"],
  ["another host key than the pinned one", () => sftp({ host_key_fingerprint: `SHA256:${"A".repeat(43)}` }), "host_key", "host_key_changed"],
  ["a wrong password", () => sftp({ password: "wrong" }), "auth", "ssh_password_refused"],
  ["a user who may not log in", at([...CONFINED, "DenyUsers *"]), "auth", "ssh_password_refused"],
  ["keys alone", at([...CONFINED, "PasswordAuthentication no"]), "auth", "ssh_password_not_offered"],
  ["passwords alone", at([...CONFINED, "PubkeyAuthentication no"], { private_key_data: pem("ed25519") }), "auth", "ssh_key_not_offered"],
  ["a key that is not authorized", () => sftp({ private_key_data: pem("ed25519") }), "auth", "ssh_key_refused"],
  ["a key of a curve that SSH does not know", () => sftp({ private_key_data: pem("secp256k1") }), "auth", "key_unusable"],
  ["half a key", () => sftp({ private_key_data: pem("ed25519").slice(0, 60) }), "auth", "key_unreadable"],
  ["an encrypted key without its passphrase", async () => sftp({ private_key_data: (await locked).privateKey }), "auth", "key_passphrase_missing"],
  ["an encrypted key with another passphrase", async () => sftp({ private_key_data: (await locked).privateKey, private_key_passphrase: "wrong" }), "auth", "key_passphrase_wrong"],
  ["a second factor", at([...CONFINED, "AuthenticationMethods password,publickey"]), "auth", "ssh_more_factors_required"],
  ["one attempt alone", at([...CONFINED, "MaxAuthTries 1"], { password: "wrong" }), "auth", "ssh_too_many_failures"],
  ["no session", at([...CONFINED, "MaxSessions 0"]), "authorization", "ssh_session_refused"],
  ["no SFTP", at([]), "authorization", "sftp_subsystem_missing"],
  ["a shell that prints something", at(["Subsystem sftp /usr/lib/openssh/sftp-server"]), "protocol", "sftp_start_garbled"],
  ["a root folder that OpenSSH does not accept", at([...CONFINED, "ChrootDirectory /tmp"]), "authorization", "sftp_start_closed"],
  ["a folder that does not exist", () => sftp({ testPath: sshd.path("missing") }), "authorization", "sftp_path_missing"],
  ["a file in place of the folder", () => sftp({ testPath: sshd.path("a.txt") }), "authorization", "sftp_path_not_a_folder"],
  ["a folder that may not be read", () => sftp({ testPath: "/root" }), "authorization", "sftp_list_not_permitted"],
  ["a folder that may not be written", () => sftp({ testPath: "/" }), "authorization", "sftp_write_not_permitted"],
  ["files that may not be removed", at(["Subsystem sftp internal-sftp -P remove", "ForceCommand internal-sftp -P remove"]), "authorization", "sftp_remove_not_permitted"],
  ["a folder that the server will not open", at(["Subsystem sftp internal-sftp -P opendir", "ForceCommand internal-sftp -P opendir"]), "authorization", "sftp_list_not_permitted"],
];

const MOUNTED: typeof SSH = [
  ["a full disk", () => onDisk((disk) => disk.fill()), "authorization", "sftp_disk_full"],
  ["a disk that is read-only", () => onDisk((disk) => disk.protect()), "authorization", "sftp_read_only"],
];

const SQL: typeof SSH = [
  ["a web server", async () => sql({ port: await serve(createServer()) }), "protocol", "not_a_postgresql_server"],
  ["no TLS", withoutTls, "tls", "pg_tls_not_offered"],
  ["old TLS alone", set("ssl_max_protocol_version", "'TLSv1.2'", () => by("ssl_min_protocol_version=TLSv1.3")), "tls", "tls_version_not_supported"],
  ["an authority that is not trusted", () => sql({ ca_certificate: postgres.otherCa }), "tls", "tls_certificate_unknown_authority"],
  ["a CA certificate that cannot be read", () => sql({ ca_certificate: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" }), "tls", "tls_ca_unreadable"],
  ["a certificate for another name", withCertificate("otherName"), "tls", "tls_certificate_wrong_name"],
  ["a certificate that has expired", withCertificate("expired"), "tls", "tls_certificate_expired"],
  ["a certificate of the future", withCertificate("future"), "tls", "tls_certificate_not_yet_valid"],
  ["a certificate that signed itself", withCertificate("selfSigned"), "tls", "tls_certificate_self_signed"],
  ["a certificate for clients", withCertificate("client"), "tls", "tls_certificate_invalid"],
  ["a wrong password", () => sql({ password: "wrong" }), "auth", "pg_password_refused"],
  ["no password", () => sql({ password: "" }), "auth", "pg_password_missing"],
  ["a role that may not log in", () => sql({ username: "group_only" }), "auth", "pg_role_may_not_log_in"],
  ["a role that does not exist, where nobody asks for a password", under("host all ghost 127.0.0.1/32 trust", () => sql({ username: "ghost" })), "auth", "pg_role_missing"],
  ["a rule that keeps us out", under("host all app 127.0.0.1/32 reject"), "auth", "pg_host_not_permitted"],
  ["a rule for TLS alone", async () => {
    await postgres.onlyRules("hostssl all all 127.0.0.1/32 scram-sha-256");
    try {
      return await sql({ sslmode: "disable" });
    } finally {
      await postgres.rules();
    }
  }, "tls", "pg_tls_required"],
  ["a rule that asks for a client certificate", under("hostssl all app 127.0.0.1/32 scram-sha-256 clientcert=verify-full"), "auth", "pg_client_certificate_required"],
  ["a rule that asks an ident server", under("host all app 127.0.0.1/32 ident"), "auth", "pg_login_refused"],
  ["a rule for passwords in clear text", under("host all app 127.0.0.1/32 password", () => sql(UNVERIFIED)), "auth", "pg_cleartext_refused"],
  ["a rule for MD5", under("host all old 127.0.0.1/32 md5", () => sql({ ...UNVERIFIED, username: "old" })), "auth", "pg_md5_refused"],
  ["SCRAM that is too cheap", () => sql({ ...UNVERIFIED, username: "cheap" }), "auth", "pg_scram_too_cheap"],
  ["SCRAM that is too costly", () => sql({ username: "costly" }), "auth", "pg_scram_too_costly"],
  ["a password in clear text where the login was to be bound", under("host all app 127.0.0.1/32 password", () => by("channel_binding=require")), "auth", "pg_channel_binding_missing"],
  ["a database that does not exist", () => sql({ database: "missing" }), "authorization", "pg_database_missing"],
  ["a database that takes no connections", () => sql({ database: "closed" }), "authorization", "pg_database_closed"],
  ["a database that was not granted", () => sql({ database: "private" }), "authorization", "pg_connect_not_granted"],
  ["a role without a connection left", () => sql({ username: "narrow" }), "connect", "pg_too_many_connections"],
  ["a server that cannot load what the role asks for", () => sql({ username: "broken" }), "protocol", "pg_server_error"],
];

const LAST: typeof SQL = [
  ["a server that is shutting down", async () => {
    await postgres.shutDown();
    return sql();
  }, "connect", "pg_shutting_down"],
];

beforeAll(async () => {
  tools = testProber();
  postgres = await startTlsPostgres();
  await postgres.certificate("address");
  const stored = (rounds: number) => `SCRAM-SHA-256$${rounds}:c2FsdHNhbHRzYWx0c2FsdA==$${Buffer.alloc(32, 1).toString("base64")}:${Buffer.alloc(32, 2).toString("base64")}`;
  await postgres.run(
    `create role app login password '${PASSWORD}'`,
    `create role group_only nologin password '${PASSWORD}'`,
    `create role narrow login password '${PASSWORD}' connection limit 0`,
    `create role cheap login password '${stored(1)}'`,
    `create role costly login password '${stored(1_000_001)}'`,
    `create role broken login password '${PASSWORD}'`,
    "alter role broken set session_preload_libraries = 'missing'",
    "set password_encryption = 'md5'",
    `create role old login password '${PASSWORD}'`,
    "create database closed allow_connections false",
    "create database private",
    "revoke connect on database private from public",
  );
  if (await sshdAvailable()) sshd = await startSshd({ files: { "a.txt": "content" } });
});
afterAll(async () => {
  for (const close of open) close();
  await tools[Symbol.asyncDispose]();
  await sshd?.stop();
  await postgres.stop();
});

const told = (rows: typeof SSH) =>
  test.each(rows)("%s", async (what, attempt, layer, reason) => {
    run = LONG || (layer !== "timeout" && rows.find((row) => row[2] === layer)?.[0] === what) ? (task) => tools.run(task) : runHere;
    const result = await attempt();
    expect(result).toMatchObject({ success: false, layer, reason, message: expect.stringMatching(/\.$/), nextStep: expect.stringMatching(/\.$/) });
    expect(JSON.stringify(result)).not.toContain(PASSWORD);
    seen.add(reason);
  });

describe.runIf(await sshdAvailable())("a test of SFTP tells", () => {
  told(SSH);
});
describe.runIf((await sshdAvailable()) && mountable())("a test of SFTP tells", () => {
  told(MOUNTED);
});
describe.runIf(await sshdAvailable())("a server with several host keys", () => {
  test("passes with the pin of any of them, says which is not shown first, and sends no login before it is the pinned one", async () => {
    const keys = await Promise.all((["ed25519", "ecdsa", "rsa"] as const).map((kind) => sshd.makeHostKey(kind)));
    const port = await sshd.with([...CONFINED, ...keys.map(({ file }) => `HostKey ${file}`)]);
    for (const [index, { fingerprint }] of keys.entries()) {
      const result = await sftp({ port, host_key_fingerprint: fingerprint });
      expect(result).toMatchObject({ success: true, details: { host_key_fingerprint: fingerprint, host_key_pinned: true } });
      expect(result.message.includes("not the one that the server shows first")).toBe(index > 0);
    }
    const [, , rsa] = keys;
    expect(await sftp({ port, host_key_fingerprint: rsa?.fingerprint, password: "wrong" })).toMatchObject({ layer: "auth", reason: "ssh_password_refused" });
    expect(await sftp({ port, host_key_fingerprint: `SHA256:${"A".repeat(43)}` })).toMatchObject({ layer: "host_key", reason: "host_key_changed", details: { credential_checked: false } });
  });
});
test("a connection string decides whether the login is bound to its encryption", async () => {
  expect(await by("channel_binding=disable")).toMatchObject({ success: true, details: { channel_binding: false } });
  expect(await by("channel_binding=require")).toMatchObject({ success: true, details: { channel_binding: true } });
});
describe("a test of PostgreSQL tells", () => {
  told(SQL);
  told(LAST);
});

test.runIf(await sshdAvailable())("more than forty failures are told apart", () => {
  expect(seen.size).toBeGreaterThanOrEqual(55);
});
