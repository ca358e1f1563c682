import { execFile } from "node:child_process";
import { accessSync, constants, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { answerOf, login, OK, postgresServer, READY, SCRAM } from "../support/hostile-postgres.ts";
import { acceptAll, sshServer } from "../support/hostile-ssh.ts";

/** Debian's strace; without it nothing here can be shown. */
function traceable(): boolean {
  try {
    accessSync("/usr/bin/strace", constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Documents that name files, in every place where a driver, or a careless reader of ours, might look for one. */
const documents = (file: string, ports: { sql: number; ssh: number }): readonly (readonly [provider: string, type: string, document: object])[] => {
  const database = { host: "127.0.0.1", port: ports.sql, username: "user", password: "p", database: "d", sslmode: "prefer" };
  const files = { host: "127.0.0.1", port: ports.ssh, username: "user", password: "p" };
  const uri = (query: string) => ({ connection_string: `postgresql://user:p@127.0.0.1:${ports.sql}/d?${query}` });
  const path = encodeURIComponent(file);
  return [
    ...["sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile", "service", "servicefile", "host", "hostaddr", "options", "krbsrvname"].map((name) => ["postgresql", "user_password", uri(`${name}=${path}`)] as const),
    ["postgresql", "user_password", { connection_string: `host=${file} user=user password=p dbname=d` }],
    ["postgresql", "user_password", { connection_string: `postgresql://user:p@${path}/d` }],
    ["postgresql", "user_password", { ...database, host: file }],
    ["postgresql", "user_password", { ...database, database: file, username: file }],
    ["postgresql", "user_password", { ...database, ca_certificate: file }],
    ["postgresql", "user_password", { ...database, ssl: { ca: file }, sslrootcert: file, passfile: file, stream: file }],
    ["sftp", "key_file", { ...files, private_key_data: file, private_key_passphrase: file }],
    ["sftp", "user_password", { ...files, host: file }],
    ["sftp", "user_password", { ...files, agent: file, privateKey: file, identity_file: file, localHostname: file }],
    ["aws_ses", "api_key", { access_key_id: "AKIAIOSFODNN7EXAMPLE", secret_access_key: "s", region: "eu-central-1", credential_source: file, web_identity_token_file: file, profile: file }],
    ["google", "google_oauth", { access_token: "t", type: "external_account", credential_source: { file } }],
    ["microsoft", "oauth2", { access_token: "t", client_certificate_path: file, tenant_id: file }],
  ];
};

describe.runIf(traceable())("with every system call on record", () => {
  test("no file and no socket that a tenant names is opened, by this process or a test's", async () => {
    const folder = mkdtempSync(join(tmpdir(), "flow-trace-"));
    await using sql = await postgresServer(Buffer.from("N"), SCRAM, login(0), Buffer.concat([OK, READY]), answerOf("1"));
    await using ssh = await sshServer({ login: acceptAll });
    const named = join(folder, "named-by-tenant");
    const [marker, trace, script] = [join(folder, "named-by-us"), join(folder, "trace"), join(folder, "script.ts")];
    try {
      for (const file of [named, marker]) writeFileSync(file, "content");
      const tools = new URL("../support/probe-tools.ts", import.meta.url).href;
      const index = new URL("../../src/providers/index.ts", import.meta.url).href;
      writeFileSync(
        script,
        `import { readFileSync } from "node:fs";
         import { accept } from ${JSON.stringify(index)};
         import { testProber } from ${JSON.stringify(tools)};
         readFileSync(${JSON.stringify(marker)});
         const it = testProber({ maxPerOrganization: 4 });
         const options = { now: new Date(), fairness: "one", signal: new AbortController().signal };
         const outcomes = [];
         for (const [provider, credentialType, document] of ${JSON.stringify(documents(named, { sql: sql.port, ssh: ssh.port }))}) {
           // What the rules refuse is tried all the same: the drivers must not open it either.
           const accepted = await accept(provider, credentialType, document, options).then((it) => it.document, () => undefined);
           for (const tried of [document, ...(accepted ? [accepted] : [])]) outcomes.push((await it.run({ provider, credentialType, document: tried, options: { testPath: "/" } })).reason);
         }
         await it.prober.close();
         console.log(JSON.stringify(outcomes));`,
      );
      // The kernel lets all other calls pass, which would take most of the time.
      const strace = ["-f", "--seccomp-bpf", "-qq", "-s", "256", "-e", "trace=%file,connect,bind", "-o", trace, process.execPath, script];
      const { stdout } = await promisify(execFile)("/usr/bin/strace", strace, { env: { PATH: process.env["PATH"] }, maxBuffer: 64 * 1024 * 1024 });
      expect((JSON.parse(stdout) as string[]).length).toBeGreaterThanOrEqual(24);
      const calls = readFileSync(trace, "utf8");
      // The record shows what it should: a file of ours, and the connections to the servers.
      expect(calls).toContain(`"${marker}"`);
      expect(calls).toContain(`sin_port=htons(${ssh.port})`);
      expect(calls.split("\n").filter((line) => line.includes("named-by-tenant"))).toEqual([]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  }, 120_000);
});
