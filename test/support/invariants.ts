import { ChainReader } from "../../src/domain/audit-chain.ts";

/** Runs a statement as the superuser; gives its rows. */
export type Run = (sql: string, values?: readonly unknown[]) => Promise<any[]>;

/** Faults of an organization's audit chain: the first record that does not fit. */
export async function chainFaults(run: Run, organizationId: string): Promise<string[]> {
  const reader = new ChainReader();
  for (const row of await run("select * from audit_event where organization_id = $1 order by link, position", [organizationId])) {
    const fault = reader.next({
      link: Number(row.link), position: row.position, organizationId, occurredAtMs: row.occurred_at.getTime(), requestId: row.request_id, actorKind: row.actor_kind, actorId: row.actor_id, action: row.action,
      outcome: row.outcome, reason: row.reason, credentialId: row.credential_id, flowId: row.flow_id, runId: row.run_id, subjectId: row.subject_id, keyId: row.key_id, calls: row.calls, hash: row.hash.toString("hex"),
    });
    if (fault !== undefined) return [`chain: ${JSON.stringify(fault)}`];
  }
  const [end, [head]] = [reader.end(), await run("select link from audit_head where organization_id = $1", [organizationId])];
  return [...(end === undefined ? [] : [`chain: ${JSON.stringify(end)}`]), ...(Number(head?.link) === reader.place.link ? [] : [`chain: ends at ${reader.place.link}, and its head at ${head?.link}`])];
}

/** What must never be true of the rows, whatever ended when: each statement gives the faults that it finds. */
const NEVER_TRUE: Readonly<Record<string, string>> = {
  "counted otherwise than there are": `select counter as fault from credential_counter c where organization_id = $1 and n <> (select count(*) from credential d
    where d.organization_id = $1 and deleted_at is null and c.counter in ('provider:' || d.provider, 'user:' || d.user_id))`,
  "more than the limit": "select provider as fault from credential where organization_id = $1 and deleted_at is null group by 1 having count(*) > 50",
  "changed without a record": `select id::text as fault from credential c where organization_id = $1 and revision <> 1 +
    (select count(*) from audit_event e where e.organization_id = $1 and e.credential_id = c.id and e.action in ('update_credential', 'delete_credential') and e.outcome = 'allowed')`,
  "created otherwise than once": `select id::text as fault from credential c where organization_id = $1 and 1 <>
    (select count(*) from audit_event e where e.organization_id = $1 and e.credential_id = c.id and e.action = 'create_credential' and e.outcome = 'allowed')`,
  "recorded and not there": `select credential_id::text as fault from audit_event e where organization_id = $1 and action = 'create_credential' and outcome = 'allowed'
    and not exists (select from credential c where c.organization_id = $1 and c.id = e.credential_id)`,
  "answered for good and not there": `select answer ->> 'id' as fault from idempotency_record r where organization_id = $1 and
    not exists (select from credential c where c.organization_id = $1 and c.id::text = r.answer ->> 'id')`,
  "there and not repeatable": `select id::text as fault from credential c where organization_id = $1 and
    not exists (select from idempotency_record r where r.organization_id = $1 and r.action = 'create_credential' and r.answer ->> 'id' = c.id::text)`,
  "leased for too long": `select credential_id::text as fault from credential_refresh where organization_id = $1 and lease_until > clock_timestamp() + interval '30 seconds'
    union all select 'deliveries' from credential_event_head where organization_id = $1 and lease_until > clock_timestamp() + interval '30 seconds'`,
  "events with gaps": "select organization_id::text as fault from credential_event where organization_id = $1 group by 1 having max(revision) - min(revision) + 1 <> count(*)",
};

/**
 * Everything that must hold of an organization after a crash, by what is stored; empty where it does. For organizations whose every
 * credential was created under an idempotency key and is below the limits.
 */
export async function invariantFaults(run: Run, organizationId: string): Promise<string[]> {
  const found = await chainFaults(run, organizationId);
  for (const [what, sql] of Object.entries(NEVER_TRUE)) found.push(...(await run(sql, [organizationId])).map(({ fault }) => `${what}: ${fault}`));
  return found;
}
