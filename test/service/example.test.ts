import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { rest, startFresh, temporaryFolder, token } from "../support/service.ts";
import { sshdAvailable, startSshd, type Sshd } from "../support/sshd.ts";

const run = promisify(execFile);
const available = await sshdAvailable();
const CSV = 'id,remark\r\n1,"two\r\nlines"\r\n2,"a ""quoted"" word"\r\n3,last';

describe.skipIf(!available)("the example executor (needs the Debian package openssh-server, and root)", () => {
  const organization = randomUUID();
  let service: Awaited<ReturnType<typeof startFresh>>;
  let sshd: Sshd;
  let user: string;
  let machine: string;

  beforeAll(async () => {
    [service, sshd] = await Promise.all([startFresh(), startSshd({ files: { "report.csv": CSV } })]);
    [user, machine] = await Promise.all([token("user", organization), token("service_account", organization)]);
  });
  afterAll(async () => {
    await sshd.stop();
    await service[Symbol.asyncDispose]();
  });

  const store = async (facts: Record<string, unknown>) => {
    const credentials = { host: sshd.host, port: sshd.port, username: sshd.username, password: sshd.password, ...facts };
    const { status, json, text } = await rest(service, "POST", "/integrations/credentials", { token: user, body: { provider: "sftp", credential_type: "user_password", credentials } });
    expect(status, text).toBe(201);
    return json.id as string;
  };

  /** Runs the example with its output in a folder of its own; gives what it said and what it left there. */
  async function execute(args: readonly string[], environment: Record<string, string> = { FLOW_CREDENTIALS_TOKEN: machine }) {
    using folder = temporaryFolder();
    const output = join(folder.path, "report.csv");
    const argv = ["--conditions=source", "examples/flow-executor.ts", "--target", service.grpc, "--output", output, "--remote", sshd.path("report.csv"), ...args];
    const { code, stdout, stderr } = await run(process.execPath, argv, { env: { PATH: process.env["PATH"] ?? "", ...environment } }).then(
      (done) => ({ code: 0, ...done }),
      (error: { code: number; stdout: string; stderr: string }) => error,
    );
    const left = readdirSync(folder.path);
    return { code, stdout, stderr, left, text: left.includes("report.csv") ? readFileSync(output, "utf8") : undefined };
  }

  test("downloads the file whole and counts its rows as RFC 4180 does, without its header", async () => {
    const id = await store({ host_key_fingerprint: sshd.hostKeyFingerprint });
    const done = await execute(["--credential", id, "--flow-id", "flow-1", "--run-id", "run-1"]);
    expect(done).toMatchObject({ code: 0, stderr: "", text: CSV, left: ["report.csv"] });
    expect(done.stdout).toMatch(/report\.csv: 3 rows\n$/);
  });

  test("shows the fingerprint of a host that no credential pins, and goes on only when told to", async () => {
    const id = await store({});
    const refused = await execute(["--credential", id]);
    expect(refused).toMatchObject({ code: 1, left: [] });
    expect(refused.stderr).toContain(sshd.hostKeyFingerprint);
    expect(await execute(["--credential", id, "--accept-unpinned"])).toMatchObject({ code: 0, text: CSV });
  });

  test("a pinned fingerprint binds even where unpinned hosts are accepted, and nothing secret is sent to another host", async () => {
    const id = await store({ host_key_fingerprint: `SHA256:${"A".repeat(43)}` });
    const refused = await execute(["--credential", id, "--accept-unpinned"]);
    expect(refused).toMatchObject({ code: 1, left: [] });
    expect(refused.stderr).toMatch(/^flow-executor: the host key is SHA256:\S+, and the credential pins SHA256:A+\n$/);
  });

  test.each([
    ["the password is wrong", async () => ["--credential", await store({ password: "planted-wrong", host_key_fingerprint: sshd.hostKeyFingerprint })], /client-authentication/],
    ["the file is missing", async () => ["--credential", await store({ host_key_fingerprint: sshd.hostKeyFingerprint }), "--remote", "/nowhere.csv"], /No such file/],
    ["nobody listens", async () => ["--credential", await store({ port: 1 })], /ECONNREFUSED/],
    ["the credential does not exist", async () => ["--credential", randomUUID()], /NOT_FOUND CREDENTIAL_NOT_FOUND: Credential not found/],
    ["the credential is not for SFTP", async () => ["--credential", await storeKey()], /not for SFTP/],
    ["no credential is named", async () => [], /--credential is required/],
    ["an option is unknown", async () => ["--nonsense"], /nonsense/],
  ])("says so in one line and leaves nothing behind when %s", async (_, args, said) => {
    const refused = await execute(await args());
    expect(refused).toMatchObject({ code: 1, stdout: "", left: [] });
    expect(refused.stderr.trimEnd().split("\n")).toEqual([expect.stringMatching(said)]);
    expect(refused.stderr).not.toContain("planted");
  });

  const storeKey = async () => {
    const body = { provider: "google", credential_type: "api_key", credentials: { api_key: "planted-key" } };
    return (await rest(service, "POST", "/integrations/credentials", { token: user, body })).json.id as string;
  };

  test("explains itself", async () => {
    expect(await execute(["--help"], {})).toMatchObject({ code: 0, stderr: "", stdout: expect.stringContaining("--accept-unpinned") });
  });

  test("asks for its token in the environment only", async () => {
    expect(await execute(["--credential", randomUUID()], {})).toMatchObject({ code: 1, stderr: "flow-executor: FLOW_CREDENTIALS_TOKEN is not set\n" });
  });
});
