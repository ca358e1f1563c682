import { randomUUID } from "node:crypto";
import knexPackage from "knex";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Store, TrailFilter } from "../../src/store/store.ts";
import { type TrailOrder, trailQuery } from "../../src/store/trail.ts";
import { connect, freshDatabase, type FreshDatabase } from "../support/postgres.ts";
import { NEVER, openTestStore } from "../support/store.ts";

let database: FreshDatabase;
let store: Store & AsyncDisposable;
let application: pg.Client & AsyncDisposable;
const knex = knexPackage.knex({ client: "pg" });
const [organization, rare] = [randomUUID(), randomUUID()];
const ALL: TrailFilter = { from: null, until: null, action: null, outcome: null, actorId: null, credentialId: null, flowId: null, runId: null, requestId: null };
const RECORDS = 20_000;
/** The record that filters look for, and those beside it: half of them have gone by since. */
const RARE = RECORDS / 2;
const BEGAN = Date.UTC(2026, 0, 1);
/** A record a minute. */
const at = (link: number): Date => new Date(BEGAN + link * 60_000);

/** Records of three organizations, one in each link, which are all much alike but for every 5,000th and one of its own kind. */
const FILL = `insert into audit_event (organization_id, link, position, occurred_at, request_id, actor_kind, actor_id, action, outcome, reason, credential_id, flow_id, run_id, hash)
select o.id, n, 1, $2::timestamptz + n * interval '1 minute', o.place || '-request-' || n, 'service_account', case when n = $4 then $5::text else 'actor-' || n % 5 end,
  case when n % 5000 = 0 then 'delete_credential' else 'resolve_credential' end, case when n % 5000 = 0 then 'refused' else 'allowed' end, case when n % 5000 = 0 then 'FORBIDDEN' end,
  case when n = $4 then $5::uuid else o.id end, case when n = $4 then $5::text else 'flow-' || n % 50 end, 'run-' || n / 2, sha256('')
from generate_series(1, $3::integer) n, unnest($1::uuid[]) with ordinality as o(id, place) order by n`;

beforeAll(async () => {
  database = await freshDatabase();
  await using superuser = await connect(database.superuserUrl);
  await superuser.query(FILL, [[organization, randomUUID(), randomUUID()], new Date(BEGAN), RECORDS, RARE, rare]);
  await superuser.query("select brin_summarize_new_values('audit_event_word_idx')");
  await superuser.query("analyze audit_event");
  store = await openTestStore(database.applicationUrl);
  application = await connect(database.applicationUrl);
  await application.query("select set_config('app.organizations', $1, false), set_config('enable_seqscan', 'off', false)", [`{${organization}}`]);
});
afterAll(async () => {
  await application.end();
  await store.close();
  await database[Symbol.asyncDispose]();
});

interface Plan {
  readonly "Index Name"?: string;
  readonly "Actual Rows": number;
  readonly "Actual Loops": number;
  readonly "Rows Removed by Filter"?: number;
  readonly "Rows Removed by Index Recheck"?: number;
  readonly Plans?: readonly Plan[];
}

const nodesOf = (plan: Plan): readonly Plan[] => [plan, ...(plan.Plans ?? []).flatMap(nodesOf)];

/** The indexes that answer a query, and how many rows are looked at for it. */
async function explained(filter: Partial<TrailFilter>, order: TrailOrder = "newest first"): Promise<{ indexes: string[]; looked: number }> {
  const { sql, bindings } = trailQuery(knex, organization, { ...ALL, ...filter }, order, null, 100).toSQL().toNative();
  const { rows } = await application.query<{ "QUERY PLAN": { Plan: Plan }[] }>(`explain (analyze, format json) ${sql}`, [...bindings]);
  const nodes = rows.flatMap((row) => row["QUERY PLAN"]).flatMap((planned) => nodesOf(planned.Plan));
  const looked = nodes.map((node) => node["Actual Loops"] * (node["Actual Rows"] + (node["Rows Removed by Filter"] ?? 0) + (node["Rows Removed by Index Recheck"] ?? 0)));
  return { indexes: [...new Set(nodes.flatMap((node) => node["Index Name"] ?? []))], looked: Math.max(...looked) };
}

const linksOf = async (filter: Partial<TrailFilter>, order: TrailOrder = "newest first", most = 10): Promise<number[]> =>
  (await store.trail.list(organization, { ...ALL, ...filter }, order, null, most, NEVER)).map(({ link }) => link);

describe("a filter of a long trail", () => {
  test.each([
    ["a credential", { credentialId: rare }, "audit_event_credential_idx", [RARE]],
    ["an actor", { actorId: rare }, "audit_event_word_idx", [RARE]],
    ["a flow", { flowId: rare }, "audit_event_word_idx", [RARE]],
    ["a run", { runId: `run-${RARE / 2}` }, "audit_event_word_idx", [RARE + 1, RARE]],
    ["a request", { requestId: `1-request-${RARE}` }, "audit_event_word_idx", [RARE]],
    ["an action", { action: "delete_credential" }, "audit_event_action_idx", [20_000, 15_000, 10_000, 5_000]],
    ["an outcome", { outcome: "refused" }, "audit_event_outcome_idx", [20_000, 15_000, 10_000, 5_000]],
    ["times long ago", { from: at(101), until: at(104) }, "audit_event_time_idx", [103, 102, 101]],
    ["times lately", { from: at(RECORDS - 1) }, "audit_event_time_idx", [RECORDS, RECORDS - 1]],
    ["an end long ago", { until: at(3) }, "audit_event_time_idx", [2, 1]],
    ["a flow in some time", { flowId: "flow-7", from: at(100), until: at(210) }, "audit_event_time_idx", [207, 157, 107]],
  ] as const)("for %s finds what fits through an index, and looks at little else", async (_, filter, index, links) => {
    expect(await linksOf(filter)).toEqual(links);
    expect(await linksOf(filter, "oldest first")).toEqual(links.toReversed());
    const { indexes, looked } = await explained(filter);
    expect(indexes).toContain(index);
    expect(looked).toBeLessThan(RECORDS / 5);
  });

  test("that most records fit reads no more than a page, from either end", async () => {
    for (const filter of [{}, { action: "resolve_credential" }, { outcome: "allowed" }, { actorId: "actor-3" }]) {
      for (const order of ["newest first", "oldest first"] as const) expect((await explained(filter, order)).looked).toBeLessThan(1_000);
    }
  });

  test("for times misses no record that was late for its link", async () => {
    await using superuser = await connect(database.superuserUrl);
    // Given its time ten minutes before the links around it.
    await superuser.query("update audit_event set occurred_at = occurred_at - interval '10 minutes' where organization_id = $1 and link = 3200", [organization]);
    expect(await linksOf({ from: at(3_190), until: at(3_191) })).toEqual([3_200, 3_190]);
    await superuser.query("update audit_event set occurred_at = occurred_at + interval '10 minutes' where organization_id = $1 and link = 3200", [organization]);
  });
});

test("pages go on where they ended, in either direction", async () => {
  for (const order of ["newest first", "oldest first"] as const) {
    const first = await store.trail.list(organization, { ...ALL, outcome: "refused" }, order, null, 3, NEVER);
    const second = await store.trail.list(organization, { ...ALL, outcome: "refused" }, order, first.at(-1) ?? null, 3, NEVER);
    const links = [...first, ...second].map(({ link }) => link);
    expect(links).toEqual(order === "newest first" ? [20_000, 15_000, 10_000, 5_000] : [5_000, 10_000, 15_000, 20_000]);
  }
});
