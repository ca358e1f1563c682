import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { join } from "node:path";
import { importPKCS8, SignJWT } from "jose";
import { expect, test } from "vitest";
import { readYaml } from "../support/manifests.ts";
import { freshDatabase } from "../support/postgres.ts";
import { spawnService, startService, temporaryFolder } from "../support/service.ts";

interface Compose { readonly services: Readonly<Record<"service" | "migrate", { readonly environment: Readonly<Record<string, string>>; readonly command?: readonly string[] }>>; readonly secrets: Readonly<Record<string, { readonly file: string }>> }

/** One call over TLS, to the certificate that was made for it. */
function call(url: string, ca: string, token: string, body: object): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const sent = request(`${url}/integrations/credentials`, { method: "POST", ca, headers: { authorization: `Bearer ${token}`, "content-type": "application/json" } }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk)).on("end", () => resolve({ status: response.statusCode ?? 0, text }));
    });
    sent.on("error", reject);
    sent.end(JSON.stringify(body));
  });
}

test("the secrets that are made, and the settings that are written, start a production service that takes the issuer's tokens", async () => {
  using folder = temporaryFolder();
  const made = join(folder.path, "made");
  execFileSync("deploy/compose/make-secrets.sh", [made]);
  const before = execFileSync("sh", ["-c", "cat * | sha256sum"], { cwd: made, encoding: "utf8" });
  execFileSync("deploy/compose/make-secrets.sh", [made]);
  expect(execFileSync("sh", ["-c", "cat * | sha256sum"], { cwd: made, encoding: "utf8" })).toBe(before);

  const [{ services, secrets }] = readYaml<Compose>("deploy/compose/compose.yaml") as [Compose];
  await using database = await freshDatabase("empty");
  // The database is this machine's own, over a socket, and therefore without TLS; all else is as it is written.
  const mounted = join(folder.path, "secrets");
  mkdirSync(mounted);
  for (const [name, { file }] of Object.entries(secrets)) cpSync(join(made, file.replace("./secrets/", "")), join(mounted, name));
  expect(readFileSync(join(mounted, "database-url"), "utf8")).toMatch(/^postgresql:\/\/credentials_app:[\w-]{32}@db\/flow_credentials$/);
  writeFileSync(join(mounted, "database-url"), database.applicationUrl);
  writeFileSync(join(mounted, "migration-url"), database.ownerUrl);
  const environment = (service: "service" | "migrate") => {
    const { CREDENTIALS_DATABASE_CA_FILE: _, ...written } = services[service].environment;
    const entries = Object.entries(written).map(([name, value]) => [name, value.replace("/run/secrets", mounted).replace(/^(0\.0\.0\.0|127\.0\.0\.1):\d+$/, "127.0.0.1:0")] as const);
    return { PATH: process.env["PATH"] ?? "", ...Object.fromEntries(entries) };
  };

  const early = spawnService(environment("service"));
  expect(await early.ended).toBe(1);
  expect(early.output()).toMatch(/^flow-credentials: .*migrat/m);
  const migrate = services.migrate.command?.map((word) => word.replace("dist/src/cli/main.js", "src/cli/main.ts")) ?? [];
  expect(execFileSync(process.execPath, [...migrate], { env: environment("migrate"), encoding: "utf8" })).toContain("0001");
  await using service = await startService(environment("service"));
  expect((await fetch(`${service.ops}/readyz`)).status).toBe(200);

  const key = await importPKCS8(readFileSync(join(made, "issuer.key"), "utf8"), "EdDSA");
  const token = await new SignJWT({ organization_id: randomUUID() }).setProtectedHeader({ alg: "EdDSA" }).setSubject(randomUUID()).setIssuer("flow-credentials-dev").setAudience("flow-credentials").setIssuedAt().setExpirationTime("5m").sign(key);
  const body = { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example", username: "u", password: "p" } };
  const ca = readFileSync(join(made, "ca.pem"), "utf8");
  expect((await call(service.rest, ca, token, body)).status).toBe(201);
  expect((await call(service.rest, ca, `${token}x`, body)).status).toBe(401);
  expect(await service.stop()).toBe(0);
});
