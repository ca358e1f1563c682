import { randomUUID } from "node:crypto";
import type { CredentialStatusName, CredentialTypeName, ProviderName } from "../domain/credential.ts";
import { type Database, known } from "./db.ts";
import type { CredentialEventKind } from "./events.ts";
import type { Row, Statement } from "./transaction.ts";

/** One event of the outbox: what happened to a credential, and how it stood afterwards. Holds no secret. */
export interface CredentialEvent {
  readonly organizationId: string;
  /** Counts the organization's events from 1 without gaps. */
  readonly revision: bigint;
  readonly occurredAt: Date;
  readonly kind: CredentialEventKind;
  readonly credentialId: string;
  readonly provider: ProviderName;
  readonly credentialType: CredentialTypeName;
  readonly status: CredentialStatusName;
  readonly statusReason: string | null;
  readonly statusSince: Date;
  readonly secretVersion: bigint;
  /** The credential's own revision; null for events of before it was kept. */
  readonly credentialRevision: number | null;
}

/** The right to deliver the events of one organization until its time is over. */
export interface DeliveryLease {
  readonly organizationId: string;
  readonly token: string;
  readonly fence: bigint;
  /** Newest event that was delivered or given up. */
  readonly sent: bigint;
  /** Failed deliveries of the next one. */
  readonly attempts: number;
}

/** The events of each organization, in order, and how far they were delivered. */
export interface OutboxStore {
  /** Takes the right to deliver for organizations with undelivered events, longest waiting first, passing over what others hold. */
  claim(limit: number, leaseMs: number): Promise<DeliveryLease[]>;
  /** Events after a revision, in order. */
  after(organizationId: string, revision: bigint, limit: number): Promise<CredentialEvent[]>;
  /** Notes that everything up to a revision was delivered or given up, and starts the lease's time anew; false where the lease is gone. */
  advance(lease: DeliveryLease, sent: bigint, leaseMs: number): Promise<boolean>;
  /** Gives the lease back; the next delivery is due after that time, ms. A failure is counted. */
  release(lease: DeliveryLease, dueInMs: number, failed: boolean): Promise<void>;
  /**
   * Removes the events of these organizations that happened before that time, from the oldest on; where asked for, only those
   * that were delivered or given up. Gives how many it were.
   */
  prune(organizations: readonly string[], before: Date, deliveredOnly: boolean): Promise<number>;
}

const CLAIM: Statement = {
  name: "outbox_claim",
  text: `with due as materialized (
  select h.organization_id from credential_event_head h
  where h.sent < h.revision and h.due_at <= now() and (h.lease_until is null or h.lease_until < now())
  order by h.due_at limit $1 for update skip locked
)
update credential_event_head h set lease_token = $2, lease_until = clock_timestamp() + $3::double precision * interval '1 millisecond', fence = h.fence + 1
from due where h.organization_id = due.organization_id
returning h.organization_id, h.fence, h.sent, h.attempts`,
};

const MINE = "h.organization_id = $1 and h.lease_token = $2 and h.fence = $3";

const ADVANCE: Statement = {
  name: "outbox_advance",
  text: `update credential_event_head h set sent = $4, attempts = 0, lease_until = clock_timestamp() + $5::double precision * interval '1 millisecond'
where ${MINE} returning 1`,
};

const RELEASE: Statement = {
  name: "outbox_release",
  text: `update credential_event_head h set lease_token = null, lease_until = null, attempts = h.attempts + $5::integer,
  due_at = clock_timestamp() + $4::double precision * interval '1 millisecond'
where ${MINE}`,
};

/** Events that are removed in one transaction, which holds up no writer but at its end. */
const PRUNED_AT_ONCE = 1_000;

/** Organizations whose oldest event has had its time. */
const PRUNABLE: Statement = {
  name: "outbox_prunable",
  text: `select h.organization_id from credential_event_head h cross join lateral (
  select e.occurred_at, e.revision from credential_event e where e.organization_id = h.organization_id and e.revision > h.pruned order by e.revision limit 1) o
where h.organization_id = any($1::uuid[]) and o.occurred_at < $2 and (not $3::boolean or o.revision <= h.sent)`,
};

