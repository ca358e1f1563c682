import type { GuardedResponse } from "../../domain/check.ts";

/** Why no token came. Every word is ours: nothing of the provider's text is kept. */
export type Failure =
  | { readonly kind: "rejected"; readonly cause: string }
  /** `here`: the client may be in order, but may not be used here. */
  | { readonly kind: "client_rejected"; readonly here: boolean }
  | { readonly kind: "unavailable"; readonly cause: string; readonly retryAfterMs: number | null };

/** Carries a failure through a provider's library. */
export class TokenFailure extends Error {
  override readonly name = "TokenFailure";
  readonly failure: Failure;

  constructor(failure: Failure) {
    super(failure.kind === "client_rejected" ? failure.kind : failure.cause);
    this.failure = failure;
  }
}

/** A failure that may pass. */
export const unavailable = (cause: string, retryAfterMs: number | null = null): TokenFailure => new TokenFailure({ kind: "unavailable", cause, retryAfterMs });
const rejected = (cause: string): TokenFailure => new TokenFailure({ kind: "rejected", cause });
const clientRejected = (here = false): TokenFailure => new TokenFailure({ kind: "client_rejected", here });

/** Longest pause that a provider may ask for, ms. */
const MAX_RETRY_AFTER_MS = 3_600_000;

/** The `Retry-After` of a response (RFC 9110 section 10.2.3) in ms, at most an hour; null where there is none that can be read. */
export function retryAfterMs(response: GuardedResponse, now: Date): number | null {
  const text = response.headers["retry-after"]?.trim() ?? "";
  // A date has a name of a day in front in all its forms; the parser takes much besides.
  const wait = /^\d{1,10}$/.test(text) ? Number(text) * 1000 : /^[A-Z][a-z]{2,8},? /.test(text) ? Date.parse(text) - now.getTime() : Number.NaN;
  return Number.isNaN(wait) ? null : Math.min(Math.max(wait, 0), MAX_RETRY_AFTER_MS);
}

/** Error codes that say that this grant gives no more tokens without a person (RFC 6749 section 5.2, OpenID Connect Core section 3.1.2.6, the providers' own). */
const REJECTED: ReadonlySet<string> = new Set([
  "invalid_grant", "interaction_required", "login_required", "consent_required", "account_selection_required", "access_denied",
  // Google: an administrator does not allow the application, or not these scopes.
  "admin_policy_enforced", "org_internal", "restricted_client",
]);
/** Error codes that say that the client is at fault. */
const CLIENT: ReadonlySet<string> = new Set(["invalid_client", "unauthorized_client", "deleted_client", "disabled_client", "unsupported_grant_type"]);

/** What Microsoft's numbers add (AADSTS codes, Microsoft Entra authentication error reference). */
const AADSTS: Readonly<Record<number, string>> = {
  70008: "grant_expired", 70043: "grant_expired", 700082: "grant_expired", 700084: "grant_expired",
  50173: "grant_revoked", 50132: "grant_revoked", 50133: "grant_revoked", 70000: "invalid_grant",
  50057: "account_disabled", 50034: "account_unknown", 50055: "password_expired",
  50076: "interaction_required", 50078: "interaction_required", 50079: "interaction_required", 50158: "interaction_required", 53000: "interaction_required", 53003: "interaction_required",
  65001: "consent_required", 65004: "consent_required",
};
/** Of them, those that say that the client is at fault: its secret is wrong or has expired. */
const AADSTS_CLIENT: ReadonlySet<number> = new Set([7000215, 7000222, 7000216, 7000218, 50011, 700027]);
/** Of them, those that say that the client is not in the tenant, or disabled there. */
const AADSTS_TENANT: ReadonlySet<number> = new Set([700016, 7000112]);

/** What an answer without a token means. `said` is its JSON object, where it has one. */
export function refusalIn(response: GuardedResponse, said: Readonly<Record<string, unknown>> | undefined, now: Date): TokenFailure {
  const { status } = response;
  const pause = retryAfterMs(response, now);
  if (status === 429) return unavailable("provider_throttled", pause);
  if (status >= 500 || status === 408) return unavailable("provider_error", pause);
  // Pages come from whatever stands in between, whatever their status.
  if (status < 400 || said === undefined) return unavailable("reply_unusable", pause);
  const code = typeof said["error"] === "string" ? said["error"] : "";
  const numbers = numbersIn(said);
  if (numbers.some((number) => AADSTS_CLIENT.has(number))) return clientRejected();
  if (numbers.some((number) => AADSTS_TENANT.has(number))) return clientRejected(true);
  if (CLIENT.has(code)) return clientRejected(code === "unauthorized_client");
  if (REJECTED.has(code)) return rejected(causeOf(code, said, numbers));
  if (code === "slow_down" || code === "temporarily_unavailable") return unavailable("provider_throttled", pause);
  return unavailable("request_refused", pause);
}

function causeOf(code: string, said: Readonly<Record<string, unknown>>, numbers: readonly number[]): string {
  const known = numbers.map((number) => AADSTS[number]).find((cause) => cause !== undefined);
  if (known !== undefined) return known;
  // Google: the organization's administrator asks for a new sign-in after some hours.
  if (said["error_subtype"] === "invalid_rapt") return "interaction_required";
  return code;
}

/** Microsoft's numbers: a list of them, or the one that the description begins with. */
function numbersIn(said: Readonly<Record<string, unknown>>): number[] {
  const { error_codes: list, error_description: text } = said;
  if (Array.isArray(list)) return list.slice(0, 8).filter((entry) => typeof entry === "number");
  const begun = typeof text === "string" ? /^AADSTS(\d{4,8})\b/.exec(text)?.[1] : undefined;
  return begun === undefined ? [] : [Number(begun)];
}
