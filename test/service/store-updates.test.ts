import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Call, TenantCaller } from "../../src/domain/access.ts";
import { fail } from "../../src/domain/errors.ts";
import { createLog } from "../../src/log.ts";
import type { Store } from "../../src/store/store.ts";
import { admit } from "../../src/vault/gate.ts";
import { createCredential, etagOf, type ManageDeps, updateCredential } from "../../src/vault/manage.ts";
import { freshDatabase, type FreshDatabase } from "../support/postgres.ts";
import { LIMITS, NEVER, openTestStore, reasonOf, sealedBytes } from "../support/store.ts";

let database: FreshDatabase;
let stores: (Store & AsyncDisposable)[];
beforeAll(async () => {
  database = await freshDatabase();
  stores = [await openTestStore(database.applicationUrl), await openTestStore(database.applicationUrl)];
});
afterAll(async () => {
  await Promise.all(stores.map((store) => store.close()));
  await database[Symbol.asyncDispose]();
});

/** What the use cases stand on; `checks` counts how often a provider looked at a secret. */
function depsOf(store: Pick<Store, "credentials" | "usage">): ManageDeps & { checks: number } {
  const deps = {
    checks: 0,
    store,
    envelope: { seal: async () => sealedBytes() },
    limits: LIMITS,
    log: createLog("error"),
    now: () => {
      deps.checks++;
      return new Date();
    },
  };
  return deps;
}

const caller = (): TenantCaller => ({ kind: "user", id: randomUUID(), organizationId: randomUUID(), role: null });
const callOf = (of: TenantCaller, signal: AbortSignal = NEVER): Call => ({ caller: of, requestId: "01JD8Z3NDEKTSV4RRFFQ69G5FA", flowId: null, runId: null, signal });
const credentials = { host: "sftp.example.com", username: "u", password: "p" };
const change = (credentialId: string, etag: string | null = null) => ({ credentialId, credentialType: "user_password", credentials, name: null, etag }) as const;
const make = (deps: ManageDeps, of: TenantCaller) =>
  createCredential(deps, admit(callOf(of), "create_credential"), { provider: "sftp", credentialType: "user_password", credentials, name: null });

test("sixty parallel updates without a precondition through two stores all succeed, and each checks its secret once", async () => {
  const of = caller();
  const both = stores.map(depsOf);
  const [first, second] = both as [ManageDeps & { checks: number }, ManageDeps & { checks: number }];
  const { id } = await make(first, of);
  const updates = Array.from({ length: 60 }, (_, index) => updateCredential(index % 2 ? first : second, admit(callOf(of), "update_credential"), change(id)));
  const revisions = (await Promise.all(updates)).map(({ revision }) => revision).toSorted((one, other) => one - other);
  expect(revisions).toEqual(Array.from({ length: 60 }, (_, index) => index + 2));
  expect(first.checks + second.checks).toBe(1 + 60);
});

test("of parallel updates with the same etag one succeeds, and the others learn that they were late", async () => {
  const of = caller();
  const deps = depsOf(stores[0] as Store);
  const created = await make(deps, of);
  const outcomes = await Promise.all(Array.from({ length: 10 }, () => reasonOf(updateCredential(deps, admit(callOf(of), "update_credential"), change(created.id, etagOf(created))))));
  expect(outcomes.filter((outcome) => outcome === "ETAG_MISMATCH")).toHaveLength(9);
});

test("an update that is overtaken a hundred times takes effect then", async () => {
  const of = caller();
  const { credentials: real, usage } = stores[0] as Store;
  const { id } = await make(depsOf(stores[0] as Store), of);
  let overtaken = 0;
  const deps = depsOf({ usage, credentials: { ...real, replace: async (...call) => (overtaken++ < 100 ? "stale" : real.replace(...call)) } });
  expect(await updateCredential(deps, admit(callOf(of), "update_credential"), change(id))).toMatchObject({ id, revision: 2 });
  expect(deps.checks).toBe(1);
});

test("an update that never comes first is told to try again, not that its caller was late", async () => {
  const of = caller();
  const { credentials: real, usage } = stores[0] as Store;
  const { id } = await make(depsOf(stores[0] as Store), of);
  const deps = depsOf({ usage, credentials: { ...real, replace: async () => "stale" } });
  expect(await reasonOf(updateCredential(deps, admit(callOf(of), "update_credential"), change(id)))).toBe("OVERLOADED");
});

test("an update ends with its call", async () => {
  const of = caller();
  const { credentials: real, usage } = stores[0] as Store;
  const { id } = await make(depsOf(stores[0] as Store), of);
  const aborter = new AbortController();
  const deps = depsOf({
    usage,
    credentials: {
      ...real,
      replace: async () => {
        aborter.abort(fail("CANCELLED"));
        return "stale";
      },
    },
  });
  expect(await reasonOf(updateCredential(deps, admit(callOf(of, aborter.signal), "update_credential"), change(id)))).toBe("CANCELLED");
});
