/**
 * Tables without row-level security, each with the reason. They are read before an organization is known, and hold only
 * ids, hashes, counts and times. Every other table belongs to tenants and forces row-level security.
 */
export const TABLES_WITHOUT_TENANT = {
  credential_event_head: "a delivery is found before an organization is known",
  credential_refresh: "what is due is found before an organization is known",
  service_account_key: "an API key is looked up by its prefix, and says which organization calls",
  oauth_state: "an authorization in progress is found by its state, and says which organization began it",
  key_registry: "the master keys are checked before any organization calls",
  primary_master_key: "the master key that wraps for every organization",
  replica: "which processes serve, and what they have loaded",
  foreign_key_check: "hashes of keys of other systems, which no master key may be",
  organization_key_place: "a rotation and a start ask for the organization keys under a master key; ids alone",
  rotation: "rotations of the keys of all organizations; ids, counts and times",
  rotation_failure: "which rows a rotation could not open; ids and a word",
  audit_signing: "the heads of every organization's chain are signed, whichever they are",
  purge_due: "what is to be purged is found for every organization",
  schema_migration: "the version of the schema",
  schema_migration_lock: "a lock of the migration runner",
} as const;

/** What the application role may do, table by table; it may nothing else. Columns where an update is limited to them. */
export const APPLICATION_GRANTS: Readonly<Record<string, readonly string[]>> = {
  credential: [
    "select",
    "insert",
    "update (credential_type, name, account_email, token_expires_at, status, status_reason, status_since, renewable, sealed, secret_version, revision, updated_at, modified_by, deleted_at, purged_at, oauth_origin, account_id, requested_scopes, granted_scopes)",
  ],
  credential_counter: ["select", "insert", "update (n)"],
  credential_event: ["select", "insert", "delete"],
  credential_event_head: ["select", "insert", "update (revision, pruned, sent, due_at, attempts, fence, lease_token, lease_until)"],
  credential_refresh: ["select", "insert", "delete", "update (due_at, attempts, fence, lease_token, lease_until, intent_version, intent_fence, tried_at)"],
  oauth_authorization: ["select", "insert", "delete"],
  oauth_state: ["select", "insert"],
  organization_key: ["select", "insert", "update (wrapped, master_key_id, state, destroyed_at)"],
  key_registry: ["select", "insert", "update (canary, canary_commitment, retired_at)"],
  primary_master_key: ["select", "insert", "update (master_key_id, promoted_at)"],
  replica: ["select", "insert", "update", "delete"],
  foreign_key_check: ["select", "insert"],
  organization_key_place: ["select"],
  rotation: ["select", "insert", "update"],
  rotation_failure: ["select", "insert", "update", "delete"],
  imported_credential: ["select", "insert"],
  service_account: ["select", "insert", "update (name, description, status, granted_providers, granted_credentials, updated_at, modified_by, deleted_at)"],
  service_account_key: ["select", "insert", "update (revoked_at)"],
  service_account_key_label: ["select", "insert", "update (name, description, updated_at, modified_by, last_used_at)"],
  audit_event: ["select", "insert"],
  audit_head: ["select", "insert", "update (link, digest, hash)"],
  audit_signature: ["select", "insert"],
  audit_signing: ["select", "insert"],
  idempotency_record: ["select", "insert", "delete"],
  credential_use: ["select", "insert", "update (last_run_id, last_used_at, uses)", "delete"],
  credential_limit: ["select", "insert", "update (n)", "delete"],
  credential_previous: ["select", "insert", "update", "delete"],
  purge_due: ["select", "insert", "update", "delete"],
  schema_migration: ["select"],
};
