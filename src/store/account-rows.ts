import type { AuditEvent, Scope } from "../domain/access.ts";

/** Whether a service account is let in. */
export type ServiceAccountStatus = "active" | "inactive";

/** A service account. */
export interface ServiceAccountRow {
  readonly id: string;
  readonly organizationId: string;
  readonly name: string;
  readonly description: string | null;
  readonly status: ServiceAccountStatus;
  /** What it may touch; null for every credential of its organization. */
  readonly scope: Scope | null;
  readonly createdAt: Date;
  readonly updatedAt: Date;
  /** A user's id, or `operator`. */
  readonly modifiedBy: string;
  /** When one of its keys was last used, where that is known. */
  readonly lastUsedAt: Date | null;
}

/** An API key as it is looked up; the key itself is never stored. */
export interface StoredKey {
  readonly id: string;
  readonly organizationId: string;
  readonly serviceAccountId: string;
  readonly tokenPrefix: string;
  readonly tokenHash: Buffer;
  readonly createdAt: Date;
  readonly expiresAt: Date | null;
  readonly revokedAt: Date | null;
}

/** An API key, or the entry of a client certificate, as people see it. */
export interface ServiceAccountKeyRow extends Omit<StoredKey, "tokenHash"> {
  readonly name: string;
  readonly description: string | null;
  readonly updatedAt: Date;
  readonly modifiedBy: string;
  readonly lastUsedAt: Date | null;
}

/** A new service account. */
export interface NewServiceAccount {
  readonly id: string;
  readonly organizationId: string;
  readonly name: string;
  readonly description?: string | null;
  readonly scope?: Scope | null;
  readonly modifiedBy?: string;
}

/** A new API key. */
export interface NewServiceAccountKey {
  readonly id: string;
  readonly organizationId: string;
  readonly serviceAccountId: string;
  readonly name?: string;
  readonly description?: string | null;
  readonly tokenPrefix: string;
  readonly tokenHash: Buffer;
  readonly expiresAt: Date | null;
  readonly modifiedBy?: string;
}

/** What is changed of an account or a key; what is undefined stays. A null description is none. */
export interface LabelChange {
  readonly name?: string | undefined;
  readonly description?: string | null | undefined;
  readonly status?: ServiceAccountStatus | undefined;
  readonly modifiedBy: string;
}

/** Which part of a list is wanted. */
export interface Page {
  readonly offset: number;
  readonly limit: number;
}

/** How a service account stands that has proved who it is. */
export interface Standing {
  /** False where the account is disabled or deleted, or the key it came with was revoked or has ended. */
  readonly good: boolean;
  readonly scope: Scope | null;
}

/**
 * Service accounts and their keys. Every write commits together with its audit event. Deleted accounts are missing ones;
 * the account and key of another organization are too.
 */
export interface ServiceAccountStore {
  create(row: NewServiceAccount, event: AuditEvent): Promise<ServiceAccountRow>;
  /** Newest first. */
  list(organizationId: string, page: Page): Promise<ServiceAccountRow[]>;
  get(organizationId: string, id: string): Promise<ServiceAccountRow | undefined>;
  update(organizationId: string, id: string, change: LabelChange, event: AuditEvent): Promise<ServiceAccountRow | undefined>;
  setScope(organizationId: string, id: string, scope: Scope | null, modifiedBy: string, event: AuditEvent): Promise<ServiceAccountRow | undefined>;
  /** Hides the account and revokes its keys. */
  remove(organizationId: string, id: string, modifiedBy: string, event: AuditEvent): Promise<boolean>;
  /** Throws SERVICE_ACCOUNT_NOT_FOUND where the organization has no such account, CERTIFICATE_IN_USE for a prefix that exists. */
  createKey(row: NewServiceAccountKey, event: AuditEvent): Promise<ServiceAccountKeyRow>;
  /** Newest first, without revoked ones; undefined where there is no such account. */
  listKeys(organizationId: string, serviceAccountId: string, page: Page): Promise<ServiceAccountKeyRow[] | undefined>;
  updateKey(organizationId: string, serviceAccountId: string, id: string, change: LabelChange, event: AuditEvent): Promise<ServiceAccountKeyRow | undefined>;
  /** False where there is no such key, or it was revoked before. */
  revokeKey(organizationId: string, serviceAccountId: string, id: string, modifiedBy: string, event: AuditEvent): Promise<boolean>;
  /** The key with that prefix, before any organization is known. Throws OVERLOADED where too many are looked up. */
  keyByPrefix(tokenPrefix: string): Promise<StoredKey | undefined>;
  /** How an account stands now. One that is not kept here is good unless it came with a key. */
  standing(organizationId: string, id: string, keyId: string | null): Promise<Standing>;
}
