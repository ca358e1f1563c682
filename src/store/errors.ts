import { CredentialError, fail, type Reason } from "../domain/errors.ts";

/** The database cannot be used as it is set up. Its message says what to change and holds no value of a setting. */
export class StoreSetupError extends Error {
  override readonly name = "StoreSetupError";
}

/**
 * What may be kept of a driver's error: its code and the names of what it concerns. The driver's own text stays behind,
 * because PostgreSQL quotes values of the row in it.
 */
export class StoreFault extends Error {
  override readonly name = "StoreFault";
  /** SQLSTATE (PostgreSQL appendix A), or Node's code of a failed connection; "unknown" without either. */
  readonly code: string;
  /** Name of the constraint that was violated. */
  readonly constraint: string | undefined;

  constructor(error: unknown) {
    const code = textOf(error, "code") ?? "unknown";
    const constraint = textOf(error, "constraint");
    super(constraint === undefined ? `database error ${code}` : `database error ${code} (${constraint})`);
    this.code = code;
    this.constraint = constraint;
  }
}

function textOf(error: unknown, field: "code" | "constraint" | "table" | "message" | "routine"): string | undefined {
  const value: unknown = error instanceof Error ? (error as Error & Record<string, unknown>)[field] : undefined;
  return typeof value === "string" ? value : undefined;
}

/** Constraints whose violation is an answer to the caller. */
const CONSTRAINTS: Readonly<Record<string, Reason>> = {
  credential_limit_per_provider: "LIMIT_PER_PROVIDER_REACHED",
  credential_limit_per_user: "LIMIT_PER_USER_REACHED",
  organization_key_must_be_wrapped_under_the_primary_key: "KEY_MOVED",
  sealed_value_must_not_name_a_closed_key: "KEY_MOVED",
  rotation_one_at_a_time_idx: "ROTATION_UNDER_WAY",
  idempotency_record_pkey: "IDEMPOTENCY_IN_FLIGHT",
  credential_must_not_be_in_use: "CREDENTIAL_IN_USE",
  service_account_key_prefix_must_be_unique: "CERTIFICATE_IN_USE",
};

/** SQLSTATE classes and codes under which the database is not able to work now, whatever was asked. */
const UNAVAILABLE = /^(08...|28...|3D000|2500[16]|25P0[34]|40001|40P01|53...|55000|55P03|57P0[1-5]|58...)$/;

/** Node's codes of a connection that failed or broke. */
const NETWORK = /^(E[A-Z]+|ERR_(TLS|SSL|SOCKET|STREAM)_.*|[A-Z_]*CERT[A-Z_]*|UNABLE_TO_.*)$/;

/** Sentences by which the driver reports a lost connection, for which it has no code. Knex puts the statement before them. */
const LOST = /(?:^| - )(Connection terminated|timeout expired|Query read timeout|Client (was closed|has encountered)|The server does not support SSL)/;

/** Whether the connection failed, so that it is unknown whether a statement took effect. */
export function isConnectionLoss(error: unknown): boolean {
  const code = textOf(error, "code");
  if (code === undefined) return LOST.test(textOf(error, "message") ?? "");
  return /^(08...|57P0[1-5])$/.test(code) || NETWORK.test(code);
}

/**
 * Whether the server at the other end takes no writes, as a standby does. Nothing took effect; another connection may lead to the
 * primary. The first code is the answer to the context statement, which asks for a transaction that may write.
 */
export function isReadOnly(error: unknown): boolean {
  return /^2500[16]$/.test(textOf(error, "code") ?? "");
}

/** Whether a statement was prepared on its connection before a migration gave its rows another form. Nothing took effect, and a new connection knows better. */
export const isOutdated = (error: unknown): boolean => textOf(error, "code") === "0A000" && textOf(error, "routine") === "RevalidateCachedQuery";

/** Whether a connection is of no further use: it failed, leads to a server that takes no writes, or knows statements in an old form. */
export function isUseless(error: unknown): boolean {
  return isConnectionLoss(error) || isReadOnly(error) || isOutdated(error);
}

/**
 * Whether the transaction was rolled back because of other transactions, so that it may simply run again: also where the one
 * before it on its connection was to prepare their statement, and failed first (26000), or was thought to have (42P05).
 */
export function isConflict(error: unknown): boolean {
  return /^(40001|40P01|26000|42P05)$/.test(textOf(error, "code") ?? "");
}

/** Whether nothing of a transaction took effect, and it may run again, perhaps on another connection. */
export function isUndone(error: unknown): boolean {
  return isConflict(error) || isReadOnly(error) || isOutdated(error);
}

/** Whether the transaction was surely rolled back, because of something that concerns perhaps only some of its rows. */
export function isRolledBack(error: unknown): boolean {
  return isConflict(error) || /^(55P03|57014)$/.test(textOf(error, "code") ?? "");
}

/** PostgreSQL names the table of a denied statement only in its text. */
const concernsAudit = (error: unknown): boolean => /\baudit_(event|head)\b/.test(`${textOf(error, "table") ?? ""} ${textOf(error, "message") ?? ""}`);

function reasonOf(error: unknown): Reason {
  const named = CONSTRAINTS[textOf(error, "constraint") ?? ""];
  if (named !== undefined) return named;
  const code = textOf(error, "code") ?? "";
  if (code === "57014") return "DEADLINE_EXCEEDED";
  if (isConnectionLoss(error) || UNAVAILABLE.test(code)) return "DATABASE_UNAVAILABLE";
  return concernsAudit(error) ? "AUDIT_UNAVAILABLE" : "INTERNAL";
}

/** The one translation of whatever the driver threw; `always` overrides the reason where the caller's contract has only one. */
export function translate(error: unknown, always?: Reason): CredentialError {
  if (error instanceof CredentialError) return error;
  return fail(always ?? reasonOf(error), { cause: new StoreFault(error) });
}
