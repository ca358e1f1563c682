import { randomUUID } from "node:crypto";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { block } from "../support/blocker.ts";
import { connectionOf } from "../support/postgres.ts";
import { administratorToken, operatorToken, rest, type Service, startFresh, startService, token } from "../support/service.ts";

let service: Awaited<ReturnType<typeof startFresh>>;
let other: Service;
let superuser: pg.Client;
let organization: string;
let user: string;
const SECRET = "idempotency-canary-f3b1";
const SFTP = { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password: SECRET } };
const { provider: _, ...CHANGE } = SFTP;

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
  organization = randomUUID();
  user = await token("user", organization);
});

const call = (method: string, path: string, key: string | null, body?: unknown, as = user, on: Pick<Service, "rest"> = service) =>
  rest(on, method, path, { token: as, ...(key === null ? {} : { headers: { "idempotency-key": key } }), ...(body === undefined ? {} : { body }) });
const create = (key: string | null, body: unknown = SFTP, as = user, on: Pick<Service, "rest"> = service) => call("POST", "/integrations/credentials", key, body, as, on);
const count = async (): Promise<number> => Number((await superuser.query("select count(*) as n from credential where organization_id = $1", [organization])).rows[0].n);
const events = async (action: string): Promise<number> =>
  Number((await superuser.query("select count(*) as n from audit_event where organization_id = $1 and action = $2 and outcome = 'allowed'", [organization, action])).rows[0].n);

describe("a write under an idempotency key", () => {
  test("takes effect once and is answered the same, on every replica", async () => {
    const key = randomUUID();
    const first = await create(key);
    expect(first.status).toBe(201);
    for (const replica of [service, other]) {
      const again = await create(key, SFTP, user, replica);
      expect([again.status, again.text]).toEqual([201, first.text]);
    }
    // The same request in another order is the same request.
    const { provider, ...rest } = SFTP;
    expect((await create(key, { ...rest, provider })).text).toBe(first.text);
    expect([await count(), await events("create_credential")]).toEqual([1, 1]);
    expect((await create(null)).json.id).not.toBe(first.json.id);
    expect((await create(randomUUID())).json.id).not.toBe(first.json.id);
  });

  test("with another request is 409, and changes nothing", async () => {
    const key = randomUUID();
    await create(key);
    const changed = await create(key, { ...SFTP, credentials: { ...SFTP.credentials, password: "another" } });
    expect(changed).toMatchObject({ status: 409, json: { error: { code: "conflict", message: "The idempotency key was used for another request" } } });
    expect(await count()).toBe(1);
  });

  test("belongs to its caller and to what it does", async () => {
    const key = randomUUID();
    const first = await create(key);
    const colleague = await create(key, SFTP, await token("user", organization));
    const stranger = await create(key, SFTP, await token("user", randomUUID()));
    expect(new Set([first, colleague, stranger].map(({ json }) => json.id)).size).toBe(3);
    const path = `/integrations/credentials/${first.json.id}`;
    const updated = await call("PATCH", path, key, CHANGE);
    expect(updated.status).toBe(200);
    expect((await call("PATCH", path, key, CHANGE)).text).toBe(updated.text);
    expect((await call("DELETE", path, key)).status).toBe(204);
    expect((await call("DELETE", path, key)).status).toBe(204);
    expect((await call("DELETE", path, null)).status).toBe(404);
    expect((await call("PATCH", path, key, CHANGE)).text).toBe(updated.text);
    expect([await events("update_credential"), await events("delete_credential")]).toEqual([1, 1]);
  });

  test("that is refused leaves the key unused", async () => {
    const key = randomUUID();
    expect((await create(key, { ...SFTP, credential_type: "key_file" })).status).toBe(400);
    expect((await create(key)).status).toBe(201);
  });

  test("that is refused by a rule of the key itself is a 400", async () => {
    for (const key of ["x".repeat(256), ""]) expect((await create(key)).status).toBe(400);
    expect((await create("x".repeat(255))).status).toBe(201);
  });

  test("a hundred times at once on two replicas takes effect once, and nobody gets another answer", async () => {
    const key = randomUUID();
    const answers = await Promise.all(Array.from({ length: 100 }, (_unused, index) => create(key, SFTP, user, index % 2 === 0 ? service : other)));
    const good = answers.filter(({ status }) => status === 201);
    const late = answers.filter(({ status }) => status !== 201);
    expect(new Set(good.map(({ text }) => text)).size).toBe(1);
    expect(late.every(({ status, json, headers }) => status === 409 && /under way/.test(json.error.message) && headers.get("retry-after") === "1")).toBe(true);
    expect([await count(), await events("create_credential")]).toEqual([1, 1]);
    expect((await create(key)).text).toBe(good[0]?.text);
  });

  test("while the same one is under way is 409, with a time to try again", async () => {
    const key = randomUUID();
    const warm = await create(null);
    expect(warm.status).toBe(201);
    await using blocker = await block(service.database.superuserUrl, "lock table credential_counter in access exclusive mode");
    const first = create(key);
    await blocker.holds(1);
    expect(await create(key)).toMatchObject({ status: 409, json: { error: { message: expect.stringContaining("under way") } } });
    await blocker.release();
    expect((await first).status).toBe(201);
    expect((await create(key)).text).toBe((await first).text);
  });

  test("survives the end of the process that did it", async () => {
    const mortal = await startService(service.env);
    const key = randomUUID();
    const first = await create(key, SFTP, user, mortal);
    await mortal.stop("SIGKILL");
    expect((await create(key)).text).toBe(first.text);
    const dying = await startService(service.env);
    const other = randomUUID();
    const answers = Promise.allSettled(Array.from({ length: 20 }, () => create(other, SFTP, user, dying)));
    dying.process.kill("SIGKILL");
    await answers;
    const after = await create(other);
    expect(after.status).toBe(201);
    expect((await create(other)).text).toBe(after.text);
    expect([await count(), await events("create_credential")]).toEqual([2, 2]);
    expect(Number((await superuser.query("select count(*) as n from idempotency_record where organization_id = $1", [organization])).rows[0].n)).toBe(2);
  });

  test("is kept without any secret, and forgotten after its time", async () => {
    const key = randomUUID();
    const first = await create(key);
    const { rows } = await superuser.query("select r.*, r.answer::text as text from idempotency_record r where organization_id = $1", [organization]);
    expect(rows).toHaveLength(1);
    expect(JSON.stringify(rows)).not.toContain(SECRET);
    expect(JSON.stringify(rows)).not.toContain(key);
    expect(Object.keys(rows[0].answer)).not.toContain("sealed");
    await superuser.query("update idempotency_record set expires_at = now() - interval '1 second' where organization_id = $1", [organization]);
    expect((await create(key)).json.id).not.toBe(first.json.id);
    expect(await count()).toBe(2);
  });
});

