import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { connect, freshDatabase } from "../support/postgres.ts";
import { foreignCalls, gates, METHODS, ownCalls, STILL, World } from "../support/isolation.ts";
import { serviceEnv, startService, temporaryFolder } from "../support/service.ts";

/** Every mutation takes some seconds; the usual run tries one of each kind. */
const LONG = process.env["FLOW_TEST_LONG"] !== undefined;
const USUAL = /^the (organization filter of (resolving|deleting)|gate|record of (a refusal|resolving))$/;

const root = fileURLToPath(new URL("../..", import.meta.url));

/** What is taken out of the source, and the RPCs at which it must be noticed. */
interface Mutation {
  readonly what: string;
  readonly file: string;
  readonly find: string;
  readonly put: string;
  readonly methods: RegExp;
}

const MUTATIONS: readonly Mutation[] = [
  { what: "the organization filter of resolving", file: "store/resolve.ts", find: "c.organization_id = a.organization_id and c.id = a.credential_id", put: "c.id = a.credential_id", methods: /^ResolveCredential$/ },
  { what: "the organization filter of reading", file: "store/credentials.ts", find: ".where({ organization_id: organizationId, id: known(id) })", put: ".where({ id: known(id) })", methods: /^GetCredential$/ },
  { what: "the organization filter of deleting", file: "store/credentials.ts", find: "where c.organization_id = $1 and c.id = $2 and c.deleted_at is null and ($3", put: "where c.id = $2 and c.deleted_at is null and ($3", methods: /^DeleteCredential$/ },
  { what: "the organization filter of listing", file: "store/credentials.ts", find: '.select(CREDENTIAL_COLUMNS).where("organization_id", organizationId)', put: ".select(CREDENTIAL_COLUMNS)", methods: /^ListCredentials$/ },
  { what: "the organization filter of changing a service account", file: "store/service-accounts.ts", find: "where a.organization_id = $1 and a.id = $2 and a.deleted_at is null returning ${accountColumns(\"a\")}\n), happened as (\n  select asked.* from asked, changed\n), ${recordAnswer(\"happened\", \"changed\")}\nselect * from changed`,\n};\n\nconst SET_SCOPE", put: "where a.id = $2 and a.deleted_at is null returning ${accountColumns(\"a\")}\n), happened as (\n  select asked.* from asked, changed\n), ${recordAnswer(\"happened\", \"changed\")}\nselect * from changed`,\n};\n\nconst SET_SCOPE", methods: /^UpdateServiceAccount$/ },
  { what: "the organization filter of revoking a key", file: "store/service-accounts.ts", find: "where k.organization_id = $1 and k.service_account_id = $2 and k.id = $3", put: "where k.service_account_id = $2 and k.id = $3", methods: /^RevokeServiceAccountKey$/ },
  { what: "the comparison with an administrator's own organization", file: "vault/service-accounts.ts", find: "requested !== caller.organizationId) throw fail(\"FORBIDDEN\");\n    return caller.organizationId;", put: "false) throw fail(\"FORBIDDEN\");\n    return requested ?? caller.organizationId;", methods: /ServiceAccount/ },
  { what: "the gate", file: "vault/gate.ts", find: "if (!kinds.includes(call.caller.kind)) throw fail(requirement(kinds));", put: "", methods: /^(CreateCredential|ResolveCredential|ListAuditEvents)$/ },
  { what: "the role of administrators", file: "vault/gate.ts", find: "call.caller.role !== role) throw", put: "false) throw", methods: /ServiceAccount/ },
  { what: "the record of a refusal", file: "grpc/unary.ts", find: "await recordRefusal(deps.audit, proven, spec.action, error, trace.credentialId)", put: "void recordRefusal", methods: /^(CreateCredential|ResolveCredential)$/ },
  { what: "the record of resolving", file: "store/resolve.ts", find: "), ${recordEvents(\"happened\")}\nselect place, refusal", put: ")\nselect place, refusal", methods: /^ResolveCredential$/ },
  { what: "the record of an update", file: "store/credentials.ts", find: "), ${recordAnswer(\"happened\", \"changed\")}\nselect true as found", put: ")\nselect true as found", methods: /^UpdateCredential$/ },
];

/** The faults that are found at some RPCs of a service that runs from this source. Row-level security is off, unless it is left to hold alone. */
async function faultsOf(main: string, methods: RegExp, rowSecurity: "off" | "on"): Promise<string[]> {
  await using database = await freshDatabase();
  if (rowSecurity === "off") {
    await using superuser = await connect(database.superuserUrl);
    const { rows } = await superuser.query<{ name: string }>("select relname as name from pg_class where relnamespace = 'public'::regnamespace and relrowsecurity");
    for (const { name } of rows) await superuser.query(`alter table ${name} disable row level security, no force row level security`);
  }
  // What is compiled of a copy is of no use to the next start, and keeping it takes longer than the start.
  await using service = await startService(serviceEnv(database, { ...STILL, NODE_DISABLE_COMPILE_CACHE: "1" }), main);
  await using world = await World.open(service, database);
  const [victim, stranger] = [await world.tenant(), await world.tenant()];
  const chosen = METHODS.filter(({ name }) => methods.test(name));
  expect(chosen.length).toBeGreaterThan(0);
  await foreignCalls(world, victim, stranger, chosen);
  await gates(world, victim, chosen);
  await ownCalls(world, victim, chosen);
  return world.found();
}

/** A copy of the source with one thing taken out. */
function mutated(folder: string, { file, find, put }: Mutation): string {
  mkdirSync(folder, { recursive: true });
  cpSync(`${root}src`, `${folder}/src`, { recursive: true });
  for (const name of ["node_modules", "gen", "package.json"]) symlinkSync(root + name, `${folder}/${name}`);
  const path = `${folder}/src/${file}`;
  const text = readFileSync(path, "utf8");
  // A mutation that no longer finds its place would prove nothing.
  expect(text.split(find), `${file} holds it once`).toHaveLength(2);
  writeFileSync(path, text.replace(find, () => put));
  return `${folder}/src/main.ts`;
}

describe("without row-level security", () => {
  test("the service's own filters hold alone", async () => {
    expect(await faultsOf("src/main.ts", /^(Resolve|Get|List|Delete|Update)Credentials?$|ServiceAccount/, "off")).toEqual([]);
  }, 120_000);

  test.each(MUTATIONS.filter(({ what }) => LONG || USUAL.test(what)))("$what is missed", async (mutation) => {
    using folder = temporaryFolder();
    expect(await faultsOf(mutated(folder.path, mutation), mutation.methods, "off")).not.toEqual([]);
  }, 120_000);
});

test("row-level security holds alone where a filter is missing", async () => {
  using folder = temporaryFolder();
  const { file, find, put } = MUTATIONS.find(({ what }) => what === "the organization filter of deleting") as Mutation;
  const main = mutated(folder.path, { what: "", file, find, put, methods: /x/ });
  expect(await faultsOf(main, /^(Get|Delete|Update)Credential$/, "on")).toEqual([]);
}, 120_000);
