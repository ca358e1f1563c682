import type { Reason } from "./doctor.ts";
import { asObject, statusReason } from "./inquiry.ts";

/** What AWS's names for errors mean, with and without the `Exception` at their end; services spell them differently. */
const NAMES: Readonly<Record<string, Reason | "permission_limited">> = {
  UnrecognizedClient: "aws_key_unknown",
  InvalidClientTokenId: "aws_key_unknown",
  InvalidAccessKeyId: "aws_key_unknown",
  InvalidToken: "aws_session_token_invalid",
  ExpiredToken: "aws_session_token_expired",
  InvalidSignature: "aws_secret_wrong",
  SignatureDoesNotMatch: "aws_secret_wrong",
  RequestExpired: "aws_clock_wrong",
  RequestTimeTooSkewed: "aws_clock_wrong",
  AccessDenied: "permission_limited",
  NotAuthorized: "permission_limited",
  OptInRequired: "aws_not_signed_up",
  SubscriptionRequired: "aws_not_signed_up",
  Throttling: "api_throttled",
  Throttled: "api_throttled",
  TooManyRequests: "api_throttled",
  LimitExceeded: "api_throttled",
  ServiceUnavailable: "api_service_error",
  InternalFailure: "api_service_error",
  InternalServerError: "api_service_error",
};

/** How the id of a temporary access key begins. */
const TEMPORARY = "ASIA";

/**
 * What an error of the SDK means, `permission_limited` where AWS accepted the key and refused only the question. A key that is only to send may not ask
 * for the account's state, and that is how it should be; so it is no failure. The error's words are compared with known ones and never repeated.
 */
export function refusalReason(error: unknown, key: { readonly accessKeyId: string; readonly sessionToken: string }): Reason | "permission_limited" {
  if (!(error instanceof Error)) return "check_failed";
  const metadata = "$metadata" in error ? asObject(error.$metadata) : null;
  const status = typeof metadata?.["httpStatusCode"] === "number" ? metadata["httpStatusCode"] : null;
  // Without a status it is an error of the SDK itself.
  if (status === null) return "check_failed";
  const name = error.name.replace(/Exception$/, "");
  const reason = status >= 400 && Object.hasOwn(NAMES, name) ? NAMES[name] : undefined;
  if (reason === "aws_secret_wrong" && /^Signature (?:expired|not yet current)/.test(error.message)) return "aws_clock_wrong";
  if (reason === "aws_key_unknown" && key.sessionToken !== "") return "aws_session_token_invalid";
  if (reason === "aws_key_unknown" && key.accessKeyId.startsWith(TEMPORARY)) return "aws_session_token_missing";
  return reason ?? statusReason(status);
}
