import { randomUUID } from "node:crypto";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { createCredentialClient, type CredentialClient } from "../../src/client/index.ts";
import { connectionOf } from "../support/postgres.ts";
import { rest, startFresh, token } from "../support/service.ts";

/** Two organizations with two credentials each, and a database administrator who moves bytes between rows. */
let service: Awaited<ReturnType<typeof startFresh>>;
let administrator: pg.Client;
const [A, B] = [randomUUID(), randomUUID()] as const;
let clients: Record<string, CredentialClient>;
let users: Record<string, string>;
let mine: string;
let sibling: string;
let foreign: string;

const sftp = (password: string) => ({ provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password } });

async function create(organization: string, body: unknown): Promise<string> {
  const { json } = await rest(service, "POST", "/integrations/credentials", { token: users[organization] as string, body });
  return json.id;
}

beforeAll(async () => {
  service = await startFresh();
  administrator = new pg.Client(connectionOf(service.database.superuserUrl));
  await administrator.connect();
  // An administrator can switch the triggers off; the seal has to hold without them.
  await administrator.query("set session_replication_role = replica");
  users = { [A]: await token("user", A), [B]: await token("user", B) };
  clients = Object.fromEntries(
    await Promise.all([A, B].map(async (id) => [id, createCredentialClient({ target: service.grpc, token: await token("service_account", id), tls: "insecure" })] as const)),
  );
});
beforeEach(async () => {
  mine = await create(A, sftp("mine"));
  sibling = await create(A, sftp("sibling"));
  foreign = await create(B, sftp("foreign"));
});
afterAll(async () => {
  await administrator.end();
  for (const client of Object.values(clients)) client.close();
  await service[Symbol.asyncDispose]();
});

const resolve = (organization: string, credentialId: string) => (clients[organization] as CredentialClient).resolveCredential({ credentialId });
const unreadable = { reason: "SECRET_UNREADABLE", incident: expect.stringMatching(/^[0-9A-Z]{26}$/) };
const copySealed = "update credential set sealed = (select sealed from credential where id = $1) where id = $2";

test("a sealed value moved to another row of the same organization does not open", async () => {
  await administrator.query(copySealed, [sibling, mine]);
  await expect(resolve(A, mine)).rejects.toMatchObject(unreadable);
  expect(await resolve(A, sibling)).toMatchObject({ credentials: { value: { password: "sibling" } } });
});

test("a sealed value moved to another organization does not open", async () => {
  await administrator.query(copySealed, [mine, foreign]);
  await expect(resolve(B, foreign)).rejects.toMatchObject(unreadable);
});

test("a whole row moved to another organization does not open", async () => {
  await administrator.query("update credential set organization_id = $1 where id = $2", [B, mine]);
  await expect(resolve(A, mine)).rejects.toMatchObject({ reason: "CREDENTIAL_NOT_FOUND" });
  await expect(resolve(B, mine)).rejects.toMatchObject(unreadable);
});

test.each([
  ["provider", "provider = 'postgresql'"],
  ["credential type", "credential_type = 'key_file'"],
  ["secret version", "secret_version = secret_version + 1"],
])("a row whose %s was changed does not open", async (_, change) => {
  await administrator.query(`update credential set ${change} where id = $1`, [mine]);
  await expect(resolve(A, mine)).rejects.toMatchObject(unreadable);
});

test("an old sealed value put back after an update does not open", async () => {
  const { rows } = await administrator.query("select sealed from credential where id = $1", [mine]);
  const { provider: _, ...change } = sftp("newer");
  expect((await rest(service, "PATCH", `/integrations/credentials/${mine}`, { token: users[A] as string, body: change })).status).toBe(200);
  await administrator.query("update credential set sealed = $1 where id = $2", [rows[0].sealed, mine]);
  await expect(resolve(A, mine)).rejects.toMatchObject(unreadable);
});

test("one flipped bit anywhere does not open; the row still lists, and a new secret makes it whole again", async () => {
  const { rows } = await administrator.query<{ sealed: Buffer }>("select sealed from credential where id = $1", [mine]);
  const sealed = rows[0]?.sealed as Buffer;
  for (const at of [3, 6, 7, 18, 19, sealed.length - 17, sealed.length - 1]) {
    const flipped = Buffer.from(sealed);
    flipped[at] = (flipped[at] as number) ^ 1;
    await administrator.query("update credential set sealed = $1 where id = $2", [flipped, mine]);
    await expect(resolve(A, mine), `byte ${at}`).rejects.toMatchObject(unreadable);
  }
  const listed = await rest(service, "GET", "/integrations/credentials", { token: users[A] as string });
  expect(listed.json.map((item: { id: string }) => item.id)).toEqual(expect.arrayContaining([mine, sibling]));
  const { provider: _, ...change } = sftp("replaced");
  expect((await rest(service, "PATCH", `/integrations/credentials/${mine}`, { token: users[A] as string, body: change })).status).toBe(200);
  expect(await resolve(A, mine)).toMatchObject({ credentials: { value: { password: "replaced" } } });
});

test("a secret written in the clear into the column is refused, never served", async () => {
  const clear = Buffer.concat([Buffer.from([0xc5]), Buffer.from(JSON.stringify({ host: "h", username: "u", password: "clear" }))]);
  await administrator.query("update credential set sealed = $1 where id = $2", [clear, mine]);
  await expect(resolve(A, mine)).rejects.toMatchObject(unreadable);
});

test("the incident is in the audit trail as a second record of the same request", async () => {
  await administrator.query(copySealed, [sibling, mine]);
  const error = await resolve(A, mine).catch((reason: unknown) => reason as { requestId: string });
  const { requestId } = error as { requestId: string };
  const { rows } = await administrator.query("select outcome, reason from audit_event where request_id = $1 order by outcome", [requestId]);
  expect(rows).toEqual([
    { outcome: "allowed", reason: null },
    { outcome: "refused", reason: "SECRET_UNREADABLE" },
  ]);
});
