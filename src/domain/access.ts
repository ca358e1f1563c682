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

/** Everything a caller can ask for, and which kinds may. */
export const ACTIONS = {
  create_credential: ["user"],
  list_credentials: TENANT,
  get_credential: TENANT,
  update_credential: TENANT,
  delete_credential: TENANT,
  resolve_credential: ["service_account"],
  list_integrations: TENANT,
  test_sftp_connection: TENANT,
  test_postgres_connection: TENANT,
  test_postgres_credential: TENANT,
  test_credential: TENANT,
  create_service_account: ["operator"],
  create_service_account_key: ["operator"],
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

/** Which caller an action leaves, by type. */
export type CallerOf<A extends Action> = (typeof ACTIONS)[A][number] extends "operator" ? OperatorCaller : TenantCaller;

/** One verified call: who, and the facts that its audit record and its deadline need. */
export interface Call {
  readonly caller: Caller;
  /** ULID of the request. */
  readonly requestId: string;
  /** Flow and run the caller named, for the audit record. */
  readonly flowId: string | null;
  readonly runId: string | null;
  /** Aborts when the caller cancels or the deadline passes. */
  readonly signal: AbortSignal;
}

/** One record of the audit trail. Never holds a value of a request. */
export interface AuditEvent {
  readonly organizationId: string;
  readonly requestId: string;
  readonly actorKind: CallerKind;
  readonly actorId: string;
  readonly action: Action;
  /** `cancelled` and `failed`: a second record of a call that was allowed and whose answer never left. */
  readonly outcome: "allowed" | "refused" | "cancelled" | "failed";
  /** Why it was refused, cancelled or failed; null where it was allowed. */
  readonly reason: string | null;
  readonly credentialId: string | null;
  readonly flowId: string | null;
  readonly runId: string | null;
}
