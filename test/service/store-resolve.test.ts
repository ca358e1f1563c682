import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { SecretDocument, SecretPlace } from "../../src/domain/credential.ts";
import { type CredentialError, fail } from "../../src/domain/errors.ts";
import { createLog } from "../../src/log.ts";
import { askedEvents, eventRow } from "../../src/store/audit.ts";
import { parseDatabaseUrl } from "../../src/store/connection.ts";
import { EventLane } from "../../src/store/event-lane.ts";
import { credentialAsked } from "../../src/store/resolve.ts";
import { credentialColumns } from "../../src/store/rows.ts";
import type { Store } from "../../src/store/store.ts";
import { admit } from "../../src/vault/gate.ts";
import { type ResolveDeps, resolveCredential } from "../../src/vault/resolve.ts";
import { connect, freshDatabase, type FreshDatabase } from "../support/postgres.ts";
import { allowed, create, openTestStore, reasonOf } from "../support/store.ts";

let database: FreshDatabase;
let store: Store & AsyncDisposable;
beforeAll(async () => {
  database = await freshDatabase();
  store = await openTestStore(database.applicationUrl);
});
afterAll(async () => {
  await store.close();
  await database[Symbol.asyncDispose]();
});

const document = { host: "sftp.example.com", port: 22, username: "u", password: "p" } as unknown as SecretDocument;

/** Resolves through the use case, with an envelope whose opening the test decides. */
async function attempt(open: (place: SecretPlace, aborter: AbortController) => Promise<SecretDocument>, before?: (deps: ResolveDeps, aborter: AbortController) => ResolveDeps) {
  const organizationId = randomUUID();
  const { id } = await create(store, organizationId);
  const [aborter, places]: [AbortController, SecretPlace[]] = [new AbortController(), []];
  const envelope = {
    open: (place: SecretPlace) => {
      places.push(place);
      return open(place, aborter);
    },
  };
  const plain: ResolveDeps = { store, envelope, renewal: { renewed: () => Promise.reject(new Error("nothing is due")) }, clientCacheSeconds: 300, log: createLog("error") };
  const deps = before?.(plain, aborter) ?? plain;
  const caller = { kind: "service_account", id: randomUUID(), organizationId, role: null } as const;
  const requestId = "01JD8Z3NDEKTSV4RRFFQ69G5FB";
  const outcome = await reasonOf(resolveCredential(deps, admit({ caller, requestId, flowId: "f", runId: "r", signal: aborter.signal }, "resolve_credential"), id));
  await using superuser = await connect(database.superuserUrl);
  const { rows } = await superuser.query(
    "select outcome, reason from audit_event where organization_id = $1 and request_id = $2 and credential_id = $3 and action = 'resolve_credential' and flow_id = 'f' order by link, position",
    [organizationId, requestId, id],
  );
  return { organizationId, outcome, places, trail: rows.map((row) => [row.outcome, row.reason]) };
}

const committed = (deps: ResolveDeps, then: (found: Awaited<ReturnType<Store["credentials"]["resolve"]>>) => typeof found): ResolveDeps => ({
  ...deps,
  store: {
    audit: deps.store.audit,
    usage: deps.store.usage,
    credentials: { ...deps.store.credentials, resolve: async (...call) => then(await deps.store.credentials.resolve(...call)) },
  },
});

describe("a secret that was recorded as handed out", () => {
  test("and is, has one record", async () => {
    const { outcome, trail } = await attempt(async () => document);
    expect(outcome).toMatchObject({ exposed: { secret: { $case: expect.any(String) } } });
    expect(trail).toEqual([["allowed", null]]);
  });

  test.each(["CANCELLED", "DEADLINE_EXCEEDED"] as const)("and is not, because its call ended meanwhile, is not opened and has a second record: %s", async (reason) => {
    const { outcome, trail, places } = await attempt(
      async () => document,
      (deps, aborter) =>
        committed(deps, (found) => {
          aborter.abort(fail(reason));
          return found;
        }),
    );
    expect([outcome, places]).toEqual([reason, []]);
    expect(trail).toEqual([["allowed", null], ["cancelled", reason]]);
  });

  test("and is not, because its call ended while it was opened, has a second record", async () => {
    const { outcome, trail } = await attempt(async (_place, aborter) => {
      aborter.abort(fail("DEADLINE_EXCEEDED"));
      return document;
    });
    expect(outcome).toBe("DEADLINE_EXCEEDED");
    expect(trail).toEqual([["allowed", null], ["cancelled", "DEADLINE_EXCEEDED"]]);
  });

  test("and is not, because something failed, has a second record", async () => {
    const unexpected = new TypeError("unexpected");
    const failed = await attempt(() => Promise.reject(unexpected));
    expect(failed.outcome).toBe(unexpected);
    expect(failed.trail).toEqual([["allowed", null], ["failed", "INTERNAL"]]);
    expect((await attempt(() => Promise.reject(fail("DATABASE_UNAVAILABLE")))).trail).toEqual([["allowed", null], ["failed", "DATABASE_UNAVAILABLE"]]);
  });

  test("and is refused after all, is left to the record of the refusal", async () => {
    expect((await attempt(() => Promise.reject(fail("ORGANIZATION_DESTROYED")))).trail).toEqual([["allowed", null]]);
  });

  test("is not asked for where the call has ended already", async () => {
    const { outcome, trail } = await attempt(
      async () => document,
      (deps, aborter) => {
        aborter.abort(fail("CANCELLED"));
        return deps;
      },
    );
    expect([outcome, trail]).toEqual(["CANCELLED", []]);
  });
});

test("a secret is opened in the place of the organization that asks, whatever the row says", async () => {
  const { organizationId, places } = await attempt(
    async () => document,
    (deps) => committed(deps, (found) => found && { ...found, organizationId: randomUUID() }),
  );
  expect(places).toMatchObject([{ organizationId }]);
});

test("a batch whose answers are in the wrong order gives no caller the credential of another", async () => {
  const fields = parseDatabaseUrl(database.applicationUrl);
  const session = { prepared: true, timeouts: { statementMs: 5_000, lockMs: 1_000 } };
  const swapped = `with ${askedEvents("$1")} select 3 - a.place as place, ${credentialColumns("c")}, c.sealed
    from asked a join credential c on c.organization_id = a.organization_id and c.id = a.credential_id`;
  const lane = new EventLane({
    fields, session, log: createLog("error"), queue: 10, batch: 10, name: "test", reserve: false, full: "OVERLOADED",
    statement: { name: "swapped", text: swapped }, answer: credentialAsked,
  });
  await lane.open();
  const rows = [await create(store, randomUUID()), await create(store, randomUUID())];
  const organizationId = randomUUID();
  rows.push(await create(store, organizationId), await create(store, organizationId));
  const ask = (index: number) => {
    const row = rows[index] as (typeof rows)[number];
    return lane.submit(eventRow(allowed(row.organizationId, row.id, "resolve_credential"))).then(() => "answered", (error: CredentialError) => error.reason);
  };
  expect(await Promise.all([ask(0), ask(1)])).toEqual(["INTERNAL", "INTERNAL"]);
  expect(await Promise.all([ask(2), ask(3)])).toEqual(["INTERNAL", "INTERNAL"]);
  await lane.close();
});
