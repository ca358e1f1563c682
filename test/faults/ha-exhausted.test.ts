import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { createCredentialClient, type CredentialClient } from "../../src/client/index.ts";
import { block } from "../support/blocker.ts";
import { RECOVERY_MS } from "../support/ha.ts";
import { connect } from "../support/postgres.ts";
import { rest, startFresh, token } from "../support/service.ts";

let service: Awaited<ReturnType<typeof startFresh>>;
let user: string;
let id: string;
let client: CredentialClient;
beforeAll(async () => {
  service = await startFresh({ CREDENTIALS_DATABASE_POOL_SIZE: "2" });
  const organization = randomUUID();
  user = await token("user", organization);
  client = createCredentialClient({ target: service.grpc, token: await token("service_account", organization), tls: "insecure", retries: 0 });
  const body = { provider: "sftp", credential_type: "user_password", credentials: { host: "h.example", username: "u", password: "p" } };
  id = (await rest(service, "POST", "/integrations/credentials", { token: user, body })).json.id;
});
afterAll(async () => {
  client.close();
  await service[Symbol.asyncDispose]();
});

// Lists, since descriptions that are asked for together share a statement, and fill no pool.
const read = async () => (await rest(service, "GET", "/integrations/credentials", { token: user })).status;
const code = (call: Promise<unknown>) => call.then(() => "OK", (error: { code?: string; reason?: string }) => `${error.code} ${error.reason}`);
const get = () => code(client.getCredential({ credentialId: id }));
const resolve = () => code(client.resolveCredential({ credentialId: id }));
const allIsWell = () => vi.waitFor(async () => expect([await read(), await get(), await resolve()]).toEqual([200, "OK", "OK"]), { timeout: RECOVERY_MS });

test("more calls than the pool can take are told to come again, at once or when they have waited for long, and all goes on when it has room", async () => {
  await using blocker = await block(service.database.superuserUrl, "lock table credential in access exclusive mode");
  // So many of each kind that some of them are refused whichever comes first.
  const outcomes = new Set((await Promise.all(Array.from({ length: 100 }, () => [read(), get()] as const).flat())).map(String));
  // Those that have a connection wait for a lock, in vain.
  for (const allowed of ["503", "UNAVAILABLE DATABASE_UNAVAILABLE"]) outcomes.delete(allowed);
  expect([...outcomes].toSorted()).toEqual(["429", "RESOURCE_EXHAUSTED OVERLOADED"]);
  await blocker.release();
  await allIsWell();
}, 60_000);

test("a server that takes no more connections is a database that is away, and all goes on when it takes some", async () => {
  await using superuser = await connect(service.database.superuserUrl);
  await superuser.query(`alter database ${service.database.name} connection limit 0`);
  await superuser.query("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and usename = 'credentials_app'");
  await vi.waitFor(async () => expect([await read(), await get(), await resolve()]).toEqual([503, "UNAVAILABLE DATABASE_UNAVAILABLE", "UNAVAILABLE AUDIT_UNAVAILABLE"]), { timeout: 10_000 });
  await superuser.query(`alter database ${service.database.name} connection limit -1`);
  await allIsWell();
}, 60_000);
