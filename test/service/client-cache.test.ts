import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createCredentialClient, type CredentialClient, type CredentialClientOptions, type ResolveCredentialResponse } from "../../src/client/index.ts";
import { createAdminClient } from "../../src/client/admin.ts";
import { connect, type FreshDatabase, freshDatabase } from "../support/postgres.ts";
import { administratorToken, operatorToken, rest, type Service, serviceEnv, startService, token } from "../support/service.ts";
import { startProxy } from "../support/tcp-proxy.ts";
import { QUICK } from "../support/watching.ts";

let database: FreshDatabase;
let superuser: Awaited<ReturnType<typeof connect>>;
let replicas: Service[];
let env: Record<string, string>;

beforeAll(async () => {
  database = await freshDatabase();
  superuser = await connect(database.superuserUrl);
  env = serviceEnv(database, { ...QUICK, CREDENTIALS_REFRESH_SWEEP_MS: "3600000" });
  replicas = await Promise.all([startService(env), startService(env)]);
});
afterAll(async () => {
  await Promise.all(replicas.map((replica) => replica.stop()));
  await superuser[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

/** Polls for longer than a loaded machine needs. */
const soon = <T>(what: () => T) => expect.poll(what, { timeout: 15_000 });

const replica = (n: number): Service => replicas[n % replicas.length] as Service;
const sftp = (password: string) => ({ provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password } });
const passwordOf = ({ credentials }: ResolveCredentialResponse): string => (credentials?.$case === "sftpPassword" ? credentials.value.password : "none");
const reasonOf = (error: unknown): string => String((error as { reason?: unknown }).reason ?? error);

/** An organization with one credential, and an executor that keeps secrets. */
async function world(options: Partial<CredentialClientOptions> = {}, body: object = sftp("first")) {
  const organization = randomUUID();
  const accountId = randomUUID();
  const [user, admin, machine] = await Promise.all([token("user", organization), administratorToken(organization), token("service_account", organization, accountId)]);
  const { json } = await rest(replica(0), "POST", "/integrations/credentials", { token: user, body });
  const client = createCredentialClient({ target: replica(1).grpc, token: machine, cache: {}, ...options });
  const credentialId = json.id as string;
  return {
    organization, user, admin, machine, accountId, client, credentialId,
    resolve: (call: Parameters<CredentialClient["resolveCredential"]>[1] = {}) => client.resolveCredential({ credentialId }, call).then(passwordOf, reasonOf),
    update: (password: string, through = 0) => rest(replica(through), "PATCH", `/integrations/credentials/${credentialId}`, { token: user, body: { credential_type: "user_password", credentials: sftp(password).credentials } }),
    remove: () => rest(replica(0), "DELETE", `/integrations/credentials/${credentialId}`, { token: user }),
    records: async (action: string) => (await superuser.query("select outcome, calls, flow_id, run_id, actor_id from audit_event where organization_id = $1 and action = $2 order by link, position", [organization, action])).rows,
    status: () => (client.cache as NonNullable<CredentialClient["cache"]>).status(),
    ready: () => (client.cache as NonNullable<CredentialClient["cache"]>).ready(),
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  };
}

test("a secret is asked for once, answered from memory after that, and followed by the next one as it changes", async () => {
  await using it = await world();
  await it.ready();
  for (let n = 0; n < 1_000; n++) expect(await it.resolve()).toBe("first");
  expect([it.status().hits, it.status().misses, (await it.records("resolve_credential")).length]).toEqual([999, 1, 1]);
  await it.update("second");
  await soon(() => it.resolve()).toBe("second");
  await it.remove();
  await soon(() => it.resolve()).toBe("CREDENTIAL_NOT_FOUND");
  expect(it.status().entries).toBe(0);
});

test("many who ask at the same time share one call, each with its own deadline, and each of them is counted", async () => {
  await using it = await world();
  await it.ready();
  const gone = AbortSignal.abort();
  const answers = await Promise.all([...Array.from({ length: 50 }, (_, n) => it.resolve({ flowId: "f", runId: `r${n % 2}` })), it.resolve({ signal: gone })]);
  expect(answers.filter((answer) => answer === "first")).toHaveLength(50);
  expect(answers.at(-1)).toContain("cancelled");
  expect(await it.records("resolve_credential")).toHaveLength(1);
  await it.client.cache?.report();
  const reported = await it.records("report_credential_uses");
  expect(reported.map(({ run_id, calls }) => [run_id, calls]).toSorted()).toEqual([["r0", 24], ["r1", 25]]);
  expect(reported[0]).toMatchObject({ outcome: "allowed", flow_id: "f", actor_id: it.accountId });
});

test("uses are in the audit trail, whose chain holds, and in what is known of who uses a credential", async () => {
  await using it = await world();
  await it.ready();
  for (let n = 0; n < 7; n++) await it.resolve({ flowId: "invoices", runId: "42" });
  await it.client[Symbol.asyncDispose]();
  expect((await it.records("report_credential_uses")).map(({ calls, flow_id, run_id }) => [calls, flow_id, run_id])).toEqual([[6, "invoices", "42"]]);
  const detail = await rest(replica(0), "GET", `/integrations/credentials/${it.credentialId}`, { token: it.user });
  expect(detail.json.used_by).toMatchObject([{ service_account_id: it.accountId, flow_id: "invoices", last_run_id: "42", uses: "7" }]);
  using admin = createAdminClient({ target: replica(1).grpc, token: await operatorToken(), tls: undefined, deadlineMs: 10_000 });
  const { events } = await admin.listAuditEvents({ organizationId: it.organization, pageSize: 100, pageToken: "", action: "report_credential_uses", oldestFirst: false });
  expect(events.map(({ calls }) => calls)).toEqual([6]);
  expect(await admin.verifyAudit({ organizationId: it.organization, afterLink: 0n })).toMatchObject({ complete: true, fault: undefined });
  await superuser.query("alter table audit_event disable trigger all");
  await superuser.query("update audit_event set calls = 5 where organization_id = $1 and calls = 6", [it.organization]);
  expect(await admin.verifyAudit({ organizationId: it.organization, afterLink: 0n })).toMatchObject({ fault: { link: 4n } });
});

test("a credential whose kept secret was used is in use, however long ago it was resolved", async () => {
  await using it = await world();
  await it.ready();
  await it.resolve();
  await it.resolve();
  await it.client.cache?.report();
  const remove = () => rest(replica(0), "DELETE", `/integrations/credentials/${it.credentialId}?refuse_if_used_within_seconds=600`, { token: it.user });
  const age = (action: string) => superuser.query("update audit_event set occurred_at = occurred_at - interval '1 hour' where organization_id = $1 and action = $2", [it.organization, action]);
  await age("resolve_credential");
  expect((await remove()).status).toBe(409);
  await age("report_credential_uses");
  expect((await remove()).status).toBe(204);
});

test("what an account has not resolved it cannot report, whoever has; and a report is bounded", async () => {
  await using it = await world();
  await using other = await world();
  await using mine = createCredentialClient({ target: replica(0).grpc, token: it.machine });
  const report = (...reports: { credentialId: string; uses: bigint }[]) => mine.reportCredentialUses({ reports }).then(({ notResolved }) => notResolved, reasonOf);
  await mine.resolveCredential({ credentialId: it.credentialId });
  await other.resolve();
  expect(await report({ credentialId: other.credentialId, uses: 3n }, { credentialId: it.credentialId, uses: 2n }, { credentialId: randomUUID(), uses: 1n })).toEqual([0, 2]);
  expect([await it.records("report_credential_uses"), await other.records("report_credential_uses")]).toMatchObject([[{ calls: 2 }], []]);
  await using colleague = createCredentialClient({ target: replica(0).grpc, token: await token("service_account", it.organization) });
  expect((await colleague.reportCredentialUses({ reports: [{ credentialId: it.credentialId, uses: 1n }] })).notResolved).toEqual([0]);
  for (const uses of [0n, 1_000_001n]) expect(await report({ credentialId: it.credentialId, uses })).toBe("INVALID_REQUEST");
  expect(await report(...Array.from({ length: 257 }, () => ({ credentialId: it.credentialId, uses: 1n })))).toBe("INVALID_REQUEST");
  expect(await report()).toBe("INVALID_REQUEST");
  expect((await it.records("report_credential_uses")).filter(({ outcome }) => outcome === "allowed")).toHaveLength(1);
});

test("nothing is used from memory that is not granted any more, nor with a key that was revoked", async () => {
  await using it = await world();
  const { json: account } = await rest(replica(0), "POST", "/service-accounts", { token: it.admin, body: { name: "executor" } });
  const { json: key } = await rest(replica(0), "POST", `/service-accounts/${account.id}/api-keys`, { token: it.admin, body: { name: "key" } });
  await using client = createCredentialClient({ target: replica(1).grpc, token: key.token as string, cache: { failStaticMs: 3_600_000 } });
  await client.cache?.ready();
  const resolve = () => client.resolveCredential({ credentialId: it.credentialId }, { failStatic: true }).then(passwordOf, reasonOf);
  expect([await resolve(), await resolve()]).toEqual(["first", "first"]);
  await rest(replica(0), "PUT", `/service-accounts/${account.id}/access`, { token: it.admin, body: { everything: false, providers: ["google"], credential_ids: [] } });
  await soon(resolve).toBe("NOT_GRANTED");
  await rest(replica(0), "PUT", `/service-accounts/${account.id}/access`, { token: it.admin, body: { everything: true, providers: [], credential_ids: [] } });
  await soon(async () => [await resolve(), client.cache?.status().entries]).toEqual(["first", 1]);
  await rest(replica(0), "DELETE", `/service-accounts/${account.id}/api-keys/${key.id}`, { token: it.admin });
  await soon(() => client.cache?.status().entries).toBe(0);
  expect(await resolve()).toBe("INVALID_TOKEN");
});

test("an access token is kept until a minute before its end, and followed by its renewal", async () => {
  await using it = await world({}, { provider: "google", credential_type: "oauth2", credentials: { access_token: "t1", refresh_token: "r", expires_in: 3600 } });
  await it.ready();
  const resolved = await it.client.resolveCredential({ credentialId: it.credentialId });
  expect(resolved.cacheSeconds).toBe(300);
  expect(it.status().entries).toBe(1);
  await superuser.query("update credential set token_expires_at = now() + interval '100 seconds' where id = $1", [it.credentialId]);
  const soon = await it.client.resolveCredential({ credentialId: it.credentialId }, { fresh: true });
  expect(soon.cacheSeconds).toBeGreaterThan(30);
  expect(soon.cacheSeconds).toBeLessThanOrEqual(40);
  await superuser.query("update credential set token_expires_at = now() + interval '30 seconds' where id = $1", [it.credentialId]);
  expect((await it.client.resolveCredential({ credentialId: it.credentialId }, { fresh: true })).cacheSeconds).toBe(0);
});

test("where the operator does not allow it nothing is kept", async () => {
  await using strict = await startService({ ...env, CREDENTIALS_CLIENT_CACHE_SECONDS: "0" });
  await using it = await world({ target: strict.grpc });
  await it.ready();
  expect([await it.resolve(), await it.resolve(), it.status().entries, it.status().hits]).toEqual(["first", "first", 0, 0]);
});

test("cut off, a client asks; calls that allow it are answered with what was known last, up to their bound", async () => {
  await using proxy = await startProxy(replica(1).grpc);
  await using it = await world({ target: proxy.target, retries: 0, cache: { maxSilenceMs: 1_000, failStaticMs: 3_600_000 } });
  await it.ready();
  expect(await it.resolve()).toBe("first");
  proxy.freeze();
  await it.update("second");
  // Trusted for a second after the last sign, and never after that.
  await soon(() => it.resolve({ deadlineMs: 100 })).toMatch(/deadline|Deadline/);
  expect(it.status().ageMs).toBeGreaterThan(1_000);
  expect(await it.resolve({ deadlineMs: 100, failStatic: true })).toBe("first");
  expect(await it.resolve({ deadlineMs: 100 })).toMatch(/deadline|Deadline/);
  expect(it.status().stale).toBe(1);
  proxy.cut();
  expect(await it.resolve({ failStatic: true })).toBe("first");
  proxy.heal();
  await soon(() => it.resolve({ failStatic: true })).toBe("second");
  await soon(() => it.status().following).toBe(true);
}, 30_000);

test("a client that is closed holds nothing, and its watch is gone from the service", async () => {
  const it = await world();
  await it.ready();
  await it.resolve();
  expect(it.status().entries).toBe(1);
  const watches = async () => /credentials_watches (\d+)/.exec(await (await fetch(`${replica(1).rest}/metrics`)).text())?.[1];
  expect(Number(await watches())).toBeGreaterThan(0);
  await it.client[Symbol.asyncDispose]();
  expect([it.status().entries, it.status().following]).toEqual([0, false]);
  await expect(it.client.resolveCredential({ credentialId: it.credentialId })).rejects.toMatchObject({ code: "CANCELLED" });
  await soon(watches).toBe("0");
});

test("the raw stream is there to be read too, and ends with who reads it", async () => {
  await using it = await world();
  const kinds: (string | undefined)[] = [];
  for await (const { message } of it.client.watchCredentials({ position: "" })) {
    kinds.push(message?.$case);
    if (kinds.length === 1) await it.update("second");
    if (message?.$case === "event") break;
  }
  expect([kinds[0], kinds.at(-1)]).toEqual(["bookmark", "event"]);
  const refused = it.client.watchCredentials({ position: "nonsense" })[Symbol.asyncIterator]();
  await expect(refused.next()).rejects.toMatchObject({ code: "INVALID_ARGUMENT", reason: "INVALID_REQUEST" });
});