test("service accounts are made once under a key, and a repeated key is answered without the key itself", async () => {
  const [admin, operator] = await Promise.all([administratorToken(organization), operatorToken()]);
  const [one, two] = [randomUUID(), randomUUID()];
  const account = await call("POST", "/service-accounts", one, { name: "n" }, admin);
  expect((await call("POST", "/service-accounts", one, { name: "n" }, admin)).text).toBe(account.text);
  expect((await call("POST", "/service-accounts", one, { name: "other" }, admin)).status).toBe(409);
  const path = `/service-accounts/${account.json.id}/api-keys`;
  const made = await call("POST", path, two, {}, admin);
  const again = await call("POST", path, two, {}, admin);
  expect(made.json.token).toMatch(/^saf_org_/);
  expect(again).toMatchObject({ status: 201, json: { ...made.json, token: null } });
  expect((await call("GET", path, null, undefined, admin)).json).toHaveLength(1);
  const changed = await call("PATCH", `/service-accounts/${account.json.id}`, one, { name: "new" }, admin);
  expect((await call("PATCH", `/service-accounts/${account.json.id}`, one, { name: "new" }, admin)).text).toBe(changed.text);
  const body = { name: "by an operator", organization_id: organization };
  expect((await call("POST", "/service-accounts", one, body, operator)).text).toBe((await call("POST", "/service-accounts", one, body, operator)).text);
  for (let n = 0; n < 2; n++) expect((await call("DELETE", `/service-accounts/${account.json.id}`, one, undefined, admin)).status).toBe(204);
});
