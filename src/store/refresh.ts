import { randomUUID } from "node:crypto";
import type { AuditEvent } from "../domain/access.ts";
import type { CredentialStatusName, ProviderName } from "../domain/credential.ts";
import { askedEvents, eventRow, recordEvents } from "./audit.ts";
import { type Database, known } from "./db.ts";
import { announce, type CredentialEventKind, eventOfKind } from "./events.ts";
import { credentialColumns, storedColumns, storedCredential } from "./rows.ts";
import { dueAt } from "./schedule.ts";
import type { StoredCredential } from "./store.ts";
import type { Row, Statement } from "./transaction.ts";

/** The right to renew one credential until its time is over. What is written under it takes effect only while nobody else holds it. */
export interface Lease {
  readonly organizationId: string;
  readonly credentialId: string;
  readonly token: string;
  readonly fence: bigint;
}

/** A lease of the sweep, with the provider by which its work is capped. */
export interface DueLease extends Lease {
  readonly provider: ProviderName;
}

/** How many due credentials of a provider to take. */
export interface Quota {
  readonly provider: ProviderName;
  readonly limit: number;
}

/** What was found of a credential that somebody wants renewed. */
export interface Claim {
  readonly stored: StoredCredential;
  /** The lease, where it was free and the credential is due. */
  readonly lease: Lease | undefined;
  /** Whether the credential is due and somebody else holds the lease. */
  readonly held: boolean;
}

/** A credential whose renewal was journaled. */
export interface Begun {
  readonly stored: StoredCredential;
  /** Whether an earlier renewal with the same secret was cut off, so that the provider may have replaced its token. */
  readonly interrupted: boolean;
  /** Failures since the last success. */
  readonly attempts: number;
  /** The database's clock. */
  readonly now: Date;
}

/** A renewed secret; its version is one above the one that was sent. */
export interface Renewed {
  readonly sentVersion: bigint;
  readonly sealed: Buffer;
  readonly tokenExpiresAt: Date | null;
  /** What is to be said about the credential although it is active; null for nothing. */
  readonly reason: string | null;
}

/** How an attempt ended that brought no new secret. */
export interface Settlement {
  readonly sentVersion: bigint;
  /** New status and its reason; null changes neither. */
  readonly mark: { readonly status: CredentialStatusName; readonly reason: string } | null;
  /** When to look again, ms from now; null for never. */
  readonly dueInMs: number | null;
  /** Whether the journal goes on to say that the outcome is not known. */
  readonly inDoubt: boolean;
  /** Whether the attempt counts as a failure. */
  readonly failed: boolean;
}

/**
 * Who renews which credential, and what comes of it. A lease is held by a row and not by a connection: between two calls
 * nothing is locked. Times are the database's.
 */
export interface RefreshStore {
  /** Takes the lease on one credential where it is due and `mayTake`; undefined where there is no such active credential. */
  claim(organizationId: string, id: string, leaseMs: number, mayTake: boolean): Promise<Claim | undefined>;
  /** Takes leases on what is due longest, passing over what others hold or are taking. */
  claimDue(quotas: readonly Quota[], leaseMs: number): Promise<DueLease[]>;
  /**
   * Journals that the secret is about to be sent, records it in the audit trail, and starts the lease's time anew. Where an
   * earlier attempt was cut off, the credential becomes `in_doubt`. Undefined where the lease or the credential is gone.
   */
  begin(lease: Lease, leaseMs: number, events: readonly AuditEvent[]): Promise<Begun | undefined>;
  /** Stores a renewed secret, makes the credential `active` and gives the lease back; false where the lease or that version is gone. */
  keep(lease: Lease, renewed: Renewed, events: readonly AuditEvent[]): Promise<boolean>;
  /** Stores how an attempt ended and gives the lease back; false where the lease or that version is gone. */
  settle(lease: Lease, settlement: Settlement, events: readonly AuditEvent[]): Promise<boolean>;
  /** Gives a lease back that came to nothing. */
  release(lease: Lease): Promise<void>;
}

const FREE = "r.due_at <= now() and (r.lease_until is null or r.lease_until < now())";

