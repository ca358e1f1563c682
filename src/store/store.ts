import type { AuditEvent } from "../domain/access.ts";
import type { CredentialRecord, CredentialStatusName, CredentialTypeName, ProviderName, Renewal } from "../domain/credential.ts";
import type { ServiceAccountStore } from "./account-rows.ts";
import type { IdempotencyStore } from "./idempotency.ts";
import type { MaintenanceStore } from "./maintenance.ts";
import type { TrailStore } from "./trail.ts";
import type { ImportStore } from "./imports.ts";
import type { StoreLoad } from "./load.ts";
import type { OutboxStore } from "./outbox.ts";
import type { RefreshStore } from "./refresh.ts";
import type { ReplicaStore } from "./replicas.ts";
import type { RotationRows } from "./rotation-rows.ts";
import type { RotationStore } from "./rotations.ts";
import type { TallyStore } from "./tally.ts";
import type { CredentialUse, UsageStore } from "./usage.ts";
import type { UseReportStore } from "./use-reports.ts";
import type { WatchStore } from "./watch.ts";

export type * from "./account-rows.ts";
export type * from "./idempotency.ts";
export type * from "./maintenance.ts";
export type * from "./trail.ts";
export type * from "./usage.ts";

/** A sealed secret, and what opening it and handing it out depends on. */
export interface StoredCredential extends Pick<CredentialRecord, "organizationId" | "id" | "provider" | "credentialType" | "status" | "statusReason" | "renewable" | "secretVersion"> {
  readonly sealed: Buffer;
  /** Whether the grant came from the service's own authorize flow, and so belongs to its own OAuth client. */
  readonly ownClient: boolean;
  /** Time until the access token ends, by the database's clock, ms; negative once it has, null where it has no known end. */
  readonly remainingMs: number | null;
}

/** What our own authorization flow learnt of a credential. */
export interface FlowFacts {
  /** Stable id of the account at the provider. */
  readonly accountId: string;
  readonly requestedScopes: readonly string[];
  /** Null where the provider did not say. */
  readonly grantedScopes: readonly string[] | null;
  /** What there is to say of a credential that works; a stable word. */
  readonly reason: string | null;
}

/** What a new credential brings; times, revision (1) and secret version (1) are the store's. */
export interface NewCredential {
  readonly organizationId: string;
  readonly id: string;
  readonly provider: ProviderName;
  readonly credentialType: CredentialTypeName;
  readonly userId: string;
  readonly name: string | null;
  readonly accountEmail: string | null;
  readonly tokenExpiresAt: Date | null;
  readonly modifiedBy: string;
  readonly sealed: Buffer;
  /** What is to be done about the end of its access token; nothing where not given. */
  readonly renewal?: Renewal;
  /** Present where our own flow made it; its tokens then belong to our own client. */
  readonly flow?: FlowFacts;
}

/** A replacement of a secret. Takes effect only where the stored revision is still `expectedRevision`. */
export interface Replacement {
  readonly organizationId: string;
  readonly id: string;
  readonly expectedRevision: number;
  readonly credentialType: CredentialTypeName;
  /** New name; null keeps the old one. */
  readonly name: string | null;
  /** New account e-mail; null keeps the old one. */
  readonly accountEmail: string | null;
  readonly tokenExpiresAt: Date | null;
  readonly status: CredentialStatusName;
  readonly modifiedBy: string;
  /** Sealed for this very version; one above the version that was read. */
  readonly secretVersion: bigint;
  readonly sealed: Buffer;
  /** How long the secret that is replaced is kept, s; 0 or absent keeps nothing, and drops what was kept before. */
  readonly keepPreviousSeconds?: number;
  /** What is to be done about the end of its access token; nothing where not given. */
  readonly renewal?: Renewal;
  /** Present where our own flow made it; without, the tokens belong to whoever posted them. */
  readonly flow?: FlowFacts;
}

/** The secret before the newest one, while it is kept. */
export interface PreviousSecret {
  readonly credentialType: CredentialTypeName;
  readonly secretVersion: bigint;
  readonly sealed: Buffer;
  readonly accountEmail: string | null;
  readonly tokenExpiresAt: Date | null;
  /** Present where our own flow made it. */
  readonly flow: FlowFacts | undefined;
  readonly keptUntil: Date;
}

