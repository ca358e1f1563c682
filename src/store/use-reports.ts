import type { AuditEvent } from "../domain/access.ts";
import { askedEvents, eventRow, recordEvents } from "./audit.ts";
import type { Database } from "./db.ts";
import type { Statement } from "./transaction.ts";
import { NOW } from "./now.ts";

/** Uses of secrets that executors kept. */
export interface UseReportStore {
  /**
   * Records uses of one organization's credentials, each event with its number, and adds them to what is known of who uses
   * what. Gives the places, from 0, of events about credentials that the account is not known to have resolved, of which nothing is
   * recorded.
   */
  record(organizationId: string, accountId: string, events: readonly AuditEvent[]): Promise<number[]>;
}

/** Uses are added in the order of the key, as whoever writes uses does. */
const RECORD: Statement = {
  name: "use_report_record",
  text: `with ${askedEvents("$3")}, resolved as materialized (
  select distinct u.credential_id from credential_use u
  where u.organization_id = $1 and u.service_account_id = $2 and u.credential_id in (select credential_id from asked)
), happened as materialized (
  select a.* from asked a where a.credential_id in (select credential_id from resolved)
), counted as (
  insert into credential_use as u (organization_id, credential_id, service_account_id, flow_id, last_run_id, last_used_at, uses)
  select organization_id, credential_id, $2, coalesce(flow_id, ''), (array_agg(run_id order by place desc))[1], ${NOW}, sum(calls)
  from happened group by organization_id, credential_id, coalesce(flow_id, '') order by organization_id, credential_id, coalesce(flow_id, '')
  on conflict (organization_id, credential_id, service_account_id, flow_id) do update set uses = u.uses + excluded.uses,
    last_run_id = excluded.last_run_id, last_used_at = greatest(u.last_used_at, excluded.last_used_at)
), ${recordEvents("happened")}
select place from asked where credential_id not in (select credential_id from resolved) order by place`,
};

/** Records what executors report. `flush` writes down what this process knows of resolves, before it is asked for. */
export function useReportStore(database: Database, flush: () => Promise<void>): UseReportStore {
  return {
    async record(organizationId, accountId, events) {
      await flush();
      const rows = await database.write([organizationId], RECORD, [organizationId, accountId, JSON.stringify(events.map(eventRow))]);
      return rows.map((row) => Number(row["place"]) - 1);
    },
  };
}
