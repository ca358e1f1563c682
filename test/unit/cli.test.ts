import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { DEFAULT_CLAIMS } from "../../src/auth/claims.ts";
import { developmentJwtSecret } from "../../src/auth/development.ts";
import { createJwtVerifier } from "../../src/auth/jwt.ts";
import { run } from "../../src/cli/program.ts";
import { type Secret, secret } from "../../src/domain/secret.ts";

const USER = "11111111-1111-4111-8111-111111111111";
const ORGANIZATION = "22222222-2222-4222-8222-222222222222";
const SECRET = "cli-test-secret-0123456789abcdef-0123456789";

let folder = "";
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), "flow-credentials-cli-"))));
afterEach(() => rmSync(folder, { recursive: true, force: true }));

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the command as a user would, with no environment but this one. */
function cli(args: readonly string[], env: Record<string, string> = {}): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(process.execPath, ["src/cli/main.ts", ...args], { env: { CREDENTIALS_DATA_DIR: join(folder, "data"), ...env } }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
    });
  });
}

const verifierOf = (key: Secret<string>, extra: object = {}) =>
  createJwtVerifier({
    secret: key,
    issuer: "flow-credentials-dev",
    audience: "flow-credentials",
    operatorAudience: "flow-credentials-operator",
    claims: DEFAULT_CLAIMS,
    clockSkewSeconds: 0,
    ...extra,
  });

describe("flow-credentials token", () => {
  it("prints a token that verifies, and nothing else; the secret is made in the data directory", async () => {
    const { code, stdout, stderr } = await cli(["token", "--org", ORGANIZATION, "--user", USER]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+\n$/);
    expect(statSync(join(folder, "data", "jwt-secret")).mode & 0o777).toBe(0o600);
    const { caller } = await verifierOf(developmentJwtSecret(join(folder, "data"))).verify(stdout.trim());
    expect(caller).toEqual({ kind: "user", id: USER, organizationId: ORGANIZATION, role: null });
  });

  it("uses the configured secret, issuer, audience and claim names, and makes no other secret", async () => {
    const env = {
      CREDENTIALS_JWT_SECRET: SECRET,
      CREDENTIALS_JWT_ISSUER: "me",
      CREDENTIALS_JWT_AUDIENCE: "you",
      CREDENTIALS_JWT_CLAIM_ORGANIZATION: "org.id",
      CREDENTIALS_JWT_CLAIM_KIND: "kind",
    };
    const { code, stdout } = await cli(["token", "--org", ORGANIZATION.toUpperCase(), "--service-account", USER, "--expires-in", "10", "--json"], env);
    expect(code).toBe(0);
    const { token } = JSON.parse(stdout) as { token: string };
    const verifier = verifierOf(secret(SECRET), { issuer: "me", audience: "you", claims: { ...DEFAULT_CLAIMS, organization: "org.id", kind: "kind" } });
    const { caller, expiresAtMs } = await verifier.verify(token);
    expect(caller).toEqual({ kind: "service_account", id: USER, organizationId: ORGANIZATION, role: null });
    expect(expiresAtMs).toBeLessThanOrEqual(Date.now() + 10_000);
    expect(existsSync(join(folder, "data"))).toBe(false);
  });

  it("makes an operator by the operators' audience", async () => {
    const { stdout } = await cli(["token", "--operator"], { CREDENTIALS_JWT_SECRET: SECRET });
    expect((await verifierOf(secret(SECRET)).verify(stdout.trim())).caller).toMatchObject({ kind: "operator" });
  });

  it("is refused in production and beside a public key, and makes no secret there", async () => {
    const production = await cli(["token", "--operator"], { CREDENTIALS_PROFILE: "production", CREDENTIALS_JWT_SECRET: SECRET });
    expect(production).toEqual({ code: 1, stdout: "", stderr: "flow-credentials: tokens are made only in the development profile\n" });
    const foreign = await cli(["token", "--operator"], { CREDENTIALS_JWT_PUBLIC_KEY: "-----BEGIN PUBLIC KEY-----" });
    expect(foreign).toMatchObject({ code: 1, stdout: "" });
    expect(foreign.stderr).toMatch(/^flow-credentials: CREDENTIALS_JWT_PUBLIC_KEY is set: .*\n$/);
    expect(existsSync(join(folder, "data"))).toBe(false);
  });
});

