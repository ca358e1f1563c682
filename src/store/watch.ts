import type { Scope } from "../domain/access.ts";
import { type Database, known } from "./db.ts";
import { type CredentialEvent, credentialEvent, eventColumns } from "./outbox.ts";
import { scopeOf } from "./rows.ts";
import type { Row, Statement } from "./transaction.ts";

/** How far an organization's events have come. */
export interface EventHead {
  readonly organizationId: string;
  readonly revision: bigint;
  /** Newest event that was removed. */
  readonly pruned: bigint;
}

/** What changed since somebody looked. */
export interface Changes {
  /** From where to look the next time. Goes back where the database is another one than before. */
  readonly horizon: bigint;
  readonly heads: readonly EventHead[];
}

/** A place in an organization's events. */
export interface EventPlace {
  readonly organizationId: string;
  readonly after: bigint;
}

/** Someone whose right is asked for. */
export interface Watcher {
  readonly organizationId: string;
  readonly accountId: string;
  readonly keyId: string | null;
}

/** How someone stands: what is granted, or why nothing is. */
export type WatcherStanding = { readonly scope: Scope | null } | { readonly refusal: "INVALID_TOKEN" | "ORGANIZATION_DESTROYED" };

/** What those need who watch the events of many organizations at once: one statement for all of them. */
export interface WatchStore {
  /**
   * Heads of the organizations in which something was committed since that horizon, whichever they are, and of those that are
   * named. Without a horizon only the latter.
   */
  changed(horizon: bigint | null, organizations: readonly string[]): Promise<Changes>;
  /** The events after each of these places, in order, and at most so many of each. */
  after(places: readonly EventPlace[], most: number): Promise<CredentialEvent[][]>;
  /** How they stand now, in the same order. An account that is not kept here is good unless it came with a key. */
  standings(watchers: readonly Watcher[]): Promise<WatcherStanding[]>;
}

/**
 * A transaction that wrote a head and was under way at the last look has an id no lower than the lowest that was under way then:
 * the horizon. Whatever that look did not see is found by the next one, whenever it commits. An id from the future is
 * that of a database from which this one was restored.
 */
const CHANGED: Statement = {
  name: "watch_changed",
  text: `select pg_snapshot_xmin(pg_current_snapshot())::text as horizon, null::uuid as organization_id, null::bigint as revision, null::bigint as pruned
union all
select null, h.organization_id, h.revision, h.pruned from credential_event_head h
where h.changed_in >= $1::text::xid8 and h.changed_in < pg_snapshot_xmax(pg_current_snapshot())
union all
select null, h.organization_id, h.revision, h.pruned from credential_event_head h where h.organization_id = any($2::uuid[])`,
};

const AFTER: Statement = {
  name: "watch_after",
  text: `select w.place, ${eventColumns("e")} from unnest($1::uuid[], $2::bigint[]) with ordinality w(organization_id, revision, place)
cross join lateral (
  select * from credential_event c where c.organization_id = w.organization_id and c.revision > w.revision order by c.revision limit $3) e
order by w.place, e.revision`,
};

const STANDINGS: Statement = {
  name: "watch_standings",
  text: `select w.place, a.id is not null as kept, a.status = 'active' and a.deleted_at is null as active, a.granted_providers, a.granted_credentials,
  w.key_id is null or exists (select from service_account_key k where k.organization_id = w.organization_id and k.id = w.key_id
    and k.service_account_id = w.account_id and k.revoked_at is null and (k.expires_at is null or k.expires_at > clock_timestamp())) as proved,
  exists (select from organization_key o where o.organization_id = w.organization_id)
    and not exists (select from organization_key o where o.organization_id = w.organization_id and o.wrapped is not null) as destroyed
from unnest($1::uuid[], $2::uuid[], $3::uuid[]) with ordinality w(organization_id, account_id, key_id, place)
left join service_account a on a.organization_id = w.organization_id and a.id = w.account_id
order by w.place`,
};

/** Beyond every id that a transaction can have: a horizon after which nothing is found. */
const NEVER = (2n ** 63n).toString();

function standing(row: Row): WatcherStanding {
  if (row["destroyed"] === true) return { refusal: "ORGANIZATION_DESTROYED" };
  const good = row["kept"] === true ? row["active"] === true && row["proved"] === true : row["proved"] === true;
  if (!good) return { refusal: "INVALID_TOKEN" };
  return { scope: row["kept"] === true ? scopeOf(row) : null };
}

const organizationsOf = (places: readonly { readonly organizationId: string }[]): string[] => [...new Set(places.map(({ organizationId }) => organizationId))];

/** The outbox for those who watch it. */
export function watchStore(database: Database): WatchStore {
  return {
    async changed(horizon, organizations) {
      const rows = await database.write([], CHANGED, [horizon?.toString() ?? NEVER, organizations.map(known)]);
      return {
        horizon: BigInt(rows.find((row) => row["horizon"] !== null)?.["horizon"] as string),
        heads: rows.filter((row) => row["horizon"] === null).map((row) => ({
          organizationId: row["organization_id"] as string,
          revision: BigInt(row["revision"] as string),
          pruned: BigInt(row["pruned"] as string),
        })),
      };
    },

    async after(places, most) {
      const found: CredentialEvent[][] = places.map(() => []);
      if (places.length === 0) return found;
      const values = [places.map(({ organizationId }) => known(organizationId)), places.map(({ after }) => after.toString()), most];
      for (const row of await database.write(organizationsOf(places), AFTER, values)) found[Number(row["place"]) - 1]?.push(credentialEvent(row));
      return found;
    },

    async standings(watchers) {
      if (watchers.length === 0) return [];
      const values = [watchers.map(({ organizationId }) => known(organizationId)), watchers.map(({ accountId }) => known(accountId)), watchers.map(({ keyId }) => (keyId === null ? null : known(keyId)))];
      return (await database.write(organizationsOf(watchers), STANDINGS, values)).map(standing);
    },
  };
}
