/** One fault of one field. Says where and what, never the value. */
export interface Violation {
  /** Where the field came from; only body faults are rendered as a list over REST. */
  readonly in: "path" | "body";
  /** Path of the field, outermost first; an empty path is the message itself. */
  readonly path: readonly (string | number)[];
  /** Kind of fault as a stable lower-case word: `missing`, `enum`, `string_type`, `dict_type`, … */
  readonly type: string;
  /** A sentence for people. */
  readonly message: string;
}

/** gRPC status codes, by name (https://grpc.io/docs/guides/status-codes/). */
export const GRPC_CODE = {
  CANCELLED: 1,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;

/** How one reason leaves the service. */
export interface Rendering {
  readonly grpc: keyof typeof GRPC_CODE;
  readonly http: number;
  /** `error.code` of the REST envelope. */
  readonly code: string;
  /** The public sentence; the only text that leaves besides field names and fault kinds. */
  readonly message: string;
}

const render = (grpc: Rendering["grpc"], http: number, code: string, message: string): Rendering => ({ grpc, http, code, message });

/** Every reason for which the service refuses or fails, and how each protocol says it. The names are stable. */
export const REASONS = {
  UNAUTHENTICATED: render("UNAUTHENTICATED", 401, "unauthorized", "Authentication required"),
  INVALID_TOKEN: render("UNAUTHENTICATED", 401, "unauthorized", "Invalid authentication token"),
  CONFLICTING_IDENTITIES: render("UNAUTHENTICATED", 401, "unauthorized", "Only one identity may be presented"),
  IDENTITY_INCOMPLETE: render("UNAUTHENTICATED", 401, "user_info_not_found", "User information not found"),
  FORBIDDEN: render("PERMISSION_DENIED", 403, "forbidden", "You do not have permission to access this resource"),
  USER_REQUIRED: render("PERMISSION_DENIED", 403, "forbidden", "User account required"),
  SERVICE_ACCOUNT_REQUIRED: render("PERMISSION_DENIED", 403, "forbidden", "Service account required"),
  OPERATOR_REQUIRED: render("PERMISSION_DENIED", 403, "forbidden", "Operator required"),
  INVALID_CREDENTIAL_ID: render("INVALID_ARGUMENT", 400, "bad_request", "Invalid credential ID"),
  INVALID_PROVIDER: render("INVALID_ARGUMENT", 400, "bad_request", "Invalid provider"),
  INVALID_REQUEST: render("INVALID_ARGUMENT", 422, "validation_error", "Request validation failed"),
  INVALID_CREDENTIALS: render("INVALID_ARGUMENT", 400, "bad_request", "Invalid request data"),
  LIMIT_PER_PROVIDER_REACHED: render("FAILED_PRECONDITION", 400, "bad_request", "The organization has reached its limit of credentials for this provider"),
  LIMIT_PER_USER_REACHED: render("FAILED_PRECONDITION", 400, "bad_request", "The user has reached the limit of credentials"),
  ORGANIZATION_ADMINISTRATOR_REQUIRED: render("PERMISSION_DENIED", 403, "forbidden", "Organization administrator required"),
  NOT_GRANTED: render("PERMISSION_DENIED", 403, "forbidden", "The service account is not granted this credential"),
  INVALID_SERVICE_ACCOUNT_ID: render("INVALID_ARGUMENT", 400, "bad_request", "Invalid service account ID"),
  INVALID_KEY_ID: render("INVALID_ARGUMENT", 400, "bad_request", "Invalid API key ID"),
  SERVICE_ACCOUNT_KEY_NOT_FOUND: render("NOT_FOUND", 404, "not_found", "API key not found"),
  CERTIFICATE_IN_USE: render("ALREADY_EXISTS", 409, "conflict", "The certificate is mapped to a service account already"),
  IDEMPOTENCY_KEY_REUSED: render("ALREADY_EXISTS", 409, "conflict", "The idempotency key was used for another request"),
  IDEMPOTENCY_IN_FLIGHT: render("ABORTED", 409, "conflict", "A request with this idempotency key is under way; try again shortly"),
  CREDENTIAL_IN_USE: render("FAILED_PRECONDITION", 409, "conflict", "The credential was used lately"),
  NO_PREVIOUS_SECRET: render("FAILED_PRECONDITION", 400, "bad_request", "No previous secret is kept"),
  CREDENTIAL_PURGED: render("FAILED_PRECONDITION", 400, "bad_request", "The credential's secret has been purged"),
  WATCH_POSITION_LOST: render("OUT_OF_RANGE", 400, "bad_request", "The position to go on from is not kept any more; drop what was kept and begin anew"),
  WATCH_TOO_SLOW: render("RESOURCE_EXHAUSTED", 429, "service_error", "Messages are not taken in; go on from the last position"),
  WATCH_LIMIT_REACHED: render("RESOURCE_EXHAUSTED", 429, "service_error", "Too many watches; try again later"),
  RATE_LIMITED: render("RESOURCE_EXHAUSTED", 429, "service_error", "Too many requests; try again later"),
  CREDENTIAL_NOT_FOUND: render("NOT_FOUND", 404, "not_found", "Credential not found"),
  SERVICE_ACCOUNT_NOT_FOUND: render("NOT_FOUND", 404, "not_found", "Service account not found"),
  ORGANIZATION_NOT_FOUND: render("NOT_FOUND", 404, "not_found", "The organization has no key yet"),
  ROTATION_NOT_FOUND: render("NOT_FOUND", 404, "not_found", "Rotation not found"),
  KEY_UNKNOWN: render("FAILED_PRECONDITION", 400, "bad_request", "No replica has ever loaded a master key of that id"),
  KEY_NOT_LOADED_EVERYWHERE: render("FAILED_PRECONDITION", 400, "bad_request", "A replica that is alive has not loaded the master key"),
  KEY_RETIRED: render("FAILED_PRECONDITION", 400, "bad_request", "The master key is retired"),
  KEY_IS_FOREIGN: render("FAILED_PRECONDITION", 400, "bad_request", "A key of the other system is a master key of this one; neither is to be used any more"),
  ROTATION_UNDER_WAY: render("FAILED_PRECONDITION", 400, "bad_request", "Another rotation of the same keys has not ended"),
  ROTATION_STATE: render("FAILED_PRECONDITION", 400, "bad_request", "The rotation is not in a state in which that is possible"),
  KEY_STILL_NEEDED: render("FAILED_PRECONDITION", 400, "bad_request", "Values that end by themselves are still sealed under the old key; try again when they are gone"),
  KEY_MOVED: render("UNAVAILABLE", 503, "service_error", "The organization's key was changed meanwhile; try again"),
  KEYS_UNAVAILABLE: render("UNAVAILABLE", 503, "service_error", "The key that this needs cannot be used now; try again"),
  ETAG_MISMATCH: render("ABORTED", 412, "conflict", "The credential has changed since it was read"),
  ORGANIZATION_DESTROYED: render("FAILED_PRECONDITION", 400, "bad_request", "The organization's keys were destroyed"),
  REAUTHORIZATION_REQUIRED: render("FAILED_PRECONDITION", 400, "bad_request", "The provider no longer accepts this grant; authorize again"),
  TOKEN_NOT_RENEWED: render("UNAVAILABLE", 503, "service_error", "The access token has ended and could not be renewed yet; try again shortly"),
  AUTHORIZATION_NOT_OFFERED: render("FAILED_PRECONDITION", 400, "bad_request", "Accounts of this provider cannot be connected here: the operator has configured no OAuth client for it"),
  AUTHORIZATION_UNKNOWN: render("INVALID_ARGUMENT", 400, "bad_request", "This authorization is not known, has been used or has expired; begin again"),
  AUTHORIZATION_DENIED: render("FAILED_PRECONDITION", 400, "bad_request", "The provider was told not to give access; nothing was stored"),
  AUTHORIZATION_FAILED: render("FAILED_PRECONDITION", 400, "bad_request", "The provider's answer cannot be used; nothing was stored. Begin again"),
  AUTHORIZATION_OTHER_ACCOUNT: render("FAILED_PRECONDITION", 400, "bad_request", "Another account signed in than the one this credential belongs to; nothing was changed. Begin again with the same account"),
  PROVIDER_REJECTS_CLIENT: render("FAILED_PRECONDITION", 500, "service_error", "The provider does not accept this service's OAuth client; the operator has to correct its settings"),
  PROVIDER_UNAVAILABLE: render("UNAVAILABLE", 503, "service_error", "The provider gives no usable answer now; begin again shortly"),
  SECRET_UNREADABLE: render("DATA_LOSS", 500, "service_error", "The stored secret cannot be opened"),
  AUDIT_UNAVAILABLE: render("UNAVAILABLE", 503, "service_error", "The audit record could not be written"),
  DATABASE_UNAVAILABLE: render("UNAVAILABLE", 503, "repository_error", "Database operation failed"),
  OVERLOADED: render("RESOURCE_EXHAUSTED", 429, "service_error", "Too many requests; try again shortly"),
  TEST_LIMIT_REACHED: render("RESOURCE_EXHAUSTED", 429, "service_error", "Too many connection tests; try again shortly"),
  ISSUER_UNAVAILABLE: render("UNAVAILABLE", 503, "service_error", "The token issuer's keys cannot be fetched; try again shortly"),
  METADATA_INVALID: render("INVALID_ARGUMENT", 400, "bad_request", "Invalid request metadata"),
  CANCELLED: render("CANCELLED", 499, "service_error", "The caller cancelled the request"),
  DEADLINE_EXCEEDED: render("DEADLINE_EXCEEDED", 504, "service_error", "The deadline passed before the request was done"),
  SHUTTING_DOWN: render("UNAVAILABLE", 503, "service_error", "The service is stopping; try again"),
  INTERNAL: render("INTERNAL", 500, "internal_error", "Internal server error"),
} as const satisfies Record<string, Rendering>;

/** A stable name for why a call was refused or failed. */
export type Reason = keyof typeof REASONS;

/** Facts that go with a reason. All of it is public except `cause`. */
export interface Facts {
  /** Faults of the request, where the reason is about the request. */
  readonly violations?: readonly Violation[];
  /** Opaque id under which operators find the incident. */
  readonly incident?: string;
  /** When trying again may work, ms from now. */
  readonly retryAfterMs?: number;
  /** Where a browser goes on from here, with the refusal; one of the addresses that the operator allows. */
  readonly redirectUri?: string;
  /** Origins whose pages may hear of the refusal from the page that a browser is shown. */
  readonly openerOrigins?: readonly string[];
  /** What happened inside; never leaves, and is logged only by type and code. */
  readonly cause?: unknown;
}

/** The one error of this service: a reason, and what may be said about it. */
export class CredentialError extends Error {
  override readonly name = "CredentialError";
  readonly reason: Reason;
  readonly violations: readonly Violation[];
  readonly incident: string | undefined;
  readonly redirectUri: string | undefined;
  readonly openerOrigins: readonly string[];
  readonly retryAfterMs: number | undefined;

  constructor(reason: Reason, facts: Facts = {}) {
    super(REASONS[reason].message, { cause: facts.cause });
    this.reason = reason;
    this.violations = facts.violations ?? [];
    this.incident = facts.incident;
    this.redirectUri = facts.redirectUri;
    this.openerOrigins = facts.openerOrigins ?? [];
    this.retryAfterMs = facts.retryAfterMs;
  }
}

/** Makes the error for a reason; `throw fail("CREDENTIAL_NOT_FOUND")`. */
export function fail(reason: Reason, facts: Facts = {}): CredentialError {
  return new CredentialError(reason, facts);
}