describe("flow-credentials", () => {
  it.each([
    [[]],
    [["serve"]],
    [["migrate"]],
    [["token"]],
    [["service-account"]],
    [["service-account", "create"]],
    [["service-account-key"]],
    [["service-account-key", "create"]],
  ])("explains itself with an example: %j", async (command) => {
    const { code, stdout, stderr } = await cli([...command, "--help"]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toContain(`Usage: flow-credentials ${command.join(" ")}`);
    expect(stdout).toMatch(/^Example:\n {2}\$ (\w+=\S+ )*flow-credentials /m);
  });

  it.each([
    ["an unknown command", ["toekn"], "unknown command 'toekn'"],
    ["an unknown option", ["token", "--what"], "unknown option '--what'"],
    ["an unknown option with a value", ["token", "--pass=s3cret-value"], "unknown option '--pass'"],
    ["an argument too many", ["token", "--operator", "s3cret-value"], "too many arguments"],
    ["an option without its value", ["token", "--org"], "argument missing"],
    ["no kind of caller", ["token", "--org", ORGANIZATION], "exactly one of"],
    ["two kinds of caller", ["token", "--org", ORGANIZATION, "--user", USER, "--operator"], "exactly one of"],
    ["a user without an organization", ["token", "--user", USER], "--org is required"],
    ["an operator of an organization", ["token", "--operator", "--org", ORGANIZATION], "--org does not go with --operator"],
    ["what is no UUID", ["token", "--org", "s3cret-value", "--user", USER], "--org must be a UUID"],
    ["no time at all", ["token", "--operator", "--expires-in", "0"], "--expires-in must be a whole number"],
    ["a time that is no number", ["token", "--operator", "--expires-in", "s3cret-value"], "--expires-in must be a whole number"],
    ["a missing option", ["service-account", "create", "--name", "x"], "required option '--org <uuid>' not specified"],
    ["an empty name", ["service-account", "create", "--org", ORGANIZATION, "--name", ""], "--name must have"],
    ["a date for a time", ["service-account-key", "create", "--org", ORGANIZATION, "--service-account", USER, "--expires-at", "2030-01-31"], "--expires-at must be a time"],
    ["a certificate without its key", ["service-account", "create", "--org", ORGANIZATION, "--name", "x", "--cert", "c"], "--cert and --key go together"],
  ])("says in one line what is wrong with the command line, and repeats no value: %s", async (_, args, sentence) => {
    const printed: string[] = [];
    const told: string[] = [];
    const env = { CREDENTIALS_DATA_DIR: join(folder, "data") };
    expect(await run(args, { env, print: (line) => printed.push(line), note: (line) => told.push(line) })).toBe(2);
    expect(printed).toEqual([]);
    expect(told).toEqual([expect.stringMatching(/^flow-credentials: [^\n]+$/)]);
    expect(told[0]).toContain(sentence);
    expect(told[0]).not.toContain("s3cret-value");
    expect(existsSync(join(folder, "data"))).toBe(false);
  });

  it("ends with code 2 where it does not understand the command line", async () => {
    expect(await cli(["token", "--what"])).toEqual({ code: 2, stdout: "", stderr: "flow-credentials: unknown option '--what'\n" });
    expect(await cli(["toekn"])).toEqual({ code: 2, stdout: "", stderr: "flow-credentials: unknown command 'toekn' (Did you mean token?)\n" });
  });

  it.each([
    ["a misspelt setting", { CREDENTIALS_JWT_SECERT: SECRET }, "CREDENTIALS_JWT_SECERT is not a setting"],
    ["a token among the settings", { CREDENTIALS_TOKEN: SECRET }, "CREDENTIALS_TOKEN is not a setting"],
    ["a secret file that is missing", { CREDENTIALS_JWT_SECRET_FILE: "/does/not/exist" }, "CREDENTIALS_JWT_SECRET_FILE cannot be read (ENOENT)"],
    ["a data directory that cannot be made", { CREDENTIALS_DATA_DIR: "/dev/null/data" }, "/dev/null/data/jwt-secret cannot be read or made (ENOTDIR)"],
  ])("says in one line what is wrong with the environment, and repeats no secret: %s", async (_, env, sentence) => {
    const { code, stdout, stderr } = await cli(["token", "--operator"], env);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toBe(`flow-credentials: ${sentence}\n`);
    expect(stderr).not.toContain(SECRET);
  });

  it("says in one line why the database cannot be migrated, and repeats no password", async () => {
    const url = "postgresql://someone:s3cret-value@127.0.0.1:1/nothing";
    const { code, stdout, stderr } = await cli(["migrate"], { CREDENTIALS_DATABASE_URL: url, CREDENTIALS_DATABASE_MIGRATION_URL: url });
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(/^flow-credentials: [^\n]*ECONNREFUSED[^\n]*\n$/);
    expect(stderr).not.toContain("s3cret-value");
  });

  it("without a command shows the help on standard error and fails", async () => {
    const { code, stdout, stderr } = await cli([]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain("Usage: flow-credentials");
  });
});
