import { askedEvents, eventRow, recordEvents } from "./audit.ts";
import { type Database, known } from "./db.ts";
import type { AuthorizationStore } from "./store.ts";
import type { Row, Statement } from "./transaction.ts";
import type { ProviderName } from "../domain/credential.ts";

const BEGIN: Statement = {
  name: "authorization_begin",
  text: `with ${askedEvents("$8")}, stale as (
  delete from oauth_authorization a where a.organization_id = $1 and (a.expires_at <= now() or a.id in (
    select o.id from oauth_authorization o where o.organization_id = $1 and o.user_id = $3 order by o.created_at desc, o.id offset $10::integer - 1))
), begun as (
  insert into oauth_authorization (organization_id, id, user_id, provider, browser_hash, sealed, expires_at)
  values ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $9::integer))
  returning organization_id, id
), found_by as (
  insert into oauth_state (state_hash, organization_id, authorization_id) select $7, organization_id, id from begun
), ${recordEvents("asked")}
select 1`,
};

/** The row goes with whoever deletes it, and its state with the row: of several that ask for it at the same time one gets it. */
const TAKE: Statement = {
  name: "authorization_take",
  text: `delete from oauth_authorization a
where a.organization_id = $1 and a.id = $2 and a.provider = $3 and a.expires_at > now() and (a.browser_hash is null or a.browser_hash = $4)
returning a.organization_id, a.id, a.user_id, a.provider, a.sealed, clock_timestamp() as taken_at`,
};

/**
 * Authorizations in progress. Anyone may present a made-up state, so the look-ups have connections of their own, and those
 * who are known do not wait for them.
 */
export function authorizationStore(database: Database, lookups: Database): AuthorizationStore & { close(): Promise<void> } {
  return {
    async begin(row, { seconds, perUser }, event, signal) {
      const audited = eventRow(event);
      await database.write([row.organizationId], BEGIN, [
        row.organizationId, known(row.id), known(row.userId), row.provider, row.browserHash, row.sealed, row.stateHash, JSON.stringify([audited]), seconds, perUser,
      ], signal);
    },

    async take(stateHash, provider, browserHash, signal) {
      const place: Row | undefined = await lookups.read(null, (trx) => trx("oauth_state").first("organization_id", "authorization_id").where("state_hash", stateHash), signal);
      if (place === undefined) return undefined;
      const organizationId = place["organization_id"] as string;
      const [row] = await database.write([organizationId], TAKE, [organizationId, place["authorization_id"], provider, browserHash], signal);
      if (row === undefined) return undefined;
      return {
        organizationId: row["organization_id"] as string,
        id: row["id"] as string,
        userId: row["user_id"] as string,
        provider: row["provider"] as ProviderName,
        sealed: row["sealed"] as Buffer,
        takenAt: row["taken_at"] as Date,
      };
    },

    close: () => lookups.close(),
  };
}
