import { execFile } from "node:child_process";
import { generateKeyPairSync, randomUUID } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import ssh2 from "ssh2";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createCredentialClient, sshPrivateKey } from "../../src/client/index.ts";
import { rest, startFresh, temporaryFolder, token } from "../support/service.ts";
import { generateKey, sshdAvailable, startSshd, type Sshd } from "../support/sshd.ts";

const run = promisify(execFile);
const CSV = "id,name\n1,Ada\n2,Grace\n";
const available = await sshdAvailable();

describe.skipIf(!available)("a flow executor downloads a CSV from an OpenSSH server with a credential that a user stored over REST", () => {
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

  const store = async (credential_type: string, secret: Record<string, unknown>) => {
    const credentials = { host: sshd.host, port: String(sshd.port), username: sshd.username, host_key_fingerprint: sshd.hostKeyFingerprint, ...secret };
    const { status, json, text } = await rest(service, "POST", "/integrations/credentials", { token: user, body: { provider: "sftp", credential_type, credentials } });
    expect(status, text).toBe(201);
    return json.id as string;
  };

  /** Runs the example as its own process, the way an operator would. */
  const download = (credential: string, as: string, output: string) =>
    run(process.execPath, ["--conditions=source", "examples/flow-executor.ts", "--target", service.grpc, "--credential", credential, "--remote", sshd.path("report.csv"), "--output", output], {
      env: { PATH: process.env["PATH"] ?? "", FLOW_CREDENTIALS_TOKEN: as },
    });

  test("with a password", async () => {
    using folder = temporaryFolder();
    const output = join(folder.path, "report.csv");
    const { stdout, stderr } = await download(await store("user_password", { password: sshd.password }), machine, output);
    expect(readFileSync(output, "utf8")).toBe(CSV);
    expect(stdout + stderr).not.toContain(sshd.password);
  });

  test.each([
    ["an Ed25519 key", "ed25519", undefined],
    ["an RSA key with a passphrase", "rsa", "test-only passphrase"],
  ] as const)("with %s", async (_, kind, passphrase) => {
    using folder = temporaryFolder();
    const key = await generateKey(kind, passphrase);
    await sshd.addAuthorizedKey(key.publicKey);
    const secret = { private_key_data: key.privateKey, ...(passphrase === undefined ? {} : { private_key_passphrase: passphrase }) };
    const output = join(folder.path, "report.csv");
    await download(await store("key_file", secret), machine, output);
    expect(readFileSync(output, "utf8")).toBe(CSV);
  });

  test("with an Ed25519 key in PKCS#8, which the SSH library itself does not read", async () => {
    using folder = temporaryFolder();
    const { privateKey } = generateKeyPairSync("ed25519");
    const privateKeyData = privateKey.export({ format: "pem", type: "pkcs8" }).toString();
    const readable = ssh2.utils.parseKey(sshPrivateKey({ privateKeyData, privateKeyPassphrase: "" }).privateKey);
    if (readable instanceof Error) throw readable;
    await sshd.addAuthorizedKey(`ssh-ed25519 ${readable.getPublicSSH().toString("base64")}`);
    const output = join(folder.path, "report.csv");
    await download(await store("key_file", { private_key_data: privateKeyData }), machine, output);
    expect(readFileSync(output, "utf8")).toBe(CSV);
  });

  test("refuses a server whose host key is not the pinned one, and leaves no file behind", async () => {
    using folder = temporaryFolder();
    const id = await store("user_password", { password: sshd.password, host_key_fingerprint: `SHA256:${"A".repeat(43)}` });
    const output = join(folder.path, "report.csv");
    await expect(download(id, machine, output)).rejects.toMatchObject({ code: 1 });
    expect(existsSync(output)).toBe(false);
  });

  test("a user is refused, another organization's service account finds nothing, and an API key from the command line works", async () => {
    const id = await store("user_password", { password: sshd.password });
    await using asUser = createCredentialClient({ target: service.grpc, token: user, tls: "insecure" });
    await expect(asUser.resolveCredential({ credentialId: id })).rejects.toMatchObject({ reason: "SERVICE_ACCOUNT_REQUIRED" });
    const foreignToken = await token("service_account", randomUUID());
    await using foreign = createCredentialClient({ target: service.grpc, token: foreignToken, tls: "insecure" });
    await expect(foreign.resolveCredential({ credentialId: id })).rejects.toMatchObject({ reason: "CREDENTIAL_NOT_FOUND" });
    const cli = async (...args: string[]) => (await run(process.execPath, ["src/cli/main.ts", ...args], { env: { ...service.env, FLOW_CREDENTIALS_TARGET: service.grpc } })).stdout;
    const account = JSON.parse(await cli("service-account", "create", "--org", organization, "--name", "executor", "--json"));
    const made = JSON.parse(await cli("service-account-key", "create", "--org", organization, "--service-account", account.id, "--json"));
    expect(made.token).toMatch(/^saf_org_/);
    using folder = temporaryFolder();
    const output = join(folder.path, "report.csv");
    await download(id, made.token, output);
    expect(readFileSync(output, "utf8")).toBe(CSV);
    const created = await rest(service, "POST", "/integrations/credentials", { headers: { "x-api-key": made.token }, body: { provider: "sftp" } });
    expect([created.status, created.json.error.message]).toEqual([403, "User account required"]);
  });

  test("what is resolved says which version of the secret it is, and a change is served at once", async () => {
    const id = await store("user_password", { password: "before" });
    await using client = createCredentialClient({ target: service.grpc, token: machine, tls: "insecure" });
    expect(await client.resolveCredential({ credentialId: id })).toMatchObject({ secretVersion: 1n, credentials: { $case: "sftpPassword", value: { password: "before", port: sshd.port } } });
    const credentials = { host: sshd.host, port: sshd.port, username: sshd.username, password: "after" };
    const patched = await rest(service, "PATCH", `/integrations/credentials/${id}`, { token: machine, body: { credential_type: "user_password", credentials } });
    expect([patched.status, patched.json.modified_by]).toEqual([200, "service-account"]);
    expect(await client.resolveCredential({ credentialId: id })).toMatchObject({ secretVersion: 2n, credentials: { value: { password: "after" } } });
  });
});