/** A credential and what is known beside it. */
export interface DescribedCredential {
  readonly record: CredentialRecord;
  /** Until when the secret before the newest one is kept; null where none is. */
  readonly previousKeptUntil: Date | null;
  /** Who resolved it, newest first; 20 at most. */
  readonly uses: readonly CredentialUse[];
}

/** Which credential to delete; a null revision is no precondition. */
export interface Removal {
  readonly organizationId: string;
  readonly id: string;
  readonly expectedRevision: number | null;
  readonly modifiedBy: string;
  /** Nothing is deleted that was resolved within so many seconds; 0 or absent does not ask. */
  readonly refuseIfUsedWithinSeconds?: number;
}

/** Limits on active credentials. */
export interface CredentialLimits {
  readonly perProvider: number;
  readonly perUser: number;
}

/**
 * Credentials of one organization at a time. Every function takes the organization; rows of another one, deleted rows
 * and missing rows are all the same absence. Each write commits together with its audit event, or not at all. Once its
 * signal is aborted, a function rejects with the signal's reason, and nothing is written unless it was committed already.
 */
export interface CredentialStore {
  /** Counts against both limits and inserts, in one statement. Throws LIMIT_PER_PROVIDER_REACHED or LIMIT_PER_USER_REACHED. */
  create(row: NewCredential, limits: CredentialLimits, event: AuditEvent, signal: AbortSignal): Promise<CredentialRecord>;
  /** Active credentials, newest first, ties by id descending. */
  list(organizationId: string, filter: { userId: string | null; provider: ProviderName | null }, signal: AbortSignal): Promise<CredentialRecord[]>;
  get(organizationId: string, id: string, signal: AbortSignal): Promise<CredentialRecord | undefined>;
  /**
   * The same with what is known beside it, sharing one round trip with every other call that waits. Shared work is not
   * cancelled for one call, so there is no signal. Uses that were not written down yet are not among it.
   */
  describe(organizationId: string, id: string): Promise<DescribedCredential | undefined>;
  /** The secret before the newest one; undefined where none is kept any more. */
  previous(organizationId: string, id: string, signal: AbortSignal): Promise<PreviousSecret | undefined>;
  /** `stale` where the revision has moved on; undefined where there is no such active credential. */
  replace(change: Replacement, event: AuditEvent, signal: AbortSignal): Promise<CredentialRecord | "stale" | undefined>;
  /** Soft delete; gives both counters back. Throws CREDENTIAL_IN_USE; every use that was committed before counts. */
  remove(where: Removal, event: AuditEvent, signal: AbortSignal): Promise<"removed" | "stale" | undefined>;
  /**
   * Reads the sealed secret and commits the audit event in the same transaction, sharing one round trip with every
   * other call that waits. An event is written only where the credential is found. Throws AUDIT_UNAVAILABLE where
   * nothing could be committed, OVERLOADED where the queue is full. Shared work is not cancelled for one call, so there is
   * no signal.
   */
  resolve(organizationId: string, id: string, event: AuditEvent): Promise<StoredCredential | undefined>;
}

/** A wrapped organization key. `wrapped` is null once the organization was destroyed. */
export interface OrganizationKeyRow {
  readonly organizationId: string;
  readonly version: number;
  readonly wrapped: Buffer | null;
  readonly commitment: Buffer;
  /** Whether nothing may be opened under it any more. */
  readonly retired: boolean;
}

/** Organization keys. They are committed before anyone seals with them. */
export interface OrganizationKeyStore {
  /** The version that seals; undefined for an organization that has none yet. */
  current(organizationId: string): Promise<OrganizationKeyRow | undefined>;
  byVersion(organizationId: string, version: number): Promise<OrganizationKeyRow | undefined>;
  /** Stores version 1 unless another process was faster, and gives back the row that stands. Throws KEY_MOVED where the master key is not the primary one. */
  insertFirst(row: Omit<OrganizationKeyRow, "retired"> & { readonly wrapped: Buffer; readonly masterKeyId: string }): Promise<OrganizationKeyRow>;
  /** The newest version, whether or not it seals. */
  newestVersion(organizationId: string): Promise<number | undefined>;
  /** Destroys every key of an organization and ends its rotations; gives how many keys it were. No key can be made for it afterwards. */
  destroy(organizationId: string, event: AuditEvent): Promise<number>;
}

