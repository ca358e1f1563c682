import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import { migrate } from "../../src/store/migrate.ts";
import { parseDatabaseUrl } from "../../src/store/connection.ts";
import { NEXT } from "../support/next-release.ts";
import { connect, freshDatabase } from "../support/postgres.ts";
import { allowed, create, LIMITS, NEVER, newCredential, openTestStore, reasonOf, resolve, sealedBytes } from "../support/store.ts";

/** One connection to a pool, so that what was prepared before is what is used after. */
const ONE = { poolSize: 1, backgroundPoolSize: 1 };

test("statements that were prepared before the next release added a column to every table are answered as before", async () => {
  await using database = await freshDatabase();
  await using store = await openTestStore(database.applicationUrl, ONE);
  const organizationId = randomUUID();
  const { id, userId } = await create(store, organizationId);
  const replaced = { organizationId, id, credentialType: "user_password", name: null, accountEmail: null, tokenExpiresAt: null, status: "active", modifiedBy: userId, sealed: sealedBytes(), keepPreviousSeconds: 600 } as const;
  let revision = 1;
  const everything = async () => {
    const row = newCredential(organizationId);
    const change = { ...replaced, expectedRevision: revision, secretVersion: BigInt(revision + 1) };
    revision += 1;
    store.usage.credential({ organizationId, credentialId: id, serviceAccountId: userId, flowId: null, runId: null });
    return {
      created: await reasonOf(store.credentials.create(row, LIMITS, allowed(organizationId, row.id), NEVER)),
      replaced: await reasonOf(store.credentials.replace(change, allowed(organizationId, id, "update_credential"), NEVER)),
      removed: await reasonOf(store.credentials.remove({ organizationId, id: row.id, expectedRevision: null, modifiedBy: userId }, allowed(organizationId, row.id, "delete_credential"), NEVER)),
      resolved: await reasonOf(resolve(store, organizationId, id)),
      found: await reasonOf(store.credentials.get(organizationId, id, NEVER)),
      listed: await reasonOf(store.credentials.list(organizationId, { userId: null, provider: null }, NEVER)),
      previous: await reasonOf(store.credentials.previous(organizationId, id, NEVER)),
      uses: await reasonOf(store.usage.of(organizationId, id, 5, NEVER)),
      described: await reasonOf(store.credentials.describe(organizationId, id)),
      key: await reasonOf(store.serviceAccounts.keyByPrefix("saf_org_none")),
      organizationKey: await reasonOf(store.organizationKeys.current(organizationId)),
      rotation: await reasonOf(store.rotations.claim(randomUUID(), 1_000)),
      audited: await reasonOf(store.audit.append([allowed(organizationId, id)])),
    };
  };
  const well = {
    created: { organizationId }, replaced: { id }, removed: "removed", resolved: { id }, found: { id }, listed: [{ id }], previous: { credentialType: "user_password" },
    uses: [{ serviceAccountId: userId }], described: { record: { id } }, key: undefined, organizationKey: undefined, rotation: undefined, audited: undefined,
  };
  for (let time = 0; time < 2; time++) expect(await everything()).toMatchObject(well);
  await migrate({ url: database.ownerUrl, applicationRole: parseDatabaseUrl(database.applicationUrl).user, migrations: NEXT });
  for (let time = 0; time < 2; time++) expect(await everything()).toMatchObject(well);
});

test("where a migration does change what a prepared statement gives, connections that know the old form are given up, all of them if need be, and calls answered on others", async () => {
  await using database = await freshDatabase();
  await using store = await openTestStore(database.applicationUrl, { poolSize: 5 });
  const organizationId = randomUUID();
  const { id } = await create(store, organizationId);
  const work = async () => [await reasonOf(store.credentials.get(organizationId, id, NEVER)), await reasonOf(resolve(store, organizationId, id))];
  await Promise.all(Array.from({ length: 60 }, work));
  expect(store.load().pools.find(({ name }) => name === "calls")).toMatchObject({ open: 5 });
  await using owner = await connect(database.ownerUrl);
  await owner.query("alter table credential alter column status type varchar(100), alter column name type varchar(300)");
  const [read, resolved] = await work();
  expect(read).toMatchObject({ id });
  expect([id, "AUDIT_UNAVAILABLE"]).toContain((resolved as { id?: string }).id ?? resolved);
  await expect.poll(() => reasonOf(resolve(store, organizationId, id))).toMatchObject({ id });
});
