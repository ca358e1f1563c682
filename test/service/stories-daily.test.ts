import { generateKeyPairSync, randomUUID } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { createCredentialClient } from "../../src/client/index.ts";
import { fernetToken, newFernetKey } from "../support/fernet.ts";
import { sshServer } from "../support/hostile-ssh.ts";
import { connect } from "../support/postgres.ts";
import { blocksOf, Terminal } from "../support/runbook.ts";
import { operatorToken, rest, startFresh, temporaryFolder, token } from "../support/service.ts";
import { startTokenEndpoint, type TokenEndpoint } from "../support/token-endpoint.ts";

// Many commands are started here, and a loaded machine takes seconds for each.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const ORGANIZATION: string = randomUUID();
const EXECUTOR = randomUUID();
const SFTP = { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password: "first" } };
const folder = temporaryFolder();
let service: Awaited<ReturnType<typeof startFresh>>;
let google: TokenEndpoint;
let terminal: Terminal;
let user: string;

beforeAll(async () => {
  google = await startTokenEndpoint();
  writeFileSync(join(folder.path, "audit.pem"), generateKeyPairSync("ed25519").privateKey.export({ format: "pem", type: "pkcs8" }));
  service = await startFresh({
    CREDENTIALS_AUDIT_SIGNING_KEY_FILE: join(folder.path, "audit.pem"), CREDENTIALS_AUDIT_SIGN_INTERVAL_MS: "100", CREDENTIALS_LIMIT_PER_PROVIDER: "3",
    CREDENTIALS_EGRESS_ALLOW: "127.0.0.0/8", CREDENTIALS_GOOGLE_ISSUER: google.issuer, CREDENTIALS_GOOGLE_CLIENT_ID: "c", CREDENTIALS_GOOGLE_CLIENT_SECRET: "s", CREDENTIALS_REFRESH_SWEEP_MS: "200",
  });
  user = await token("user", ORGANIZATION);
  terminal = new Terminal(folder.path, { FLOW_CREDENTIALS_TOKEN: await operatorToken() });
  terminal.serve(service);
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
  await google[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

const call = (method: string, path: string, body?: unknown, as = user) => rest(service, method, `/integrations/${path}`, { token: as, ...(body === undefined ? {} : { body }) });
const create = async (body: object, as = user): Promise<string> => (await call("POST", "credentials", body, as)).json.id;
const resolve = async (credentialId: string, organization = ORGANIZATION) => {
  await using client = createCredentialClient({ target: service.grpc, token: await token("service_account", organization, EXECUTOR), tls: "insecure" });
  return (await client.resolveCredential({ credentialId }, { flowId: "invoices", runId: "42" })).credentials;
};
/** The newest line of the log with this message and these fields, once it is there. */
const logged = (message: string, fields: Readonly<Record<string, unknown>>): Promise<Record<string, unknown>> =>
  vi.waitFor(() => {
    const lines = service.output().split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line) as Record<string, unknown>);
    const found = lines.findLast((line) => Object.entries({ message, ...fields }).every(([name, value]) => line[name] === value));
    if (found === undefined) throw new Error(`no line "${message}" in the log`);
    return found;
  }, { timeout: 30_000 });
/** An organization of a story's own, named in the terminal, and a user of it. */
const another = async (): Promise<{ organization: string; user: string }> => {
  const organization: string = randomUUID();
  terminal.env["ORG"] = organization;
  return { organization, user: await token("user", organization) };
};

test("story 2: who used this secret lately, for which flow, and when", async () => {
  const own = await another();
  terminal.env["CREDENTIAL"] = await create(SFTP, own.user);
  await resolve(terminal.env["CREDENTIAL"], own.organization);
  const [used = ""] = blocksOf("Who has used a secret?");
  const said = await terminal.run(used);
  expect(said).toMatch(new RegExp(`^\\S+  service account ${EXECUTOR}  flow invoices  run 42  1 time\\(s\\)$`, "m"));
  expect(said).toMatch(new RegExp(`allowed  resolve_credential ${terminal.env["CREDENTIAL"]}  by service_account ${EXECUTOR} flow invoices run 42  request \\S{26}$`, "m"));
});

test("story 6: three rows are moved from Fernet, one of which does not open at first", async () => {
  const own = await another();
  const [old, older] = [newFernetKey(), newFernetKey()];
  const row = (n: number, key: string) => JSON.stringify({ organization_id: own.organization, user_id: randomUUID(), provider: "aws_ses", credential_type: "user_password", source: `row ${n}`, token: fernetToken(key, JSON.stringify({ username: "u", password: `p${n}`, region: "eu-central-1" })) });
  writeFileSync(join(folder.path, "rows.ndjson"), [row(1, old), row(2, old), row(3, older)].join("\n"));
  writeFileSync(join(folder.path, "fernet.keys"), `${old}\n`, { mode: 0o600 });
  const [move = ""] = blocksOf("Move from Fernet");
  expect(await terminal.try(move)).toMatchObject({ code: 1, stdout: expect.stringMatching(/^2 imported, 0 had been imported before, 1 failed$/m), stderr: expect.stringContaining("line 3: the token does not open") });
  writeFileSync(join(folder.path, "fernet.keys"), `${old}\n${older}\n`, { mode: 0o600 });
  expect(await terminal.run(move)).toBe("1 imported, 2 had been imported before, 0 failed\n");
  const { json: moved } = await call("GET", "credentials", undefined, await token("service_account", own.organization));
  expect((await Promise.all(moved.map(({ id }: { id: string }) => resolve(id, own.organization)))).map((secret: any) => secret.value.password).toSorted()).toEqual(["p1", "p2", "p3"]);
});

test("story 7: a grant has died; which, why, and its owner connects again under the same id", async () => {
  const own = await another();
  const credentialId = await create({ provider: "google", credential_type: "oauth2", credentials: google.grant() }, own.user);
  google.answer(() => ({ status: 400, body: { error: "invalid_grant" } }));
  await using superuser = await connect(service.database.superuserUrl);
  await superuser.query("update credential set token_expires_at = now() where id = $1", [credentialId]);
  await superuser.query("update credential_refresh set due_at = now() where credential_id = $1", [credentialId]);
  expect(await logged("a grant has ended", { organization_id: own.organization })).toMatchObject({ credential_id: credentialId, reason: "invalid_grant" });
  const [which = ""] = blocksOf("A grant has died");
  expect(await terminal.run(which)).toMatch(
    new RegExp(`^\\S+  allowed  mark_reauth_required ${credentialId}  by system refresh  request (\\S+)\\n\\S+  failed invalid_grant  refresh_credential ${credentialId}  by system refresh  request \\1\\n$`),
  );
  await expect(resolve(credentialId, own.organization)).rejects.toMatchObject({ reason: "REAUTHORIZATION_REQUIRED" });
  expect((await call("GET", `google/authorize?credential_id=${credentialId}`, undefined, own.user)).json.authorization_url).toContain(`${google.issuer}/auth?`);
  google.answer(() => undefined);
  const { client_id, client_secret, ...tokens } = google.grant();
  expect((await call("PATCH", `credentials/${credentialId}`, { credential_type: "oauth2", credentials: { ...tokens, client_id, client_secret } }, own.user)).json).toMatchObject({ id: credentialId });
  expect(await resolve(credentialId, own.organization)).toMatchObject({ $case: "oauthToken", value: { accessToken: tokens.access_token } });
});

test("story 8: a partner's SFTP test fails; the log tells by the request id that egress is blocked, or that the host key is another", async () => {
  const [why = ""] = blocksOf("Tests say `address_not_allowed`");
  const tried = async (target: object) => {
    const answer = await call("POST", "sftp/test-connection", { username: "u", auth_type: "password", password: "p", ...target });
    expect(answer.json).toMatchObject({ success: false });
    terminal.env["REQUEST_ID"] = answer.headers.get("x-request-id") ?? "";
    await logged("connection test", { request_id: terminal.env["REQUEST_ID"] });
    return (await terminal.run(why)).trim().split("\n").map((line) => JSON.parse(line)).find(({ message }) => message === "connection test");
  };
  expect(await tried({ host: "10.1.2.3" })).toMatchObject({ reason: "address_not_allowed", address: "10.1.2.3:22", organization_id: ORGANIZATION });
  await using partner = await sshServer();
  expect(await tried({ host: "127.0.0.1", port: partner.port, host_key_fingerprint: `SHA256:${"A".repeat(43)}` })).toMatchObject({ reason: "host_key_changed", address: `127.0.0.1:${partner.port}` });
  expect(partner.passwords).toEqual([]);
});

test("story 10: an auditor gets a trail and a key, checks it without the service, and sees what was cut", async () => {
  const own = await another();
  const credentialId = await create(SFTP, own.user);
  for (let n = 0; n < 3; n++) await resolve(credentialId, own.organization);
  const [online = "", offline = ""] = blocksOf("Is the audit whole?");
  await expect.poll(() => terminal.run(online), { timeout: 20_000, interval: 500 }).toMatch(/^good: 4 records and [1-9]\d* signed heads, up to link 4/);
  expect(await terminal.run(offline)).toMatch(/^good: 4 records and [1-9]\d* signed heads, up to link 4/);
  // A link that the log has kept is in the trail, as it was; after the loss of a database this tells that nothing before it is missing.
  const { link, hash } = await logged("audit head signed", { organization_id: own.organization });
  Object.assign(terminal.env, { LINK: String(link), HASH: String(hash) });
  const [kept = ""] = blocksOf("The primary is lost");
  expect(await terminal.run(kept)).toMatch(/^good: 4 records/);
  expect(await terminal.try(kept.replace("$LINK:", "9:"))).toMatchObject({ code: 1, stderr: expect.stringContaining("the trail is not as it was written") });
  const checked = offline.split("\n").find((line) => line.includes("--file")) ?? "";
  const cut = await terminal.try(`sed -i '/"type":"event".*"link":2,/d' trail.jsonl\n${checked}`);
  expect([cut.code, cut.stderr]).toEqual([1, expect.stringMatching(/^flow-credentials: the trail is not as it was written: /)]);
});

test("a secret that was deleted or overwritten by mistake comes back", async () => {
  const own = await another();
  const credentialId = await create(SFTP, own.user);
  terminal.env["CREDENTIAL"] = credentialId;
  const { provider: _, ...change } = SFTP;
  await call("PATCH", `credentials/${credentialId}`, { ...change, credentials: { ...SFTP.credentials, password: "second" }, keep_previous_seconds: 3600 }, own.user);
  expect((await call("DELETE", `credentials/${credentialId}`, undefined, own.user)).status).toBe(204);
  expect(await terminal.run(blocksOf("A secret was deleted or overwritten by mistake")[0] ?? "")).toBe(`${credentialId} restored\n${credentialId} rolled back, as version 3\n`);
  expect(await resolve(credentialId, own.organization)).toMatchObject({ value: { password: "first" } });
});

test("a secret that does not open is found by the incident, and replaced without being opened", async () => {
  const own = await another();
  const credentialId = await create(SFTP, own.user);
  await using superuser = await connect(service.database.superuserUrl);
  await superuser.query("update credential set secret_version = 9 where id = $1", [credentialId]);
  const failed = await resolve(credentialId, own.organization).catch((error) => error);
  expect(failed).toMatchObject({ code: "DATA_LOSS", reason: "SECRET_UNREADABLE" });
  terminal.env["INCIDENT"] = failed.incident;
  await logged("a stored secret or its key does not open", { incident: terminal.env["INCIDENT"] });
  const found = await terminal.try(blocksOf("A secret does not open")[0] ?? "");
  expect(JSON.parse(found.stdout.split("\n")[0] ?? "")).toMatchObject({ level: "error", organization_id: own.organization, credential_id: credentialId });
  expect([found.code, found.stderr]).toEqual([1, expect.stringContaining(`does not open (not_authentic): organization ${own.organization}, credential ${credentialId}`)]);
  const { provider: _, ...change } = SFTP;
  expect((await call("PATCH", `credentials/${credentialId}`, change, own.user)).status).toBe(200);
  expect(await resolve(credentialId, own.organization)).toMatchObject({ value: { password: "first" } });
});

test("an organization that has reached its limit gets room", async () => {
  const own = await another();
  for (const status of [201, 201, 201, 400]) expect((await call("POST", "credentials", SFTP, own.user)).status).toBe(status);
  expect(await terminal.run(blocksOf("A limit is reached")[0] ?? "")).toBe("sftp: 200\n");
  expect((await call("POST", "credentials", SFTP, own.user)).status).toBe(201);
});