/** Up to the first one that stays. The head is written last: whoever writes an event waits for it. */
const PRUNE: Statement = {
  name: "outbox_prune",
  text: `with oldest as materialized (
  select e.revision, e.occurred_at >= $2 or ($3::boolean and e.revision > h.sent) as stays from credential_event_head h cross join lateral (
    select c.revision, c.occurred_at from credential_event c where c.organization_id = h.organization_id and c.revision > h.pruned
    order by c.revision limit ${PRUNED_AT_ONCE}) e
  where h.organization_id = $1
), due as materialized (
  select coalesce(min(revision) filter (where stays) - 1, max(revision)) as through from oldest
), removed as (
  delete from credential_event e using due where e.organization_id = $1 and e.revision <= due.through returning 1
), noted as (
  update credential_event_head h set pruned = greatest(h.pruned, due.through) from due, (select count(*) as n from removed) r
  where h.organization_id = $1 and r.n > 0
)
select count(*) as n from removed`,
};

const COLUMNS = [
  "organization_id", "revision", "occurred_at", "kind", "credential_id", "provider", "credential_type", "status", "status_reason", "status_since", "secret_version", "credential_revision",
] as const;

/** The same as a list in SQL, of the table of that name. */
export const eventColumns = (table: string): string => COLUMNS.map((column) => `${table}.${column}`).join(", ");

/** A row with those columns. */
export const credentialEvent = (row: Row): CredentialEvent => ({
  organizationId: row["organization_id"] as string,
  revision: BigInt(row["revision"] as string),
  occurredAt: row["occurred_at"] as Date,
  kind: row["kind"] as CredentialEventKind,
  credentialId: row["credential_id"] as string,
  provider: row["provider"] as ProviderName,
  credentialType: row["credential_type"] as CredentialTypeName,
  status: row["status"] as CredentialStatusName,
  statusReason: row["status_reason"] as string | null,
  statusSince: row["status_since"] as Date,
  secretVersion: BigInt(row["secret_version"] as string),
  credentialRevision: row["credential_revision"] as number | null,
});

const placed = (lease: DeliveryLease): unknown[] => [known(lease.organizationId), known(lease.token), lease.fence.toString()];

/** The outbox. */
export function outboxStore(database: Database): OutboxStore {
  return {
    async claim(limit, leaseMs) {
      const token = randomUUID();
      const rows = await database.write([], CLAIM, [limit, token, leaseMs]);
      return rows.map((row) => ({
        organizationId: row["organization_id"] as string, token, fence: BigInt(row["fence"] as string), sent: BigInt(row["sent"] as string), attempts: row["attempts"] as number,
      }));
    },

    async after(organizationId, revision, limit) {
      const rows: Row[] = await database.read(organizationId, (trx) =>
        trx("credential_event").select(COLUMNS).where("organization_id", organizationId).where("revision", ">", revision.toString()).orderBy("revision").limit(limit),
      );
      return rows.map(credentialEvent);
    },

    async advance(lease, sent, leaseMs) {
      const rows = await database.write([], ADVANCE, [...placed(lease), sent.toString(), leaseMs]);
      return rows.length > 0;
    },

    async release(lease, dueInMs, failed) {
      await database.write([], RELEASE, [...placed(lease), dueInMs, failed ? 1 : 0]);
    },

    async prune(organizations, before, deliveredOnly) {
      let removed = 0;
      const due = await database.write(organizations, PRUNABLE, [organizations, before, deliveredOnly]);
      for (const row of due) {
        const organization = row["organization_id"] as string;
        for (let n = PRUNED_AT_ONCE; n === PRUNED_AT_ONCE; removed += n) {
          n = Number((await database.write([organization], PRUNE, [organization, before, deliveredOnly]))[0]?.["n"]);
        }
      }
      return removed;
    },
  };
}
