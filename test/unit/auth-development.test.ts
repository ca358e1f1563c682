import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { DEFAULT_CLAIMS } from "../../src/auth/claims.ts";
import { developmentJwtSecret, developmentSecrets, signDevelopmentToken } from "../../src/auth/development.ts";
import { createJwtVerifier } from "../../src/auth/jwt.ts";

let folder = "";
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), "flow-credentials-auth-"))));
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const revealed = (directory: string) => {
  const { jwtSecret, masterKeys, primaryKeyId } = developmentSecrets(directory);
  return { jwtSecret: jwtSecret.reveal(), masterKeys: masterKeys.reveal(), primaryKeyId };
};

describe("development secrets", () => {
  it("are made once, in a directory that need not exist, for their owner only", () => {
    const directory = join(folder, "a", "b");
    const first = revealed(directory);
    expect(revealed(directory)).toEqual(first);
    expect(developmentJwtSecret(directory).reveal()).toBe(first.jwtSecret);
    expect(first.primaryKeyId).toBe("development");
    expect(first.masterKeys).toMatch(/^development:[A-Za-z0-9+/]{43}=$/);
    expect(Buffer.from(first.jwtSecret, "base64url")).toHaveLength(32);
    expect(readdirSync(directory).sort()).toEqual(["jwt-secret", "master-keys"]);
    for (const name of readdirSync(directory)) expect(statSync(join(directory, name)).mode & 0o777).toBe(0o600);
  });

  it("differ from one directory to the next", () => {
    const [one, other] = [revealed(join(folder, "one")), revealed(join(folder, "other"))];
    expect(one.jwtSecret).not.toBe(other.jwtSecret);
    expect(one.masterKeys).not.toBe(other.masterKeys);
  });

  it("are the same for ten processes that make them at once, and no draft is left behind", async () => {
    const module = new URL("../../src/auth/development.ts", import.meta.url).href;
    // Ten processes go through the same directories side by side, so that many of these races are close ones.
    const script = `
      import { existsSync } from "node:fs";
      const { developmentSecrets } = await import(${JSON.stringify(module)});
      process.stdout.write("waiting\\n");
      while (!existsSync(process.argv[1] + "/go"));
      for (let n = 0; n < 40; n++) {
        const made = developmentSecrets(process.argv[1] + "/" + n);
        console.log(n, made.jwtSecret.reveal(), made.masterKeys.reveal());
      }`;
    const children = Array.from({ length: 10 }, () => spawn(process.execPath, ["--input-type=module", "-e", script, folder], { stdio: ["ignore", "pipe", "inherit"] }));
    const outputs = children.map(({ stdout }) => text(stdout));
    await Promise.all(children.map(({ stdout }) => once(stdout, "data")));
    writeFileSync(join(folder, "go"), "");
    const printed = await Promise.all(outputs);
    expect(new Set(printed).size).toBe(1);
    expect(printed[0]?.trim().split("\n")).toHaveLength(41);
    for (let n = 0; n < 40; n++) expect(readdirSync(join(folder, String(n))).sort()).toEqual(["jwt-secret", "master-keys"]);
    expect(printed[0]).toContain(`\n7 ${readFileSync(join(folder, "7", "jwt-secret"), "utf8").trim()} `);
  });

  it.each([0o640, 0o604, 0o660, 0o622, 0o644])("are refused where others may read or write them: mode %o", (mode) => {
    const { masterKeys } = revealed(folder);
    chmodSync(join(folder, "master-keys"), mode);
    expect(() => developmentSecrets(folder)).toThrow(/master-keys must be a file that only its owner may read and write \(mode 0600\)$/);
    expect(readFileSync(join(folder, "master-keys"), "utf8").trim()).toBe(masterKeys);
  });

  it("are refused, and never replaced, where the file is empty, cut, a link or a directory", () => {
    writeFileSync(join(folder, "jwt-secret"), "", { mode: 0o600 });
    expect(() => developmentSecrets(folder)).toThrow(/jwt-secret is too short to be a secret/);
    writeFileSync(join(folder, "jwt-secret"), "short-and-not-shown\n");
    expect(() => developmentJwtSecret(folder)).toThrow(/^(?!.*not-shown).*jwt-secret is too short/);
    rmSync(join(folder, "jwt-secret"));
    writeFileSync(join(folder, "elsewhere"), "x".repeat(64), { mode: 0o600 });
    symlinkSync(join(folder, "elsewhere"), join(folder, "jwt-secret"));
    expect(() => developmentJwtSecret(folder)).toThrow(/jwt-secret cannot be read or made \(ELOOP\)$/);
    expect(() => developmentJwtSecret(join(folder, "elsewhere"))).toThrow(/cannot be read or made \(ENOTDIR\)$/);
  });
});

it("a development token is what the service verifies, under its claim names, for as long as asked", async () => {
  const secret = developmentJwtSecret(folder);
  const names = { ...DEFAULT_CLAIMS, organization: "org.id", kind: "kind" };
  const clock = { ms: 1_900_000_000_500 };
  const now = () => clock.ms;
  const [issuer, organizationId, id] = ["i", "22222222-2222-4222-8222-222222222222", "33333333-3333-4333-8333-333333333333"];
  const verifier = createJwtVerifier({ secret, issuer, audience: "a", operatorAudience: "o", claims: names, clockSkewSeconds: 0, now });
  const sign = (kind: "user" | "service_account") =>
    signDevelopmentToken({ secret, issuer, audience: "a", subject: id, organizationId, kind, claims: names, expiresInSeconds: 60, now });
  for (const kind of ["user", "service_account"] as const) {
    expect(await verifier.verify(await sign(kind))).toEqual({ caller: { kind, id, organizationId, role: null }, expiresAtMs: 1_900_000_060_000 });
  }
  const operator = await signDevelopmentToken({ secret, issuer, audience: "o", subject: "ops", organizationId: null, kind: "operator", claims: names, expiresInSeconds: 60, now });
  expect((await verifier.verify(operator)).caller).toEqual({ kind: "operator", id: "ops" });
  clock.ms += 60_000;
  await expect(verifier.verify(operator)).rejects.toMatchObject({ reason: "INVALID_TOKEN" });
});
