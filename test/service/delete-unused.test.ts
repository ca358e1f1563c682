import { randomUUID } from "node:crypto";
import pg from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { createCredentialClient, type CredentialClient } from "../../src/client/index.ts";
import { block } from "../support/blocker.ts";
import { connectionOf } from "../support/postgres.ts";
import { rest, type Service, startFresh, startService, token } from "../support/service.ts";

let service: Awaited<ReturnType<typeof startFresh>>;
let other: Service;
let superuser: pg.Client;
let executor: CredentialClient;
let organization: string;
let accountId: string;
let user: string;
const SFTP = { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password: "p" } };

beforeAll(async () => {
  service = await startFresh();
  other = await startService(service.env);
  superuser = new pg.Client(connectionOf(service.database.superuserUrl));
  await superuser.connect();
});
afterAll(async () => {
  await superuser.end();
  await other.stop();
  await service[Symbol.asyncDispose]();
});
beforeEach(async () => {
  [organization, accountId] = [randomUUID(), randomUUID()];
  user = await token("user", organization);
  // Uses are had on one replica, deletions asked of another one.
  executor = createCredentialClient({ target: other.grpc, token: await token("service_account", organization, accountId), tls: "insecure", retries: 0 });
});
afterEach(() => executor.close());

const create = async (): Promise<string> => (await rest(service, "POST", "/integrations/credentials", { token: user, body: SFTP })).json.id;
const resolve = (credentialId: string, flowId = "invoices") => executor.resolveCredential({ credentialId }, { flowId }).then(() => "OK", (error: { reason?: string }) => error.reason);
const remove = (id: string, seconds = 3_600) => rest(service, "DELETE", `/integrations/credentials/${id}?refuse_if_used_within_seconds=${seconds}`, { token: user });

test("a use on another replica counts as soon as it was answered, its user is named, and nothing of the deletion stands", async () => {
  for (let round = 0; round < 10; round++) {
    const id = await create();
    expect(await resolve(id, `flow-${round}`)).toBe("OK");
    const refused = await remove(id);
    expect(refused).toMatchObject({ status: 409, json: { error: { details: [{ field: "used_by", message: expect.stringContaining(`service account ${accountId}, flow flow-${round}, last at `) }] } } });
    expect((await rest(service, "GET", `/integrations/credentials/${id}`, { token: user })).status).toBe(200);
  }
  const { rows } = await superuser.query("select n from credential_counter where organization_id = $1", [organization]);
  expect(rows).toEqual([{ n: 10 }, { n: 10 }]);
});

test("what was used before the time that is asked for is deleted, and so is what was only refused", async () => {
  const [old, refused] = [await create(), await create()];
  expect(await resolve(old)).toBe("OK");
  await superuser.query("update audit_event set occurred_at = occurred_at - interval '2 hours' where credential_id = $1", [old]);
  expect((await remove(old, 7_300)).status).toBe(409);
  expect((await remove(old, 7_100)).status).toBe(204);
  const stranger = createCredentialClient({ target: other.grpc, token: await token("service_account", randomUUID()), tls: "insecure", retries: 0 });
  await expect(stranger.resolveCredential({ credentialId: refused })).rejects.toMatchObject({ reason: "CREDENTIAL_NOT_FOUND" });
  stranger.close();
  expect((await remove(refused)).status).toBe(204);
});

test("a use that is committed while the deletion is under way counts", async () => {
  const id = await create();
  await using blocker = await block(service.database.superuserUrl, "select from audit_head where organization_id = $1 for update", [organization]);
  const use = resolve(id);
  await blocker.holds(1);
  // The deletion began before the use was committed, and waits behind it.
  const deletion = remove(id);
  await blocker.holds(2);
  await blocker.release();
  expect(await use).toBe("OK");
  expect((await deletion).status).toBe(409);
});

test("however uses and deletions meet, nothing is deleted after it was used", async () => {
  const ids = await Promise.all(Array.from({ length: 40 }, create));
  const outcomes = await Promise.all(ids.flatMap((id, index) => {
    const [use, deletion] = [async () => resolve(id), async () => (await remove(id)).status];
    return index % 2 === 0 ? [use(), deletion()] : [deletion(), use()];
  }));
  expect(outcomes.filter((outcome) => !["OK", "CREDENTIAL_NOT_FOUND", 204, 409].includes(outcome as string | number))).toEqual([]);
  const { rows } = await superuser.query(
    `select d.credential_id from audit_event d join audit_event u on u.organization_id = d.organization_id and u.credential_id = d.credential_id
    where d.organization_id = $1 and d.action = 'delete_credential' and d.outcome = 'allowed' and u.action = 'resolve_credential' and u.outcome = 'allowed' and u.link <= d.link`,
    [organization],
  );
  expect(rows).toEqual([]);
  const { rows: deleted } = await superuser.query("select count(*)::integer as n from credential where organization_id = $1 and deleted_at is not null", [organization]);
  expect(deleted[0].n).toBe(outcomes.filter((outcome) => outcome === 204).length);
});
