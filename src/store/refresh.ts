import { randomUUID } from "node:crypto";
import type { AuditEvent } from "../domain/access.ts";
import type { CredentialStatusName, ProviderName } from "../domain/credential.ts";
import { eventRow } from "./audit.ts";
import { type Database, known } from "./db.ts";
import { BEGIN, CLAIM, CLAIM_DUE, KEEP, RELEASE, SETTLE } from "./refresh-statements.ts";
import { storedCredential } from "./rows.ts";
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

/** Time after a failure in which nothing is tried for those who wait for a token that has ended, ms; up to twice as long. */
const RETRY_MS = 5_000;

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