/** One master key as the database knows it. */
export interface MasterKeyRow {
  readonly id: string;
  readonly checkValue: Buffer;
  /** Organization keys that are wrapped under it. */
  readonly inUse: number;
  /** Null for a key that was never loaded. */
  readonly firstSeen: Date | null;
  readonly retiredAt: Date | null;
  /** A key that wraps nothing, wrapped under this one; null where none was made yet. */
  readonly canary: Canary | null;
}

/** A wrapped key that wraps nothing, and what must be derived from it. */
export interface Canary {
  readonly wrapped: Buffer;
  readonly commitment: Buffer;
}

/** The registry of master keys. */
export interface KeyRegistryStore {
  /** Every key ever seen, and every key id that a wrapped key names, with its use count; `checkValue` is empty where unknown. */
  list(): Promise<MasterKeyRow[]>;
  /** Records a key; keeps the first check value where the id is known already, and gives that back. */
  register(id: string, checkValue: Buffer): Promise<Buffer>;
  /** Keeps a canary, unless there is one. */
  setCanary(id: string, canary: Canary): Promise<void>;
  /** The key that wraps; undefined in a new database. */
  primary(): Promise<string | undefined>;
  /** Records check values of keys of other systems. */
  registerForeign(checkValues: readonly Buffer[]): Promise<void>;
  /** Every one of them. */
  foreign(): Promise<Buffer[]>;
}

/** An authorization in progress. */
export interface AuthorizationRow {
  readonly organizationId: string;
  readonly id: string;
  readonly userId: string;
  readonly provider: ProviderName;
  /** SHA-256 of the state. */
  readonly stateHash: Buffer;
  /** SHA-256 of the browser's cookie; null where it began outside a browser. */
  readonly browserHash: Buffer | null;
  readonly sealed: Buffer;
}

/** An authorization that is used up, and when, by the database's clock. */
export interface TakenAuthorization extends Omit<AuthorizationRow, "stateHash" | "browserHash"> {
  readonly takenAt: Date;
}

/** Authorizations in progress. */
export interface AuthorizationStore {
  /**
   * Stores one for so many seconds. A user has at most so many in progress; the oldest give way. What has expired in the
   * organization is removed.
   */
  begin(row: AuthorizationRow, limits: { readonly seconds: number; readonly perUser: number }, event: AuditEvent, signal: AbortSignal): Promise<void>;
  /**
   * The one authorization with that state, provider and browser, which by that is used up: of several calls one gets it.
   * Undefined where there is none, or not any more. Rejects with OVERLOADED where too many ask.
   */
  take(stateHash: Buffer, provider: ProviderName, browserHash: Buffer | null, signal: AbortSignal): Promise<TakenAuthorization | undefined>;
}

/** The audit trail; nothing in it is ever changed. */
export interface AuditStore {
  /** Commits the events before it resolves. Throws AUDIT_UNAVAILABLE where not all could be, or too many wait. */
  append(events: readonly AuditEvent[]): Promise<void>;
}

/** Everything the service keeps. Throws only CredentialError; driver text stays inside. */
export interface Store {
  readonly credentials: CredentialStore;
  readonly organizationKeys: OrganizationKeyStore;
  readonly keyRegistry: KeyRegistryStore;
  readonly replicas: ReplicaStore;
  readonly rotations: RotationStore;
  readonly rotationRows: RotationRows;
  readonly imports: ImportStore;
  readonly serviceAccounts: ServiceAccountStore;
  readonly idempotency: IdempotencyStore;
  readonly usage: UsageStore;
  readonly useReports: UseReportStore;
  readonly trail: TrailStore;
  readonly maintenance: MaintenanceStore;
  readonly authorizations: AuthorizationStore;
  readonly audit: AuditStore;
  readonly refresh: RefreshStore;
  readonly outbox: OutboxStore;
  readonly tally: TallyStore;
  /** How busy the ways to the database are. */
  load(): StoreLoad;
  readonly watch: WatchStore;
  /** Tells of organizations for which a write was refused because its key has moved (KEY_MOVED): what is cached of their keys is out of date. */
  onKeyMoved(listener: (organizations: readonly string[]) => void): void;
  /** Tells that a connection was lost: the database may be another one by now, which lacks what was committed last. */
  onLost(listener: () => void): void;
  /** Whether the database answers within two seconds, and those who resolve and record have a connection. */
  ping(): Promise<boolean>;
  /** Waits for what is under way and closes every connection. */
  close(): Promise<void>;
}
