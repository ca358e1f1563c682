import type { CredentialLimits, Store } from "../store/store.ts";
import type { LimitsNear, StateCount } from "../store/tally.ts";

/** What is counted over all organizations. */
export interface Tally {
  readonly at: Date;
  readonly states: readonly StateCount[];
  readonly near: LimitsNear;
  /** Renewals that are due and not begun. */
  readonly overdue: { readonly count: number; readonly seconds: number };
  /** Events that wait for their delivery. */
  readonly undelivered: { readonly organizations: number };
}

/** What counting needs. */
export interface TallyDeps {
  readonly store: Pick<Store, "tally" | "trail">;
  readonly limits: CredentialLimits;
  readonly now: () => Date;
}

/** Organizations that are counted together: row-level security lets nobody count without naming them. */
const ORGANIZATIONS_AT_ONCE = 500;

/** Counts everything once. */
export async function tally({ store, limits, now }: TallyDeps): Promise<Tally> {
  const at = now();
  const states = new Map<string, StateCount>();
  let near: LimitsNear = { providers: 0, users: 0 };
  for (let after: string | null = null; ; ) {
    const organizations: string[] = await store.trail.organizations(after, ORGANIZATIONS_AT_ONCE);
    if (organizations.length === 0) break;
    for (const found of await store.tally.states(organizations)) {
      const name = `${found.provider}/${found.status}`;
      states.set(name, { ...found, count: found.count + (states.get(name)?.count ?? 0) });
    }
    const { providers, users } = await store.tally.limitsNear(organizations, limits);
    near = { providers: near.providers + providers, users: near.users + users };
    after = organizations.at(-1) ?? null;
  }
  const [overdue, undelivered] = [await store.tally.overdue(), await store.tally.undelivered()];
  return { at, states: [...states.values()], near, overdue, undelivered };
}
