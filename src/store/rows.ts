import type { CredentialRecord, CredentialStatusName, CredentialTypeName, ProviderName } from "../domain/credential.ts";
import type { CredentialUse, PreviousSecret, ServiceAccountKeyRow, ServiceAccountRow, ServiceAccountStatus, StoredCredential, StoredKey } from "./store.ts";
import type { Row } from "./transaction.ts";

/** Columns of a credential that are known without its secret. */
export const CREDENTIAL_COLUMNS = [
  "organization_id", "id", "provider", "credential_type", "user_id", "name", "account_email", "account_id", "created_at", "updated_at", "modified_by",
  "status", "status_reason", "status_since", "renewable", "token_expires_at", "revision", "secret_version",
] as const;

/** The same as a list in SQL, of the table of that name. */
export const credentialColumns = (table: string): string => CREDENTIAL_COLUMNS.map((column) => `${table}.${column}`).join(", ");

/** A row of `credential`; its constraints guarantee what is asserted here. */
export function credentialRecord(row: Row): CredentialRecord {
  return {
    organizationId: row["organization_id"] as string,
    id: row["id"] as string,
    provider: row["provider"] as ProviderName,
    credentialType: row["credential_type"] as CredentialTypeName,
    userId: row["user_id"] as string | null,
    name: row["name"] as string | null,
    accountEmail: row["account_email"] as string | null,
    accountId: row["account_id"] as string | null,
    createdAt: row["created_at"] as Date,
    updatedAt: row["updated_at"] as Date,
    modifiedBy: row["modified_by"] as string,
    status: row["status"] as CredentialStatusName,
    statusReason: row["status_reason"] as string | null,
    statusSince: row["status_since"] as Date,
    renewable: row["renewable"] as boolean,
    tokenExpiresAt: row["token_expires_at"] as Date | null,
    revision: row["revision"] as number,
    secretVersion: BigInt(row["secret_version"] as string),
  };
}

/** What opening a secret and handing it out depends on, as `storedColumns` gives it beside the sealed value. */
export const STORED_FACTS = ["organization_id", "id", "provider", "credential_type", "status", "status_reason", "renewable", "secret_version", "own_client", "remaining_ms"] as const;

/** The columns of a stored credential, of the table `credential` under that name. */
export const storedColumns = (table: string): string =>
  `${[...STORED_FACTS.slice(0, -2), "sealed"].map((column) => `${table}.${column}`).join(", ")}, ${table}.oauth_origin = 'flow' as own_client,
    extract(epoch from ${table}.token_expires_at - clock_timestamp()) * 1000 as remaining_ms`;

/** A row with those columns. */
export const storedCredential = (row: Row): StoredCredential => ({
  organizationId: row["organization_id"] as string,
  id: row["id"] as string,
  provider: row["provider"] as ProviderName,
  credentialType: row["credential_type"] as CredentialTypeName,
  status: row["status"] as CredentialStatusName,
  statusReason: row["status_reason"] as string | null,
  renewable: row["renewable"] as boolean,
  ownClient: row["own_client"] as boolean,
  secretVersion: BigInt(row["secret_version"] as string),
  sealed: row["sealed"] as Buffer,
  remainingMs: row["remaining_ms"] === null ? null : Number(row["remaining_ms"]),
});

/** What is read of `credential_previous`. Columns are always named: a prepared statement fails once a migration adds one to those that it meant by a star. */
export const PREVIOUS_COLUMNS = "credential_type, secret_version, sealed, account_email, token_expires_at, oauth_origin, account_id, requested_scopes, granted_scopes, kept_until";

/** A row with those columns. */
export const previousSecret = (row: Row): PreviousSecret => ({
  credentialType: row["credential_type"] as CredentialTypeName,
  secretVersion: BigInt(row["secret_version"] as string),
  sealed: row["sealed"] as Buffer,
  accountEmail: row["account_email"] as string | null,
  tokenExpiresAt: row["token_expires_at"] as Date | null,
  flow: row["oauth_origin"] !== "flow" ? undefined : {
    accountId: row["account_id"] as string,
    requestedScopes: (row["requested_scopes"] as string[] | null) ?? [],
    grantedScopes: row["granted_scopes"] as string[] | null,
    reason: null,
  },
  keptUntil: row["kept_until"] as Date,
});

/** A row of `credential_use`, or what became of it as JSON, which has no times. */
export const credentialUse = (row: Row): CredentialUse => ({
  serviceAccountId: row["service_account_id"] as string,
  flowId: row["flow_id"] as string,
  lastRunId: row["last_run_id"] as string | null,
  lastUsedAt: new Date(row["last_used_at"] as Date | string),
  uses: Number(row["uses"]),
});

/** What is read of `service_account_key` to verify a key. */
export const STORED_KEY_COLUMNS = "id, organization_id, service_account_id, token_prefix, token_hash, created_at, expires_at, revoked_at";

/** A row with those columns. */
export const storedKey = (row: Row): StoredKey => ({
  id: row["id"] as string,
  organizationId: row["organization_id"] as string,
  serviceAccountId: row["service_account_id"] as string,
  tokenPrefix: row["token_prefix"] as string,
  tokenHash: row["token_hash"] as Buffer,
  createdAt: row["created_at"] as Date,
  expiresAt: row["expires_at"] as Date | null,
  revokedAt: row["revoked_at"] as Date | null,
});

/** A row of `service_account_key` and its label, without the hash. */
export const serviceAccountKey = (row: Row): ServiceAccountKeyRow => ({
  id: row["id"] as string,
  organizationId: row["organization_id"] as string,
  serviceAccountId: row["service_account_id"] as string,
  tokenPrefix: row["token_prefix"] as string,
  createdAt: row["created_at"] as Date,
  expiresAt: row["expires_at"] as Date | null,
  revokedAt: row["revoked_at"] as Date | null,
  name: row["name"] as string,
  description: row["description"] as string | null,
  updatedAt: row["updated_at"] as Date,
  modifiedBy: row["modified_by"] as string,
  lastUsedAt: row["last_used_at"] as Date | null,
});

/** A row of `service_account`. */
export const serviceAccount = (row: Row): ServiceAccountRow => ({
  id: row["id"] as string,
  organizationId: row["organization_id"] as string,
  name: row["name"] as string,
  description: row["description"] as string | null,
  status: row["status"] as ServiceAccountStatus,
  scope: scopeOf(row),
  createdAt: row["created_at"] as Date,
  updatedAt: row["updated_at"] as Date,
  modifiedBy: row["modified_by"] as string,
  lastUsedAt: (row["last_used_at"] as Date | null | undefined) ?? null,
});

/** The scope in a row with the two columns of grants. */
export function scopeOf(row: Row): ServiceAccountRow["scope"] {
  const [providers, credentialIds] = [row["granted_providers"] as string[] | null, row["granted_credentials"] as string[] | null];
  return providers === null || credentialIds === null ? null : { providers, credentialIds };
}
