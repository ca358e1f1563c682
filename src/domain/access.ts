/** Kinds of caller. A user and a service account belong to one organization, an operator to none. */
export type CallerKind = "user" | "service_account" | "operator";

/** A user or service account whose identity was verified. */
export interface TenantCaller {
  readonly kind: "user" | "service_account";
  /** UUID of the user or the service account. */
  readonly id: string;
  readonly organizationId: string;
  /** Role inside the organization, where the token names one. */
  readonly role: string | null;
  /** UUID of the API key or of the client certificate's entry that proved a service account; absent where a token did. */
  readonly keyId?: string;
}

/** An operator whose identity was verified. */
export interface OperatorCaller {
  readonly kind: "operator";
  /** The token's subject. */
  readonly id: string;
}

/** Who is calling. Made only by `auth/`. */
export type Caller = TenantCaller | OperatorCaller;

const TENANT = ["user", "service_account"] as const;
/** Operators, and users who administer their organization; see ROLES. */
const ADMINISTRATORS = ["operator", "user"] as const;

/** The role of a user who administers an organization. */
export const ORGANIZATION_ADMINISTRATOR = "org_admin";

/** Everything a caller can ask for, and which kinds may. */
export const ACTIONS = {
  create_credential: ["user"],
  list_credentials: TENANT,
  get_credential: TENANT,
  update_credential: TENANT,
  delete_credential: TENANT,
  resolve_credential: ["service_account"],
  watch_credentials: ["service_account"],
  report_credential_uses: ["service_account"],
  list_integrations: TENANT,
  test_sftp_connection: TENANT,
  test_postgres_connection: TENANT,
  test_postgres_credential: TENANT,
  test_credential: TENANT,
  rollback_credential: ["user", "service_account", "operator"],
  begin_authorization: ["user"],
  // Begun by a user, and finished in that user's name by whoever brings the state.
  complete_authorization: ["user"],
  create_service_account: ADMINISTRATORS,
  list_service_accounts: ADMINISTRATORS,
  get_service_account: ADMINISTRATORS,
  update_service_account: ADMINISTRATORS,
  delete_service_account: ADMINISTRATORS,
  set_service_account_access: ADMINISTRATORS,
  create_service_account_key: ADMINISTRATORS,
  list_service_account_keys: ADMINISTRATORS,
  update_service_account_key: ADMINISTRATORS,
  revoke_service_account_key: ADMINISTRATORS,
  list_audit_events: ["operator"],
  list_signed_audit_heads: ["operator"],
  verify_audit: ["operator"],
  restore_credential: ["operator"],
  purge_deleted: ["operator"],
  set_credential_limit: ["operator"],
  list_credential_uses: ["operator"],
  get_key_status: ["operator"],
  rotate_master_key: ["operator"],
  rotate_organization_key: ["operator"],
  verify_keys: ["operator"],
  get_rotation: ["operator"],
  control_rotation: ["operator"],
  roll_back_rotation: ["operator"],
  // No call: the service's own record that a rotation has been proven, in the name of the operator who began it.
  prove_rotation: ["operator"],
  retire_rotated_keys: ["operator"],
  destroy_organization: ["operator"],
  import_credential: ["operator"],
} as const satisfies Record<string, readonly CallerKind[]>;

/** The name of one thing a caller can ask for; also the word in the audit record. */
export type Action = keyof typeof ACTIONS;

/** What the service does by itself; also the words in the audit record, where the actor is `system`. */
export type SystemAction = "refresh_credential" | "mark_active" | "mark_expiring" | "mark_refresh_failed" | "mark_reauth_required" | "mark_in_doubt";

/** The role that an action asks of a user, where it asks for one. */
export const roleFor = (action: Action): string | undefined => (ACTIONS[action] === ADMINISTRATORS ? ORGANIZATION_ADMINISTRATOR : undefined);

type KindOf<A extends Action> = (typeof ACTIONS)[A][number];

/** Which caller an action leaves, by type. */
export type CallerOf<A extends Action> = "operator" extends KindOf<A> ? (KindOf<A> extends "operator" ? OperatorCaller : Caller) : TenantCaller;

/** What a service account that was narrowed may touch: credentials of these providers, and these credentials. */
export interface Scope {
  readonly providers: readonly string[];
  readonly credentialIds: readonly string[];
}

/** Whether a credential is within a scope; null is everything. */
export const inScope = (scope: Scope | null | undefined, credential: { readonly id: string; readonly provider: string }): boolean =>
  !scope || scope.providers.includes(credential.provider) || scope.credentialIds.includes(credential.id);

/** The claim of a write that its caller may repeat: it takes effect once under the key that the caller chose. */
export interface IdempotencyClaim {
  /** SHA-256 of the key, hexadecimal. */
  readonly keyHash: string;
  /** HMAC-SHA-256 of the request, hexadecimal. */
  readonly requestHash: string;
  /** Version of the organization key that the latter was made with. */
  readonly keyVersion: number;
}

/** One verified call: who, and the facts that its audit record and its deadline need. */
export interface Call {
  readonly caller: Caller;
  /** ULID of the request. */
  readonly requestId: string;
  /** Flow and run the caller named, for the audit record. */
  readonly flowId: string | null;
  readonly runId: string | null;
  /** What a narrowed service account may touch; null or absent for everything. Resolving does not go by it: its own statement asks. */
  readonly scope?: Scope | null;
  /** Present where the caller may repeat the call. */
  readonly idempotency?: IdempotencyClaim | null;
  /** Aborts when the caller cancels or the deadline passes. */
  readonly signal: AbortSignal;
}

/** One record of the audit trail. Never holds a value of a request. */
export interface AuditEvent {
  readonly organizationId: string;
  readonly requestId: string;
  readonly actorKind: CallerKind | "system";
  readonly actorId: string;
  readonly action: Action | SystemAction;
  /** `cancelled` and `failed`: a second record of a call that was allowed and whose answer never left. */
  readonly outcome: "allowed" | "refused" | "cancelled" | "failed";
  /** Why it was refused, cancelled or failed; null where it was allowed. */
  readonly reason: string | null;
  readonly credentialId: string | null;
  readonly flowId: string | null;
  readonly runId: string | null;
  /** What it was done to, where that is no credential: UUID of a service account or of an API key. */
  readonly subjectId?: string | null;
  /** API key that proved the caller. */
  readonly keyId?: string | null;
  /** How many calls it stands for, where they are not recorded one by one; absent for the one call that it names. */
  readonly calls?: number | null;
  /** Committed with the effect that the record is of. No part of the record. */
  readonly idempotency?: IdempotencyClaim | null;
}
