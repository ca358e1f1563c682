import { createHash, randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Store } from "../../src/store/store.ts";
import { connect, freshDatabase, type FreshDatabase } from "../support/postgres.ts";
import { allowed, create, NEVER, openTestStore, reasonOf, resolve, sealedBytes } from "../support/store.ts";

let database: FreshDatabase;
let stores: (Store & AsyncDisposable)[];
beforeAll(async () => {
  database = await freshDatabase();
  stores = [await openTestStore(database.applicationUrl), await openTestStore(database.applicationUrl, { resolveBatch: 7 })];
});
afterAll(async () => {
  await Promise.all(stores.map((store) => store.close()));
  await database[Symbol.asyncDispose]();
});

const storeOf = (index: number): Store => stores[index % stores.length] as Store;
const sha256 = (...parts: readonly Buffer[]): Buffer => createHash("sha256").update(Buffer.concat(parts)).digest();

interface AuditRow {
  readonly link: string;
  readonly position: number;
  readonly hash: Buffer;
  readonly fields: readonly unknown[];
}

async function trail(organizationId: string): Promise<AuditRow[]> {
  await using superuser = await connect(database.superuserUrl);
  return await rowsOf(superuser, organizationId);
}

async function rowsOf(superuser: Awaited<ReturnType<typeof connect>>, organizationId: string): Promise<AuditRow[]> {
  const { rows } = await superuser.query<AuditRow & { occurred_at: Date } & Record<string, unknown>>("select * from audit_event where organization_id = $1 order by link, position", [organizationId]);
  return rows.map((row) => ({
    ...row,
    fields: [
      row["organization_id"], row.occurred_at.getTime(), row["request_id"], row["actor_kind"], row["actor_id"], row["action"], row["outcome"], row["reason"],
      row["credential_id"], row["flow_id"], row["run_id"],
    ],
  }));
}

/** A digest as the schema describes it, computed without PostgreSQL: its JSON puts a space after each comma of an array. */
const digestOf = (fields: readonly unknown[]): Buffer => sha256(Buffer.from(`[${fields.map((field) => JSON.stringify(field)).join(", ")}]`));

/** Recomputes the chain from the rows alone; the first link whose hash differs, or that is missing, or undefined. */
function firstBreak(rows: readonly AuditRow[]): number | undefined {
  let previous: Buffer = Buffer.alloc(32);
  const last = Number(rows.at(-1)?.link ?? 0);
  for (let link = 1; link <= last; link++) {
    const records = rows.filter((row) => Number(row.link) === link);
    previous = sha256(previous, sha256(...records.map((record) => digestOf(record.fields))));
    if (records.length === 0 || records.some((record, index) => record.position !== index + 1 || !record.hash.equals(previous))) return link;
  }
  return undefined;
}

describe("the chain of an organization", () => {
  const organizations = Array.from({ length: 4 }, () => randomUUID());

  beforeAll(async () => {
    const credentials = await Promise.all(organizations.flatMap((organizationId) => Array.from({ length: 10 }, (_, index) => create(storeOf(index), organizationId))));
    const work = credentials.flatMap(({ organizationId, id, userId }, index) => [
      resolve(storeOf(index), organizationId, id),
      resolve(storeOf(index + 1), organizationId, id),
      storeOf(index).credentials.replace(
        { organizationId, id, expectedRevision: 1, credentialType: "user_password", name: null, accountEmail: null, tokenExpiresAt: null, status: "active", modifiedBy: userId, secretVersion: 2n, sealed: sealedBytes() },
        allowed(organizationId, id, "update_credential"),
        NEVER,
      ),
      storeOf(index).audit.append(organizations.toReversed().map((organization) => ({ ...allowed(organization, id, "get_credential"), outcome: "refused" as const, reason: "CREDENTIAL_NOT_FOUND" }))),
      storeOf(index).audit.append([{ ...allowed(organizationId, null, "list_credentials"), actorId: 'odd "\\ \n\u{1F511} \u007f \u2028', flowId: "flow", runId: "run" }]),
    ]);
    await Promise.all(work);
  });

  test("is recomputed from its rows, by other code than wrote it, under concurrent writers", async () => {
    for (const organizationId of organizations) {
      const rows = await trail(organizationId);
      expect(rows).toHaveLength(10 + 10 * 2 + 10 + 40 + 10);
      expect(firstBreak(rows)).toBeUndefined();
    }
  });

  test("ends in its head", async () => {
    await using superuser = await connect(database.superuserUrl);
    const { rows: heads } = await superuser.query("select organization_id, link, hash from audit_head order by organization_id");
    const ends = await Promise.all(organizations.toSorted().map(async (organizationId) => ({ rows: await trail(organizationId), organizationId })));
    expect(heads).toEqual(ends.map(({ rows, organizationId }) => ({ organization_id: organizationId, link: rows.at(-1)?.link, hash: rows.at(-1)?.hash })));
  });

  test("shares one link among the calls of one batch", async () => {
    const organizationId = randomUUID();
    const { id } = await create(storeOf(0), organizationId);
    await Promise.all(Array.from({ length: 32 }, () => resolve(storeOf(0), organizationId, id)));
    expect(new Set((await trail(organizationId)).map(({ link }) => link))).toEqual(new Set(["1", "2"]));
  });

  test("shows where a record was changed, removed or put in by someone who may write everything", async () => {
    const organizationId = organizations[0] as string;
    await using superuser = await connect(database.superuserUrl);
    const changes = [
      { sql: "update audit_event set actor_id = 'someone else' where organization_id = $1 and link = 12", breaks: 12 },
      { sql: "delete from audit_event where organization_id = $1 and link = 12", breaks: 12 },
      { sql: "update audit_event set link = link + 1 where organization_id = $1 and link >= 12", breaks: 12 },
    ];
    for (const { sql, breaks } of changes) {
      await superuser.query("begin");
      await superuser.query(sql.includes("link + 1") ? "alter table audit_event drop constraint audit_event_pkey" : "select 1");
      await superuser.query(sql, [organizationId]);
      const rows = await rowsOf(superuser, organizationId);
      await superuser.query("rollback");
      expect(firstBreak(rows), sql).toBe(breaks);
    }
  });
});

