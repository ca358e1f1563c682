/**
 * Tables without row-level security, each with the reason. They are read before an organization is known, and hold only
 * ids, hashes, counts and times. Every other table belongs to tenants and forces row-level security.
 */
export const TABLES_WITHOUT_TENANT = {
  service_account_key: "an API key is looked up by its prefix, and says which organization calls",
  oauth_state: "an authorization in progress is found by its state, and says which organization began it",
  key_registry: "the master keys are checked before any organization calls",
  master_key_use: "a start asks which master keys are needed before any organization calls",
  schema_migration: "the version of the schema",
  schema_migration_lock: "a lock of the migration runner",
} as const;

/** What the application role may do, table by table; it may nothing else. Columns where an update is limited to them. */
export const APPLICATION_GRANTS: Readonly<Record<string, readonly string[]>> = {
  credential: [
    "select",
    "insert",
    "update (credential_type, name, account_email, token_expires_at, status, status_reason, sealed, secret_version, revision, updated_at, modified_by, deleted_at, oauth_origin, account_id, requested_scopes, granted_scopes)",
  ],
  credential_counter: ["select", "insert", "update (n)"],
  oauth_authorization: ["select", "insert", "delete"],
  oauth_state: ["select", "insert"],
  organization_key: ["select", "insert"],
  key_registry: ["select", "insert"],
  master_key_use: ["select"],
  service_account: ["select", "insert"],
  service_account_key: ["select", "insert"],
  audit_event: ["select", "insert"],
  audit_head: ["select", "insert", "update (link, digest, hash)"],
  schema_migration: ["select"],
};
