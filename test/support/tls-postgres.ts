import { mkdtempSync, readFileSync, rmSync, writeFileSync, chmodSync, chownSync } from "node:fs";
import { isIP } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { generate } from "selfsigned";
import { startEmbedded } from "../../src/store/embedded.ts";
import { identity } from "../../src/store/embedded-binaries.ts";
import { connectionOf } from "./postgres.ts";
import { freePort } from "./wire.ts";

/** A PostgreSQL that listens on loopback with TLS and asks for passwords. */
export interface TlsPostgres {
  readonly port: number;
  /** The authority that signed all but the self-signed certificate, and one that signed none; PEM. */
  readonly ca: string;
  readonly otherCa: string;
  /** Runs statements as the superuser. */
  run(...statements: string[]): Promise<void>;
  /** Puts rules before all others in pg_hba.conf and reloads. */
  rules(...lines: string[]): Promise<void>;
  /** Leaves no other rules for TCP in pg_hba.conf and reloads. */
  onlyRules(...lines: string[]): Promise<void>;
  /** Begins a shutdown that waits for the superuser's session, which stays open: nobody else gets in any more. */
  shutDown(): Promise<void>;
  /** Serves another certificate. */
  certificate(kind: "good" | "address" | "expired" | "future" | "otherName" | "selfSigned" | "client"): Promise<void>;
  stop(): Promise<void>;
}

const DAY_MS = 24 * 60 * 60 * 1000;

/** Whom a certificate is for, from which day to which day from now, and for what. */
const KINDS = {
  good: ["localhost", -1, 1, "serverAuth"],
  address: ["127.0.0.1", -1, 1, "serverAuth"],
  expired: ["localhost", -9, -1, "serverAuth"],
  future: ["localhost", 8, 9, "serverAuth"],
  otherName: ["elsewhere.test", -1, 1, "serverAuth"],
  client: ["localhost", -1, 1, "clientAuth"],
} as const;

/** Makes an authority, and one that nothing comes from, and a server's certificate of each kind. */
async function makeCertificates() {
  const named = (value: string) => [{ name: "commonName", value }];
  const authority = (name: string) =>
    generate(named(name), {
      keyType: "ec",
      algorithm: "sha256",
      extensions: [{ name: "basicConstraints", cA: true, critical: true }, { name: "keyUsage", keyCertSign: true, critical: true }],
    });
  const [ca, otherCa] = [await authority("ca"), await authority("other ca")];
  const made = new Map<string, { private: string; cert: string }>();
  for (const [kind, [host, from, to, usage]] of Object.entries(KINDS)) {
    const certificate = await generate(named(host), {
      keyType: "ec",
      algorithm: "sha256",
      notBeforeDate: new Date(Date.now() + from * DAY_MS),
      notAfterDate: new Date(Date.now() + to * DAY_MS),
      ca: { key: ca.private, cert: ca.cert },
      extensions: [{ name: "extKeyUsage", [usage]: true }, { name: "subjectAltName", altNames: [isIP(host) === 0 ? { type: 2, value: host } : { type: 7, ip: host }] }],
    });
    made.set(kind, certificate);
  }
  made.set("selfSigned", await generate(named("localhost"), { keyType: "ec", algorithm: "sha256" }));
  return { made, ca: ca.cert, otherCa: otherCa.cert };
}

/** Starts one, with everyone asked for a SCRAM password over TCP. */
export async function startTlsPostgres(): Promise<TlsPostgres> {
  const folder = mkdtempSync(join(tmpdir(), "flow-test-tls-pg-"));
  chmodSync(folder, 0o711);
  const certificates = await makeCertificates();
  const files = ["server.crt", "server.key", "hba.conf"].map((name) => join(folder, name));
  const place = (name: string, text: string) => {
    writeFileSync(join(folder, name), text, { mode: 0o600 });
    if (identity.uid !== undefined && identity.gid !== undefined) chownSync(join(folder, name), identity.uid, identity.gid);
  };
  const serve = (kind: string) => {
    const certificate = certificates.made.get(kind);
    place("server.crt", certificate?.cert ?? "");
    place("server.key", certificate?.private ?? "");
  };
  const [LOCAL, TCP] = ["local all all trust", "host all all 127.0.0.1/32 scram-sha-256"];
  place("ca.pem", certificates.ca);
  place("hba.conf", `${LOCAL}\n${TCP}\n`);
  serve("good");
  const port = await freePort();
  const server = await startEmbedded(join(folder, "data"), {
    settings: { listen_addresses: "127.0.0.1", port: String(port), ssl_cert_file: files[0] ?? "", ssl_key_file: files[1] ?? "", ssl_ca_file: join(folder, "ca.pem"),
      hba_file: files[2] ?? "", fsync: "off", max_connections: "20", password_encryption: "scram-sha-256" },
  });
  const superuser = new pg.Client(connectionOf(server.superuserUrl));
  superuser.on("error", () => {});
  await superuser.connect();
  const run = async (...statements: string[]) => {
    for (const statement of statements) await superuser.query(statement);
  };
  const reload = async () => {
    const loaded = async () => (await superuser.query("select pg_conf_load_time()::text as at")).rows[0]?.at as string;
    const before = await loaded();
    await run("select pg_reload_conf()");
    while ((await loaded()) === before) await new Promise((resolve) => setTimeout(resolve, 5));
    // The postmaster, which takes connections, reads its files a moment before or after this session does.
    await new Promise((resolve) => setTimeout(resolve, 100));
  };
  // Not on the command line, which nothing said later overrides.
  await run("alter system set ssl = on");
  await reload();
  return {
    port,
    ca: certificates.ca,
    otherCa: certificates.otherCa,
    run,
    async rules(...lines) {
      place("hba.conf", `${[...lines, LOCAL, TCP].join("\n")}\n`);
      await reload();
    },
    async onlyRules(...lines) {
      place("hba.conf", `${[...lines, LOCAL].join("\n")}\n`);
      await reload();
    },
    async shutDown() {
      const pid = Number(readFileSync(join(server.dataDir, "postmaster.pid"), "utf8").split("\n")[0]);
      process.kill(pid, "SIGTERM");
    },
    async certificate(kind) {
      serve(kind);
      await reload();
    },
    async stop() {
      await superuser.end();
      await server.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