describe("the audit trail", () => {
  test("cannot be changed by the application role", async () => {
    const organizationId = randomUUID();
    await create(storeOf(0), organizationId);
    await using client = await connect(database.applicationUrl);
    await client.query("select set_config('app.organizations', $1, false)", [`{${organizationId}}`]);
    for (const statement of ["update audit_event set actor_id = 'x'", "delete from audit_event", "truncate audit_event", "drop table audit_event", "delete from audit_head"]) {
      await expect(client.query(statement), statement).rejects.toMatchObject({ code: "42501" });
    }
    expect((await client.query("select count(*)::integer as n from audit_event")).rows).toEqual([{ n: 1 }]);
  });

  test("that cannot be written releases no secret and lets nothing change", async () => {
    await using broken = await freshDatabase();
    await using store = await openTestStore(broken.applicationUrl);
    const organizationId = randomUUID();
    const row = await create(store, organizationId);
    const { id, userId } = row;
    const before = await store.credentials.get(organizationId, id, NEVER);
    await using superuser = await connect(broken.superuserUrl);
    await superuser.query("revoke insert on audit_event from credentials_app");
    const change = { organizationId, id, expectedRevision: 1, credentialType: "user_password", name: "new", accountEmail: null, tokenExpiresAt: null, status: "active", modifiedBy: userId, secretVersion: 2n, sealed: sealedBytes() } as const;
    const attempts = {
      resolve: () => resolve(store, organizationId, id),
      create: () => create(store, organizationId),
      replace: () => store.credentials.replace(change, allowed(organizationId, id, "update_credential"), NEVER),
      remove: () => store.credentials.remove({ organizationId, id, expectedRevision: null, modifiedBy: userId }, allowed(organizationId, id, "delete_credential"), NEVER),
      append: () => store.audit.append([allowed(organizationId, id)]),
      createServiceAccount: () => store.serviceAccounts.create({ organizationId, id: randomUUID(), name: "n" }, allowed(organizationId, null, "create_service_account")),
    };
    for (const [name, attempt] of Object.entries(attempts)) expect(await reasonOf(attempt()), name).toBe("AUDIT_UNAVAILABLE");
    expect(await store.credentials.list(organizationId, { userId: null, provider: null }, NEVER)).toEqual([before]);
    expect((await superuser.query("select n from credential_counter where organization_id = $1", [organizationId])).rows).toEqual([{ n: 1 }, { n: 1 }]);
    expect((await superuser.query("select count(*)::integer as n from service_account")).rows).toEqual([{ n: 0 }]);
    await superuser.query("grant insert on audit_event to credentials_app");
    expect(await resolve(store, organizationId, id)).toMatchObject({ id, secretVersion: 1n });
  });

  test("is committed before a resolve call ends", async () => {
    const organizationId = randomUUID();
    const { id } = await create(storeOf(0), organizationId);
    await using superuser = await connect(database.superuserUrl);
    for (let calls = 1; calls <= 20; calls++) {
      await resolve(storeOf(0), organizationId, id);
      const { rows } = await superuser.query("select count(*)::integer as n from audit_event where organization_id = $1 and action = 'resolve_credential'", [organizationId]);
      expect(rows).toEqual([{ n: calls }]);
    }
  });
});