/** The lease's time from now on, of a number of milliseconds. */
const leaseUntil = (parameter: string): string => `clock_timestamp() + ${parameter}::double precision * interval '1 millisecond'`;

const CLAIM: Statement = {
  name: "refresh_claim",
  text: `with leased as (
  update credential_refresh r set lease_token = $3, lease_until = ${leaseUntil("$4")}, fence = r.fence + 1
  where r.organization_id = $1 and r.credential_id = $2 and ${FREE} and $5::boolean
  returning r.fence
)
select ${storedColumns("c")}, leased.fence, coalesce(r.due_at <= now(), false) as due
from credential c left join leased on true left join credential_refresh r on r.organization_id = c.organization_id and r.credential_id = c.id
where c.organization_id = $1 and c.id = $2 and c.deleted_at is null`,
};

const CLAIM_DUE: Statement = {
  name: "refresh_claim_due",
  text: `with due as materialized (
  select d.* from unnest($1::text[], $2::integer[]) q(provider, n) cross join lateral (
    select r.organization_id, r.credential_id from credential_refresh r where r.provider = q.provider and ${FREE}
    order by r.due_at limit q.n for update skip locked) d
)
update credential_refresh r set lease_token = $3, lease_until = ${leaseUntil("$4")}, fence = r.fence + 1
from due where r.organization_id = due.organization_id and r.credential_id = due.credential_id
returning r.organization_id, r.credential_id, r.provider, r.fence`,
};

const MINE = "r.organization_id = $1 and r.credential_id = $2 and r.lease_token = $3 and r.fence = $4";
const NOW = "date_trunc('milliseconds', clock_timestamp())";

/**
 * Records the events that were asked for, and a mark only where the status changed. Where it did not, there is still an event
 * of the other kind, if one is given.
 */
const recordChange = (source: string, otherwise?: CredentialEventKind): string => `change as (
  ${otherwise === undefined ? `${eventOfKind(source, "'status_changed'")} where shifted` : eventOfKind(source, `case when shifted then 'status_changed' else '${otherwise}' end`)}
), ${announce("change")}, happened as (
  select asked.* from asked, settled, (select count(*) from announced) n
  where asked.action not like 'mark_%' or exists (select from change where kind = 'status_changed')
), ${recordEvents("happened")}`;

const BEGIN: Statement = {
  name: "refresh_begin",
  text: `with ${askedEvents("$6")}, target as materialized (
  select ${storedColumns("c")}, r.attempts, coalesce(r.intent_version = c.secret_version, false) as interrupted
  from credential c join credential_refresh r on r.organization_id = c.organization_id and r.credential_id = c.id
  where ${MINE} and c.organization_id = $1 and c.id = $2 and c.deleted_at is null
  for no key update of c
), settled as (
  update credential_refresh r set lease_until = ${leaseUntil("$5")}, intent_version = case when t.renewable then t.secret_version end
  from target t where ${MINE} and t.renewable returning r.fence
), marked as (
  update credential c set status = 'in_doubt', status_reason = 'renewal_interrupted', status_since = ${NOW}
  from target t, settled where c.organization_id = $1 and c.id = $2 and t.interrupted and t.status <> 'in_doubt'
  returning ${credentialColumns("c")}, true as shifted
), ${recordChange("marked")}
select t.*, ${NOW} as now from target t where exists (select from settled) or not t.renewable`,
};

/** Locks the credential in the version that was sent, so that nothing is written over another one. */
const TARGET = `target as materialized (
  select c.status, c.status_reason from credential c
  where c.organization_id = $1 and c.id = $2 and c.deleted_at is null and c.secret_version = $5
  for no key update
)`;

/** Shortest time between two renewals of one credential, whatever end a provider gives its tokens. */
const PAUSE = "interval '15 seconds'";

