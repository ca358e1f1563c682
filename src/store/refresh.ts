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
import { type TurnOptions, Turns } from "./turns.ts";

/**
 * The right to renew one credential until its time is over. What is written under it takes effect only while nobody else holds
 * it; a renewed secret, as long as nobody else has begun.
 */
export interface Lease {
  readonly organizationId: string;
  readonly credentialId: string;
  readonly token: string;
  readonly fence: bigint;
  /** Whether it was taken from somebody whose time was over and who may still have an outcome to store. */
  readonly takenOver: boolean;
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
  /** The lease, where it was taken. */
  readonly lease: Lease | undefined;
  /** Whether it was there to be taken, but somebody else holds the lease. */
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

/** Pauses after failures in a row, ms: doubled from the first to the longest, and shortened at random. */
export interface Backoff {
  readonly firstMs: number;
  readonly longestMs: number;
}

/**
 * Who renews which credential, and what comes of it. A lease is held by a row and not by a connection: between two calls
 * nothing is locked. Whoever writes waits for a connection for as long as it takes, and what was renewed goes first. Times are
 * the database's.
 */
export interface RefreshStore {
  /**
   * Takes the lease on one credential where it is due, or somebody waits for a token of which too little is left, and `mayTake`;
   * undefined where there is no such active credential. The signal ends the wait for its turn, and nothing that has begun.
   */
  claim(organizationId: string, id: string, leaseMs: number, mayTake: boolean, signal?: AbortSignal): Promise<Claim | undefined>;
  /**
   * Takes leases on what is due longest, a like number of each organization, passing over what others hold or are taking and
   * the organizations that are named.
   */
  claimDue(quotas: readonly Quota[], leaseMs: number, without: readonly string[]): Promise<DueLease[]>;
  /**
   * Journals that the secret is about to be sent, records it in the audit trail, and starts the lease's time anew. Where an
   * earlier attempt was cut off, the credential becomes `in_doubt`. Undefined where the lease or the credential is gone.
   */
  begin(lease: Lease, leaseMs: number, events: readonly AuditEvent[]): Promise<Begun | undefined>;
  /**
   * Stores a renewed secret, makes the credential `active` and gives the lease back, whoever has it by now; false where somebody
   * else has begun a renewal, or that version is gone.
   */
  keep(lease: Lease, renewed: Renewed, events: readonly AuditEvent[]): Promise<boolean>;
  /** Stores how an attempt ended and gives the lease back; false where the lease or that version is gone. */
  settle(lease: Lease, settlement: Settlement, events: readonly AuditEvent[]): Promise<boolean>;
  /** Gives a lease back that came to nothing, and puts the credential off as a failure does. */
  release(lease: Lease, backoff: Backoff): Promise<void>;
}

const FREE = "(r.lease_until is null or r.lease_until < now())";
const DUE = `r.due_at <= now() and ${FREE}`;

/** Shortest time between two renewals of one credential, whatever end a provider gives its tokens. */
const PAUSE = "interval '15 seconds'";

/** Time after a failure in which nothing is tried for those who wait for a token that has ended, ms; up to twice as long. */
const RETRY_MS = 5_000;

/**
 * What somebody who waits for a token may renew although it is not due: one that never lasts much longer than a minute, so that
 * half of its life is less than is promised of it; and one that has ended, whatever the pause after failures has grown to, so that
 * what works again is found out by those who need it.
 */
const WANTED = `(r.due_at <= now() or r.due_at is not null and c.renewable and (
  r.attempts = 0 and c.token_expires_at < now() + interval '1 minute' and (r.tried_at is null or r.tried_at <= now() - ${PAUSE})
  or c.token_expires_at <= now() and (r.tried_at is null or r.tried_at <= now() - $6::double precision * interval '1 millisecond')))`;

/** The lease's time from now on, of a number of milliseconds. */
const leaseUntil = (parameter: string): string => `clock_timestamp() + ${parameter}::double precision * interval '1 millisecond'`;

const CLAIM: Statement = {
  name: "refresh_claim",
  text: `with leased as (
  update credential_refresh r set lease_token = $3, lease_until = ${leaseUntil("$4")}, fence = r.fence + 1
  from credential c
  where r.organization_id = $1 and r.credential_id = $2 and c.organization_id = $1 and c.id = $2 and ${WANTED} and ${FREE} and $5::boolean
  returning r.fence, r.intent_fence is not null as taken_over
)
select ${storedColumns("c")}, leased.fence, leased.taken_over, coalesce(${WANTED}, false) as wanted
from credential c left join leased on true left join credential_refresh r on r.organization_id = c.organization_id and r.credential_id = c.id
where c.organization_id = $1 and c.id = $2 and c.deleted_at is null`,
};

/** Due credentials of a provider that are looked at to choose from, longest due first. */
const CANDIDATES = 500;

/** One of each organization, then a second of each, so that those who have many due do not go before those who have few. */
const CLAIM_DUE: Statement = {
  name: "refresh_claim_due",
  text: `with candidate as materialized (
  select q.provider, d.*, row_number() over (partition by q.provider, d.organization_id order by d.due_at) as nth
  from unnest($1::text[]) q(provider) cross join lateral (
    select r.organization_id, r.credential_id, r.due_at from credential_refresh r
    where r.provider = q.provider and ${DUE} and r.organization_id <> all($5::uuid[])
    order by r.due_at limit ${CANDIDATES}) d
), due as materialized (
  select d.* from unnest($1::text[], $2::integer[]) q(provider, n) cross join lateral (
    select r.organization_id, r.credential_id from candidate k
      join credential_refresh r on r.organization_id = k.organization_id and r.credential_id = k.credential_id
    where k.provider = q.provider and ${DUE}
    order by k.nth, k.due_at limit q.n for update of r skip locked) d
)
update credential_refresh r set lease_token = $3, lease_until = ${leaseUntil("$4")}, fence = r.fence + 1
from due where r.organization_id = due.organization_id and r.credential_id = due.credential_id
returning r.organization_id, r.credential_id, r.provider, r.fence, r.intent_fence is not null as taken_over`,
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
  update credential_refresh r set lease_until = ${leaseUntil("$5")}, intent_version = t.secret_version, intent_fence = r.fence
  from target t where ${MINE} and t.renewable returning r.fence
), marked as (
  update credential c set status = 'in_doubt', status_reason = 'renewal_interrupted', status_since = ${NOW}
  from target t, settled where c.organization_id = $1 and c.id = $2 and t.interrupted and t.status <> 'in_doubt'
  returning ${credentialColumns("c")}, true as shifted
), ${recordChange("marked")}
select t.*, ${NOW} as now from target t where exists (select from settled) or not t.renewable`,
};

/** Locks the credential in the version that was sent, so that nothing is written over another one. */
const target = (version: string): string => `target as materialized (
  select c.status, c.status_reason from credential c
  where c.organization_id = $1 and c.id = $2 and c.deleted_at is null and c.secret_version = ${version}
  for no key update
)`;

/**
 * Asks for the journal and not for the lease: an outage may last longer than that, and whoever has it by then and has sent
 * nothing yet is spared a secret that the provider has replaced.
 */
const KEEP: Statement = {
  name: "refresh_keep",
  text: `with ${askedEvents("$8")}, ${target("$4")}, settled as (
  update credential_refresh r set lease_token = null, lease_until = null, intent_version = null, intent_fence = null, attempts = 0, tried_at = now(),
    due_at = greatest(${dueAt("$6::timestamptz")}, now() + ${PAUSE})
  from target where r.organization_id = $1 and r.credential_id = $2 and r.intent_fence = $3 returning r.fence
), changed as (
  update credential c set sealed = $5, secret_version = c.secret_version + 1, token_expires_at = $6, status = 'active', status_reason = $7,
    status_since = case when (t.status, t.status_reason) is distinct from ('active', $7::text) then ${NOW} else c.status_since end
  from settled, target t where c.organization_id = $1 and c.id = $2 and c.secret_version = $4
  returning ${credentialColumns("c")}, (t.status, t.status_reason) is distinct from ('active', $7::text) as shifted
), ${recordChange("changed", "rotated")}
select 1 from changed`,
};

const SETTLE: Statement = {
  name: "refresh_settle",
  text: `with ${askedEvents("$11")}, ${target("$5")}, settled as (
  update credential_refresh r set lease_token = null, lease_until = null, intent_fence = null, attempts = r.attempts + $9::integer, tried_at = now(),
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

const RELEASE: Statement = {
  name: "refresh_release",
  text: `update credential_refresh r set lease_token = null, lease_until = null, intent_fence = nullif(r.intent_fence, $4), tried_at = now(), attempts = r.attempts + 1,
    due_at = ${leaseUntil("(least($6::double precision, $5::double precision * power(2, least(r.attempts, 30))) * (0.5 + random() / 2))")}
  where ${MINE}`,
};

const placed = (lease: Lease): unknown[] => [known(lease.organizationId), known(lease.credentialId), known(lease.token), lease.fence.toString()];
const fenceOf = (row: Row): bigint => BigInt(row["fence"] as string);
const recorded = (events: readonly AuditEvent[]): string => JSON.stringify(events.map(eventRow));

/** Leases and outcomes of renewals, on a pool of so many connections. */
export function refreshStore(database: Database, connections: number): RefreshStore {
  // Writes of one organization wait for each other at the head of its audit trail: more of them at a time would gain nothing.
  const turns = new Turns({ total: connections, perOrganization: Math.max(1, Math.floor(connections / 2)) });
  const write = (organizationId: string, statement: Statement, values: readonly unknown[], options?: TurnOptions) =>
    turns.run(organizationId, () => database.write([organizationId], statement, values), options);
  return {
    async claim(organizationId, id, leaseMs, mayTake, signal) {
      const token = randomUUID();
      const [row] = await write(organizationId, CLAIM, [known(organizationId), known(id), token, leaseMs, mayTake, RETRY_MS * (1 + Math.random())], { signal });
      if (row === undefined) return undefined;
      const lease = row["fence"] === null ? undefined : { organizationId, credentialId: id, token, fence: fenceOf(row), takenOver: row["taken_over"] === true };
      return { stored: storedCredential(row), lease, held: lease === undefined && row["wanted"] === true };
    },

    async claimDue(quotas, leaseMs, without) {
      const token = randomUUID();
      const rows = await database.write([], CLAIM_DUE, [quotas.map(({ provider }) => provider), quotas.map(({ limit }) => limit), token, leaseMs, without.map(known)]);
      return rows.map((row) => ({
        organizationId: row["organization_id"] as string, credentialId: row["credential_id"] as string, provider: row["provider"] as ProviderName, token, fence: fenceOf(row), takenOver: row["taken_over"] === true,
      }));
    },

    async begin(lease, leaseMs, events) {
      const [row] = await write(lease.organizationId, BEGIN, [...placed(lease), leaseMs, recorded(events)]);
      if (row === undefined) return undefined;
      return { stored: storedCredential(row), interrupted: row["interrupted"] === true, attempts: row["attempts"] as number, now: row["now"] as Date };
    },

    async keep(lease, { sentVersion, sealed, tokenExpiresAt, reason }, events) {
      const { organizationId, credentialId, fence } = lease;
      const values = [known(organizationId), known(credentialId), fence.toString(), sentVersion.toString(), sealed, tokenExpiresAt, reason, recorded(events)];
      const rows = await write(organizationId, KEEP, values, { urgent: true });
      return rows.length > 0;
    },

    async settle(lease, { sentVersion, mark, dueInMs, inDoubt, failed }, events) {
      const values = [...placed(lease), sentVersion.toString(), mark?.status ?? null, mark?.reason ?? null, dueInMs, failed ? 1 : 0, inDoubt, recorded(events)];
      const rows = await write(lease.organizationId, SETTLE, values, { urgent: true });
      return rows.length > 0;
    },

    async release(lease, { firstMs, longestMs }) {
      await write(lease.organizationId, RELEASE, [...placed(lease), firstMs, longestMs], { urgent: true });
    },
  };
}
