import type { CredentialStatusName, ProviderName } from "../domain/credential.ts";
import type { Database } from "./db.ts";
import type { Row, Statement } from "./transaction.ts";

/** Credentials of a provider in one state. */
export interface StateCount {
  readonly provider: ProviderName;
  readonly status: CredentialStatusName;
  readonly count: number;
}

/** Limits that are used up to four fifths or more. */
export interface LimitsNear {
  readonly providers: number;
  readonly users: number;
}

/** Counts over many organizations. What comes out names none of them. */
export interface TallyStore {
  /** Credentials of these organizations by provider and state, without deleted ones. */
  states(organizationIds: readonly string[]): Promise<StateCount[]>;
  /** Limits of these organizations that are nearly used up. */
  limitsNear(organizationIds: readonly string[], limits: { readonly perProvider: number; readonly perUser: number }): Promise<LimitsNear>;
  /** Renewals that are due and that nobody is at, and how long the oldest has been, s. */
  overdue(): Promise<{ readonly count: number; readonly seconds: number }>;
  /** Organizations with events that are not delivered. */
  undelivered(): Promise<{ readonly organizations: number }>;
}

const STATES: Statement = {
  name: "tally_states",
  text: `select provider, status, count(*)::integer as count from credential where organization_id = any($1::uuid[]) and deleted_at is null group by provider, status`,
};

const LIMITS: Statement = {
  name: "tally_limits",
  text: `select count(*) filter (where of_provider and k.n >= 0.8 * coalesce(l.n, $2::integer))::integer as providers,
  count(*) filter (where not of_provider and k.n >= 0.8 * $3::integer)::integer as users
from (select organization_id, counter, n, counter like 'provider:%' as of_provider from credential_counter where organization_id = any($1::uuid[]) and n > 0) k
left join credential_limit l on k.of_provider and l.organization_id = k.organization_id and 'provider:' || l.provider = k.counter`,
};

const OVERDUE: Statement = {
  name: "tally_overdue",
  text: `select count(*)::integer as count, coalesce(extract(epoch from now() - min(due_at)), 0)::double precision as seconds from credential_refresh
where due_at <= now() and (lease_until is null or lease_until < now())`,
};

const UNDELIVERED: Statement = { name: "tally_undelivered", text: "select count(*)::integer as organizations from credential_event_head where sent < revision" };

/** Counts, on the connections of what the service does by itself. */
export function tallyStore(database: Database): TallyStore {
  const one = async (statement: Statement): Promise<Row> => (await database.write([], statement, []))[0] ?? {};
  return {
    states: async (organizations) => (await database.write(organizations, STATES, [organizations])).map((row) => ({ provider: row["provider"] as ProviderName, status: row["status"] as CredentialStatusName, count: row["count"] as number })),
    async limitsNear(organizations, { perProvider, perUser }) {
      const [row] = await database.write(organizations, LIMITS, [organizations, perProvider, perUser]);
      return { providers: (row?.["providers"] as number | undefined) ?? 0, users: (row?.["users"] as number | undefined) ?? 0 };
    },
    async overdue() {
      const row = await one(OVERDUE);
      return { count: row["count"] as number, seconds: row["seconds"] as number };
    },
    undelivered: async () => ({ organizations: (await one(UNDELIVERED))["organizations"] as number }),
  };
}
