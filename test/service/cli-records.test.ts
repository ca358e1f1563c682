import { createPublicKey, createPrivateKey, generateKeyPairSync, randomUUID } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { exportTrail } from "../../src/cli/audit-export.ts";
import { run } from "../../src/cli/program.ts";
import { createAdminClient } from "../../src/client/admin.ts";
import { createCredentialClient } from "../../src/client/index.ts";
import { connect } from "../support/postgres.ts";
import { operatorToken, rest, startFresh, temporaryFolder, token } from "../support/service.ts";
import { allowed, openTestStore } from "../support/store.ts";

let service: Awaited<ReturnType<typeof startFresh>>;
let operator: string;
let user: string;
const organization = randomUUID();
const folder = temporaryFolder();
const SFTP = { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password: "the-first" } };
const { provider: _, ...CHANGE } = SFTP;

beforeAll(async () => {
  const { privateKey } = generateKeyPairSync("ed25519");
  writeFileSync(`${folder.path}/key.b64`, privateKey.export({ format: "der", type: "pkcs8" }).toString("base64"));
  const key = createPrivateKey({ key: privateKey.export({ format: "der", type: "pkcs8" }), format: "der", type: "pkcs8" });
  writeFileSync(`${folder.path}/public.pem`, createPublicKey(key).export({ format: "pem", type: "spki" }));
  service = await startFresh({ CREDENTIALS_AUDIT_SIGNING_KEY_FILE: `${folder.path}/key.b64`, CREDENTIALS_AUDIT_SIGN_INTERVAL_MS: "100", CREDENTIALS_LIMIT_PER_PROVIDER: "3" });
  [operator, user] = await Promise.all([operatorToken(), token("user", organization)]);
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

/** Runs a command as an operator would, in this process: a new one takes longer than what it is to do. */
async function cli(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const [printed, noted]: [string[], string[]] = [[], []];
  const env = { FLOW_CREDENTIALS_TARGET: service.grpc, FLOW_CREDENTIALS_TOKEN: operator };
  const code = await run(args, { env, print: (line) => printed.push(line), note: (line) => noted.push(line) });
  return { code, stdout: printed.join("\n"), stderr: noted.join("\n") };
}
const json = async (...args: string[]) => {
  const { stdout, stderr } = await cli(...args, "--json");
  expect(stderr.replace(/^Keep the key.*$/m, "")).toBe("");
  return JSON.parse(stdout);
};
const call = (method: string, path: string, body?: unknown) => rest(service, method, path, { token: user, ...(body === undefined ? {} : { body }) });
const credential = async (): Promise<string> => (await call("POST", "/integrations/credentials", SFTP)).json.id;
const resolve = async (apiKey: string, credentialId: string) => {
  const client = createCredentialClient({ target: service.grpc, token: apiKey, tls: "insecure" });
  try {
    return await client.resolveCredential({ credentialId }, { flowId: "invoices", runId: "run-1" });
  } finally {
    client.close();
  }
};

test("service accounts and their keys from making to deleting, and who uses a credential", async () => {
  const { stdout: id } = await cli("service-account", "create", "--org", organization, "--name", "executor");
  const place = ["--org", organization, "--service-account", id];
  const { stdout: apiKey } = await cli("service-account-key", "create", ...place, "--name", "blue");
  const credentialId = await credential();
  const granted = await json("service-account", "grant", ...place, "--providers", "google,sftp", "--credentials", randomUUID());
  expect(granted.access.providers).toEqual(["google", "sftp"]);
  await resolve(apiKey, credentialId);
  expect(await json("credential", "usage", "--org", organization, "--credential", credentialId)).toEqual([
    { service_account_id: id, flow_id: "invoices", last_run_id: "run-1", last_used_at: expect.any(String), uses: 1 },
  ]);
  expect((await cli("credential", "usage", "--org", organization, "--credential", credentialId)).stdout).toMatch(new RegExp(`service account ${id} {2}flow invoices {2}run run-1 {2}1 time`));
  const [key] = await json("service-account-key", "list", ...place);
  expect(key).toMatchObject({ name: "blue", last_used_at: expect.any(String), expires_at: null });
  expect((await cli("service-account-key", "revoke", ...place, "--key-id", key.id)).stdout).toBe(`${key.id} revoked`);
  await expect(resolve(apiKey, credentialId)).rejects.toMatchObject({ reason: "INVALID_TOKEN" });
  expect((await cli("service-account", "disable", ...place)).stdout).toBe(`${id} disabled`);
  expect((await json("service-account", "list", "--org", organization)).map((row: { status: string }) => row.status)).toEqual(["inactive"]);
  expect((await cli("service-account", "enable", ...place)).stdout).toBe(`${id} enabled`);
  expect((await cli("service-account", "delete", ...place)).stdout).toBe(`${id} deleted`);
  expect(await cli("service-account", "delete", ...place)).toMatchObject({ code: 1, stderr: expect.stringContaining("Service account not found") });
});

test("a rotation is rolled back while the secret before is kept, and only once", async () => {
  const credentialId = await credential();
  const path = `/integrations/credentials/${credentialId}`;
  const machine = await token("service_account", organization);
  const password = async () => (await resolve(machine, credentialId)).credentials as { value: { password: string } };
  const change = { ...CHANGE, credentials: { ...CHANGE.credentials, password: "the-second" } };
  expect((await call("PATCH", path, { ...change, keep_previous_seconds: 600 })).status).toBe(200);
  expect((await call("GET", path)).json.previous_kept_until).toEqual(expect.any(String));
  expect((await password()).value.password).toBe("the-second");
  expect(await json("credential", "rollback", "--org", organization, "--credential", credentialId)).toEqual({ id: credentialId, secret_version: 3 });
  expect((await password()).value.password).toBe("the-first");
  expect((await call("GET", path)).json.previous_kept_until).toBeNull();
  expect(await cli("credential", "rollback", "--org", organization, "--credential", credentialId)).toMatchObject({ code: 1, stderr: expect.stringContaining("No previous secret is kept") });
  await call("PATCH", path, { ...change, keep_previous_seconds: 600 });
  await call("PATCH", path, change);
  expect((await call("POST", `${path}/rollback`)).status).toBe(400);
  await call("DELETE", path);
});

test("limits are set, hold for a restore too, and what was purged is gone for good", async () => {
  const other = randomUUID();
  const someone = await token("user", other);
  const make = () => rest(service, "POST", "/integrations/credentials", { token: someone, body: SFTP });
  const made = [await make(), await make(), await make()].map(({ json: body }) => body.id as string);
  expect((await make()).status).toBe(400);
  await cli("limit", "set", "--org", other, "--provider", "sftp", "--limit", "4");
  const fourth = (await make()).json.id as string;
  expect((await make()).status).toBe(400);
  for (const id of [fourth, made[0] as string]) await rest(service, "DELETE", `/integrations/credentials/${id}`, { token: someone });
  const restore = (id: string) => cli("credential", "restore", "--org", other, "--credential", id);
  expect((await restore(fourth)).stdout).toBe(`${fourth} restored`);
  expect(await restore(fourth)).toMatchObject({ code: 1, stderr: expect.stringContaining("Credential not found") });
  await cli("limit", "set", "--org", other, "--provider", "sftp");
  expect(await restore(made[0] as string)).toMatchObject({ code: 1, stderr: expect.stringContaining("limit of credentials for this provider") });
  expect(Number((await json("credential", "purge", "--older-than-days", "0")).credentials)).toBeGreaterThanOrEqual(1);
  expect(await restore(made[0] as string)).toMatchObject({ code: 1, stderr: expect.stringContaining("purged") });
  expect((await rest(service, "GET", `/integrations/credentials/${fourth}`, { token: someone })).status).toBe(200);
});

describe("an audit trail", () => {
  test("is listed with filters, exported, and checked without the service", async () => {
    const other = randomUUID();
    const someone = await token("user", other);
    const { json: made } = await rest(service, "POST", "/integrations/credentials", { token: someone, body: SFTP });
    for (let n = 0; n < 5; n++) await rest(service, "GET", `/integrations/credentials/${randomUUID()}`, { token: someone });
    const listed = (await cli("audit", "list", "--org", other, "--outcome", "refused", "--json")).stdout.split("\n").map((line) => JSON.parse(line));
    expect(listed).toHaveLength(5);
    expect((await cli("audit", "list", "--org", other, "--credential", made.id)).stdout).toMatch(/allowed {2}create_credential .* by user /);
    expect((await cli("audit", "list", "--org", other, "--most", "2")).stdout.split("\n")).toHaveLength(2);
    const file = `${folder.path}/trail.jsonl`;
    const verify = (...more: string[]) => cli("audit", "verify", "--file", file, "--public-key", `${folder.path}/public.pem`, ...more);
    await vi.waitFor(async () => {
      writeFileSync(file, (await cli("audit", "export", "--org", other)).stdout);
      expect(readFileSync(file, "utf8")).toMatch(/"type":"head".*"link":6,/);
    }, { timeout: 20_000 });
    const good = await verify("--json");
    expect(JSON.parse(good.stdout)).toEqual({ good: true, records: 6, signed_heads: expect.any(Number), link: 6, hash: expect.any(String), fault: null });
    const { hash } = JSON.parse(good.stdout);
    expect((await verify("--expect", `6:${hash}`)).code).toBe(0);
    expect((await cli("audit", "verify", "--org", other)).stdout).toMatch(/^good: 6 records/);

    const whole = readFileSync(file, "utf8").trim().split("\n");
    const events = whole.filter((line) => line.includes('"type":"event"'));
    const head = whole.findLast((line) => line.includes('"type":"head"')) ?? "";
    const damaged = async (lines: readonly string[], ...more: string[]) => {
      writeFileSync(file, lines.join("\n"));
      return verify(...more);
    };
    const end = (link: number, heads = 0) => JSON.stringify({ type: "end", organization_id: other, link, records: link, signed_heads: heads });
    expect((await damaged([...events, head, end(6, 1)])).stdout).toMatch(/^good: 6 records and 1 signed heads/);
    const faulty = async (lines: readonly string[], sentence: string, ...more: string[]) =>
      expect(await damaged(lines, ...more)).toMatchObject({ code: 1, stderr: expect.stringContaining(sentence) });
    await faulty([...events.slice(0, 2), events[2]?.replace('"refused"', '"allowed"') ?? "", ...events.slice(3), head, end(6, 1)], "link 3, record 1: a record is not what was written");
    await faulty([...events.slice(0, 2), events[2]?.replace('"calls":null', '"calls":2') ?? "", ...events.slice(3), head, end(6, 1)], "link 3, record 1: a record is not what was written");
    await faulty([...events.slice(0, 2), ...events.slice(3), head, end(6, 1)], "link 3: a record is missing");
    await faulty([events[1] ?? "", events[0] ?? "", ...events.slice(2), head, end(6, 1)], "link 1: a record is missing");
    await faulty([...events.slice(0, 4), head, end(4, 1)], "link 5: the trail ends before a head that was signed");
    await faulty([...events.slice(0, 4), end(4)], "link 5: the trail ends", "--expect", `6:${hash}`);
    await faulty([...events, end(6)], "link 4: a record is not", "--expect", `4:${hash}`);
    await faulty([...events, head.replace(/"signature":"..../, '"signature":"AAAA'), end(6, 1)], "was not signed by its key");
    await faulty([...events.slice(0, 5), head.replace('"link":6', '"link":5'), ...events.slice(5), end(6, 1)], "was not signed by its key");
    // A file that was cut off, or put together, is no export, whatever its records are.
    await faulty(events.slice(0, 4), "the file ends before the export does");
    await faulty([...events, end(7)], "the file holds less, or more");
    await faulty([...events, end(6), head], "line 8 of the file is not of an audit export");
    expect(await damaged(["nonsense"])).toMatchObject({ code: 1, stderr: expect.stringContaining("line 1 of the file is not of an audit export") });
    expect(await cli("audit", "verify", "--file", file)).toMatchObject({ code: 2, stderr: expect.stringContaining("--public-key is required") });
  }, 60_000);

  test("of many pages is exported as fast as its reader takes it, and holds what is written meanwhile or tells nothing of it", async () => {
    const other = randomUUID();
    await using store = await openTestStore(service.database.applicationUrl);
    const append = (records: number) => store.audit.append(Array.from({ length: records }, () => allowed(other, null, "list_credentials")));
    await append(2_500);
    await untilSigned(other);
    const lines: string[] = [];
    using admin = createAdminClient({ target: service.grpc, token: operator, tls: undefined, deadlineMs: 15_000 });
    let taken = 0;
    await exportTrail(admin, { organizationId: other }, {
      env: {}, note: () => {}, print: (line) => lines.push(line),
      async taken() {
        taken++;
        // Everything but the signed heads of a page.
        expect(lines.filter((line) => line.includes('"type":"event"')).length).toBeLessThanOrEqual(taken * 1_000);
        if (taken === 3) {
          await append(10);
          await untilSigned(other);
        }
      },
    });
    expect(taken).toBe(3);
    writeFileSync(`${folder.path}/long.jsonl`, lines.join("\n"));
    const { stdout } = await cli("audit", "verify", "--file", `${folder.path}/long.jsonl`, "--public-key", `${folder.path}/public.pem`, "--json");
    expect(JSON.parse(stdout)).toMatchObject({ good: true, records: 2_500 });
    // Cut off at its end, and its head moved back: the export has the signed heads that tell.
    await using superuser = await connect(service.database.superuserUrl);
    await superuser.query("delete from audit_event where organization_id = $1 and link > 3", [other]);
    const cut = (await cli("audit", "export", "--org", other)).stdout;
    writeFileSync(`${folder.path}/cut.jsonl`, cut);
    expect(await cli("audit", "verify", "--file", `${folder.path}/cut.jsonl`, "--public-key", `${folder.path}/public.pem`)).toMatchObject({ code: 1, stderr: expect.stringContaining("link 4: the trail ends before a head that was signed") });
  }, 60_000);
});

/** Resolves when the newest link of an organization is signed. */
async function untilSigned(organizationId: string): Promise<void> {
  await using superuser = await connect(service.database.superuserUrl);
  await vi.waitFor(async () => {
    const { rows } = await superuser.query("select h.link = (select max(s.link) from audit_signature s where s.organization_id = h.organization_id) as signed from audit_head h where h.organization_id = $1", [organizationId]);
    expect(rows).toEqual([{ signed: true }]);
  }, { timeout: 10_000 });
}