const KEEP: Statement = {
  name: "refresh_keep",
  text: `with ${askedEvents("$9")}, ${TARGET}, settled as (
  update credential_refresh r set lease_token = null, lease_until = null, intent_version = null, attempts = 0,
    due_at = greatest(${dueAt("$7::timestamptz")}, now() + ${PAUSE})
  from target where ${MINE} returning r.fence
), changed as (
  update credential c set sealed = $6, secret_version = c.secret_version + 1, token_expires_at = $7, status = 'active', status_reason = $8,
    status_since = case when (t.status, t.status_reason) is distinct from ('active', $8::text) then ${NOW} else c.status_since end
  from settled, target t where c.organization_id = $1 and c.id = $2 and c.secret_version = $5
  returning ${credentialColumns("c")}, (t.status, t.status_reason) is distinct from ('active', $8::text) as shifted
), ${recordChange("changed", "rotated")}
select 1 from changed`,
};

const SETTLE: Statement = {
  name: "refresh_settle",
  text: `with ${askedEvents("$11")}, ${TARGET}, settled as (
  update credential_refresh r set lease_token = null, lease_until = null, attempts = r.attempts + $9::integer,
    intent_version = case when $10::boolean then $5::bigint end,
    due_at = ${leaseUntil("$8")}
  from target where ${MINE} returning r.fence
), changed as (
  update credential c set status = $6, status_reason = $7, status_since = ${NOW}
  from settled, target t where c.organization_id = $1 and c.id = $2 and $6::text is not null and (t.status, t.status_reason) is distinct from ($6::text, $7::text)
  returning ${credentialColumns("c")}, true as shifted
), ${recordChange("changed")}
select 1 from settled`,
};

const RELEASE: Statement = { name: "refresh_release", text: `update credential_refresh r set lease_token = null, lease_until = null where ${MINE}` };

const placed = (lease: Lease): unknown[] => [known(lease.organizationId), known(lease.credentialId), known(lease.token), lease.fence.toString()];
const fenceOf = (row: Row): bigint => BigInt(row["fence"] as string);
const recorded = (events: readonly AuditEvent[]): string => JSON.stringify(events.map(eventRow));

/** Leases and outcomes of renewals. */
export function refreshStore(database: Database): RefreshStore {
  const write = (lease: Lease, statement: Statement, ...values: unknown[]) => database.write([lease.organizationId], statement, [...placed(lease), ...values]);
  return {
    async claim(organizationId, id, leaseMs, mayTake) {
      const token = randomUUID();
      const [row] = await database.write([organizationId], CLAIM, [known(organizationId), known(id), token, leaseMs, mayTake]);
      if (row === undefined) return undefined;
      const lease = row["fence"] === null ? undefined : { organizationId, credentialId: id, token, fence: fenceOf(row) };
      return { stored: storedCredential(row), lease, held: lease === undefined && row["due"] === true };
    },

    async claimDue(quotas, leaseMs) {
      const token = randomUUID();
      const rows = await database.write([], CLAIM_DUE, [quotas.map(({ provider }) => provider), quotas.map(({ limit }) => limit), token, leaseMs]);
      return rows.map((row) => ({
        organizationId: row["organization_id"] as string, credentialId: row["credential_id"] as string, provider: row["provider"] as ProviderName, token, fence: fenceOf(row),
      }));
    },

    async begin(lease, leaseMs, events) {
      const [row] = await write(lease, BEGIN, leaseMs, recorded(events));
      if (row === undefined) return undefined;
      return { stored: storedCredential(row), interrupted: row["interrupted"] === true, attempts: row["attempts"] as number, now: row["now"] as Date };
    },

    async keep(lease, { sentVersion, sealed, tokenExpiresAt, reason }, events) {
      const rows = await write(lease, KEEP, sentVersion.toString(), sealed, tokenExpiresAt, reason, recorded(events));
      return rows.length > 0;
    },

    async settle(lease, { sentVersion, mark, dueInMs, inDoubt, failed }, events) {
      const rows = await write(lease, SETTLE, sentVersion.toString(), mark?.status ?? null, mark?.reason ?? null, dueInMs, failed ? 1 : 0, inDoubt, recorded(events));
      return rows.length > 0;
    },

    async release(lease) {
      await write(lease, RELEASE);
    },
  };
}
