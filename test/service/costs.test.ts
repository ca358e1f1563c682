import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createCredentialClient, type CredentialClient, CredentialType, Provider } from "../../src/client/index.ts";
import type { Store } from "../../src/store/store.ts";
import { type Service, serviceEnv, startService, token } from "../support/service.ts";
import { type Cost, type CountingDatabase, countingDatabase } from "../support/statements.ts";
import { create, openTestStore, resolve } from "../support/store.ts";

/** Costs that do not depend on the machine: what calls make PostgreSQL do. A change that makes them grow is to say so here. */

let database: CountingDatabase;
beforeAll(async () => {
  database = await countingDatabase();
});
afterAll(() => database[Symbol.asyncDispose]());

const RESOLVE = /found as materialized/;
const CREATE = /admitted as materialized/;
const DESCRIBE = /^select a\.place/;

const executed = (costs: readonly Cost[], text: RegExp): number => costs.filter((cost) => text.test(cost.text)).reduce((sum, { calls }) => sum + calls, 0);

/** How many transactions there were of nothing but a statement and, before it, the settings that every transaction has. */
function transactionsOf(costs: readonly Cost[], statement: RegExp): number {
  const [settings, statements, all] = [/set_config/, statement, /^/].map((text) => executed(costs, text)) as [number, number, number];
  expect([settings, all]).toEqual([statements, 2 * statements]);
  return statements;
}

describe("calls that come together share what they cost", () => {
  let store: Store & AsyncDisposable;
  const organizations = Array.from({ length: 8 }, () => randomUUID());
  const stored: { organizationId: string; id: string }[] = [];
  beforeAll(async () => {
    store = await openTestStore(database.applicationUrl);
    for (const organizationId of organizations) stored.push({ organizationId, id: (await create(store, organizationId)).id });
    // The first transaction of a connection prepares its statements; creations have two connections.
    await Promise.all([resolves(1), ...organizations.map((organizationId) => create(store, organizationId))]);
  });
  afterAll(() => store.close());
  const resolves = (count: number) => Promise.all(Array.from({ length: count }, (_, index) => resolve(store, stored[index % 8]?.organizationId ?? "", stored[index % 8]?.id ?? "")));

  // Thirty-two go at once, and as many more while they are under way; what comes then waits for either.
  test.each([[1, 1], [32, 1], [64, 2], [256, 3], [1_000, 6]])("%i resolves at once are %i transactions", async (calls, transactions) => {
    const costs = await database.during(() => resolves(calls));
    expect(transactionsOf(costs, RESOLVE)).toBe(transactions);
  });

  // Organizations are spread over two connections, which take turns with what comes meanwhile.
  test.each([[1, 1], [32, 2], [64, 2], [128, 4]])("%i creations at once are %i transactions", async (calls, transactions) => {
    const costs = await database.during(() => Promise.all(Array.from({ length: calls }, (_, index) => create(store, organizations[index % 8] as string, { provider: index % 2 ? "sftp" : "postgresql" }))));
    expect(transactionsOf(costs, CREATE)).toBe(transactions);
  });

  test.each([[1, 1], [32, 1], [64, 2], [128, 3]])("%i descriptions at once are %i transactions", async (calls, transactions) => {
    const costs = await database.during(() => Promise.all(Array.from({ length: calls }, (_, index) => store.credentials.describe(stored[index % 8]?.organizationId ?? "", stored[index % 8]?.id ?? ""))));
    // A connection of the pool that is new executes its settings once more.
    expect(executed(costs, DESCRIBE)).toBe(transactions);
  });

  test("what they write to the log of changes is bounded for each", async () => {
    const walOf = async (calls: number, work: () => Promise<unknown>) => (await database.during(work)).reduce((sum, { walBytes }) => sum + walBytes, 0) / calls;
    await resolves(1_000);
    const [alone, together, created] = [
      await walOf(50, async () => { for (let call = 0; call < 50; call += 1) await resolves(1); }),
      await walOf(1_024, () => resolves(1_024)),
      await walOf(64, () => Promise.all(Array.from({ length: 64 }, () => create(store, randomUUID())))),
    ];
    expect(alone).toBeLessThan(1_000);
    expect(together).toBeLessThan(700);
    expect(created).toBeLessThan(4_200);
  });
});

describe("a call of the service", () => {
  let service: Service;
  const clients: CredentialClient[] = [];
  const SETTINGS = { CREDENTIALS_REFRESH_SWEEP_MS: "3600000", CREDENTIALS_TALLY_INTERVAL_MS: "3600000", CREDENTIALS_AUDIT_SIGN_INTERVAL_MS: "3600000" };
  const ids: string[] = [];
  beforeAll(async () => {
    service = await startService(serviceEnv(database, SETTINGS));
    const organizationId = randomUUID();
    for (const kind of ["user", "service_account"] as const) clients.push(createCredentialClient({ target: service.grpc, token: await token(kind, organizationId), tls: "insecure" }));
    const [user] = clients as [CredentialClient];
    const sftp = await user.createCredential({ provider: Provider.PROVIDER_SFTP, credentialType: CredentialType.CREDENTIAL_TYPE_USER_PASSWORD, credentials: { host: "h.example", username: "u", password: "p" } });
    const oauth = await user.createCredential({ provider: Provider.PROVIDER_GOOGLE, credentialType: CredentialType.CREDENTIAL_TYPE_OAUTH2, credentials: { access_token: "a", refresh_token: "r", client_id: "i", client_secret: "s", expires_in: 86_400 } });
    ids.push(sftp.credential?.id ?? "", oauth.credential?.id ?? "");
  }, 60_000);
  afterAll(async () => {
    for (const client of clients) client.close();
    await service[Symbol.asyncDispose]();
  });

  /** More than the service's own work could execute of one statement meanwhile. */
  const CALLS = 40;
  /** Statements of one call: what was executed less often than there were calls is the service's own work. */
  async function statements(call: (user: CredentialClient, machine: CredentialClient) => Promise<unknown>): Promise<number> {
    const [user, machine] = clients as [CredentialClient, CredentialClient];
    await call(user, machine);
    const costs = await database.during(async () => {
      for (let n = 0; n < CALLS; n += 1) await call(user, machine);
    });
    return costs.reduce((sum, { calls }) => sum + Math.floor(calls / CALLS), 0);
  }

  test.each<[string, number, (user: CredentialClient, machine: CredentialClient) => Promise<unknown>]>([
    ["ResolveCredential", 2, (_, machine) => machine.resolveCredential({ credentialId: ids[0] as string })],
    ["ResolveCredential of an OAuth credential whose token is good", 2, (_, machine) => machine.resolveCredential({ credentialId: ids[1] as string })],
    ["ListCredentials", 2, (user) => user.listCredentials({ provider: Provider.PROVIDER_UNSPECIFIED })],
    ["CreateCredential", 2, (user) => user.createCredential({ provider: Provider.PROVIDER_POSTGRESQL, credentialType: CredentialType.CREDENTIAL_TYPE_USER_PASSWORD, credentials: { host: "h.example", port: 5432, database: "d", username: "u", password: "p" } })],
    ["GetCredential", 2, (user) => user.getCredential({ credentialId: ids[0] as string })],
  ])("%s is at most %i statements", async (_, most, call) => {
    expect(await statements(call)).toBeLessThanOrEqual(most);
  });
});
