import pg from "pg";
import type { Reason } from "./doctor.ts";
import type { Trial } from "./trial.ts";

/** SQLSTATEs (PostgreSQL's manual, appendix A) that say enough by themselves. */
const STATES: Readonly<Record<string, Reason>> = {
  "28P01": "pg_password_refused",
  "3D000": "pg_database_missing",
  "42501": "pg_connect_not_granted",
  "53300": "pg_too_many_connections",
  "55000": "pg_database_closed",
  "57P01": "pg_shutting_down",
  "57P02": "pg_shutting_down",
  "57P03": "pg_starting_up",
  "0A000": "pg_protocol_version_refused",
  "08P01": "pg_pooler_refused",
  "08004": "pg_pooler_refused",
  "08006": "pg_pooler_refused",
};

/** What node:tls calls a fault of a certificate or of the handshake. */
const TLS_CODES: Readonly<Record<string, Reason>> = {
  CERT_HAS_EXPIRED: "tls_certificate_expired",
  CERT_NOT_YET_VALID: "tls_certificate_not_yet_valid",
  ERR_TLS_CERT_ALTNAME_INVALID: "tls_certificate_wrong_name",
  ERR_TLS_CERT_ALTNAME_FORMAT: "tls_certificate_wrong_name",
  DEPTH_ZERO_SELF_SIGNED_CERT: "tls_certificate_self_signed",
  SELF_SIGNED_CERT_IN_CHAIN: "tls_certificate_unknown_authority",
  UNABLE_TO_GET_ISSUER_CERT: "tls_certificate_unknown_authority",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "tls_certificate_unknown_authority",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "tls_certificate_unknown_authority",
  CERT_UNTRUSTED: "tls_certificate_unknown_authority",
  CERT_SIGNATURE_FAILURE: "tls_certificate_unknown_authority",
  INVALID_PURPOSE: "tls_certificate_invalid",
  INVALID_CA: "tls_certificate_invalid",
  CERT_REJECTED: "tls_certificate_invalid",
  ERR_SSL_UNSUPPORTED_PROTOCOL: "tls_version_not_supported",
  ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION: "tls_version_not_supported",
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: "pg_client_certificate_required",
};

/**
 * What an error of the driver means before the first query; null where it only says that the connection is gone. Its words
 * are compared with known ones and never repeated.
 */
export function loginReason(error: unknown): Reason | null {
  if (error instanceof pg.DatabaseError) return refusal(error);
  const code = codeOf(error);
  if (TLS_CODES[code] !== undefined) return TLS_CODES[code];
  if (!(error instanceof Error) || isLoss(error)) return null;
  // The driver finds fault with the server's proof of itself only at the end of SCRAM (RFC 5802 section 3).
  return /SERVER-FINAL-MESSAGE/.test(error.message) ? "pg_server_unproven" : "pg_protocol_broken";
}

/** What an error of the encrypted stream means; null where it only says that the connection is gone. */
export function tlsReason(error: unknown, trial: Trial): Reason | null {
  const code = codeOf(error);
  return TLS_CODES[code] ?? (trial.phase !== "pg_tls_handshake" || LOST.has(code) ? null : "tls_handshake_failed");
}

const codeOf = (error: unknown): string => (error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "");

const LOST: ReadonlySet<string> = new Set(["ECONNRESET", "EPIPE", "ERR_STREAM_DESTROYED", "ERR_STREAM_PREMATURE_CLOSE", "ERR_STREAM_WRITE_AFTER_END"]);

const isLoss = (error: Error): boolean => LOST.has(codeOf(error)) || codeOf(error).startsWith("ERR_SSL") || /^Connection terminated|^the connection is closed/.test(error.message);

function refusal(error: pg.DatabaseError): Reason {
  const state = error.code ?? "";
  if (state === "28000") return authorizationRefusal(error);
  // One SQLSTATE for both: a server that is going, and one that is coming.
  if (state === "57P03" && /shutting down/.test(error.message)) return "pg_shutting_down";
  return STATES[state] ?? (state.startsWith("28") ? "pg_login_refused" : "pg_server_error");
}

/** One SQLSTATE covers all that pg_hba.conf and the role's attributes forbid; the server's words, in its default language, tell which. */
function authorizationRefusal({ message, routine }: pg.DatabaseError): Reason {
  if (/client certificate/.test(message)) return "pg_client_certificate_required";
  if (/not permitted to log in/.test(message)) return "pg_role_may_not_log_in";
  if (/^role ".*" does not exist$/s.test(message)) return "pg_role_missing";
  if (/^no pg_hba\.conf entry.*(?:no encryption|SSL off)/s.test(message)) return "pg_tls_required";
  return routine === "ClientAuthentication" || /pg_hba\.conf/.test(message) ? "pg_host_not_permitted" : "pg_login_refused";
}

/** What an error of the driver means when a query was under way. */
export function queryReason(error: unknown): Reason {
  if (!(error instanceof pg.DatabaseError)) return "pg_query_closed";
  if (error.code === "42501") return "pg_select_not_granted";
  return error.code === "57P01" || error.code === "57P02" ? "pg_shutting_down" : "pg_query_failed";
}
