import { type ServiceError, status as Status } from "@grpc/grpc-js";
import { BadRequest, ErrorInfo } from "../../gen/google/rpc/error_details.ts";
import { Status as RpcStatus } from "../../gen/google/rpc/status.ts";
import { type Answer, jsonAnswer } from "./answer.ts";

/** What an error says over REST. */
interface Sentence {
  readonly http: number;
  /** `error.code` of the envelope. */
  readonly code: string;
  readonly message: string;
}

const say = (http: number, code: string, message: string): Sentence => ({ http, code, message });

/** Everything REST refuses or fails by itself, before or instead of a call. */
export const REFUSALS = {
  malformed: say(400, "bad_request", "Malformed HTTP request"),
  path: say(400, "bad_request", "Invalid request path"),
  metadata: say(400, "bad_request", "Invalid request metadata"),
  unknown: say(404, "not_found", "Resource not found"),
  method: say(405, "method_not_allowed", "Method not allowed"),
  slow: say(408, "request_timeout", "The request took too long to arrive"),
  body_size: say(413, "payload_too_large", "Request body is too large"),
  media_type: say(415, "unsupported_media_type", "Request body must be application/json in UTF-8, without a content coding"),
  header_size: say(431, "headers_too_large", "Request header fields are too large"),
  internal: say(500, "internal_error", "Internal server error"),
  stopping: say(503, "service_error", "The service is stopping; try again"),
} as const satisfies Record<string, Sentence>;

/** Why REST refused by itself. */
export type Refused = keyof typeof REFUSALS;

/** What a status without our own details becomes; such a status comes from the transport, and its text does not leave. */
const BARE: Readonly<Partial<Record<Status, Sentence>>> = {
  [Status.CANCELLED]: say(499, "service_error", "The caller cancelled the request"),
  [Status.DEADLINE_EXCEEDED]: say(504, "service_error", "The deadline passed before the request was done"),
  [Status.RESOURCE_EXHAUSTED]: say(429, "service_error", "Too many requests; try again shortly"),
  [Status.UNAVAILABLE]: say(503, "service_error", "The service is unavailable; try again shortly"),
  [Status.UNAUTHENTICATED]: say(401, "unauthorized", "Authentication required"),
  [Status.PERMISSION_DENIED]: say(403, "forbidden", "You do not have permission to access this resource"),
};

/** How long a caller should wait before it tries again, seconds (RFC 9110 section 10.2.3). */
const RETRY_AFTER: Readonly<Record<number, string>> = { 429: "1", 503: "5" };

/** Trailer with the details of a status, a `google.rpc.Status`. */
export const STATUS_DETAILS = "grpc-status-details-bin";

/** The domain in which the service names its reasons. */
const DOMAIN = "credentials.flow";

function renderEnvelope(sentence: Sentence, requestId: string, details: unknown = null, headers: Readonly<Record<string, string>> = {}): Answer {
  const { http, code, message } = sentence;
  const retryAfter = RETRY_AFTER[http];
  const retry = retryAfter === undefined ? {} : { "retry-after": retryAfter };
  return jsonAnswer(http, { error: { message, code, details }, request_id: requestId }, { ...retry, ...headers });
}

/** The answer to a request that never becomes a call. */
export function refusal(refused: Refused, requestId: string, headers: Readonly<Record<string, string>> = {}): Answer {
  return renderEnvelope(REFUSALS[refused], requestId, null, headers);
}

/** The details that the service attached to a status. */
interface Details {
  readonly info: ErrorInfo | undefined;
  readonly violations: BadRequest["fieldViolations"];
}

function readDetails(error: ServiceError): Details {
  const [packed] = error.metadata.get(STATUS_DETAILS);
  if (!Buffer.isBuffer(packed)) return { info: undefined, violations: [] };
  let info: ErrorInfo | undefined;
  let violations: BadRequest["fieldViolations"] = [];
  for (const { typeUrl, value } of RpcStatus.decode(packed).details) {
    if (typeUrl.endsWith("/google.rpc.ErrorInfo")) info = ErrorInfo.decode(value);
    if (typeUrl.endsWith("/google.rpc.BadRequest")) violations = BadRequest.decode(value).fieldViolations;
  }
  return { info: info?.domain === DOMAIN ? info : undefined, violations };
}

/** RFC 6750 section 3: a token that was given and is not good is named as such. */
function challenge(http: number, info: ErrorInfo | undefined): Record<string, string> {
  if (http !== 401) return {};
  return { "www-authenticate": `Bearer realm="flow-credentials"${info?.reason === "INVALID_TOKEN" ? ', error="invalid_token"' : ""}` };
}

/** When to try again, where the service said it. */
function retry(info: ErrorInfo): Record<string, string> {
  const seconds = info.metadata.retry_after_seconds;
  return seconds !== undefined && /^\d{1,6}$/.test(seconds) ? { "retry-after": seconds } : {};
}

/** `["body", "credentials", 0]` for `credentials.0`. */
function location(field: string): (string | number)[] {
  const parts = field.split(".").filter((part) => part !== "");
  return ["body", ...parts.map((part) => (/^\d{1,9}$/.test(part) ? Number(part) : part))];
}

/** Where a browser goes on after a call that failed; undefined where it is shown what happened. */
export const redirectOf = (error: ServiceError): string | undefined => readDetails(error).info?.metadata.redirect_uri;

/** Who may hear, from the page that a browser is shown, that a call failed, and the stable word for why. */
export function openersOf(error: ServiceError): { readonly origins: readonly string[]; readonly reason: string } {
  const { info } = readDetails(error);
  return { origins: info?.metadata.opener_origins?.split(" ") ?? [], reason: info?.reason.toLowerCase() ?? "" };
}

/**
 * The answer to a call that failed: the documented envelope, or for 422 the documented list of faults. Text is taken
 * only from a status that carries the service's own details.
 */
export function presentError(error: ServiceError, requestId: string): Answer {
  const { info, violations } = readDetails(error);
  const http = Number(info?.metadata.http_status);
  if (!info || !Number.isInteger(http) || http < 400 || http > 599) {
    const bare = BARE[error.code] ?? REFUSALS.internal;
    return renderEnvelope(bare, requestId, null, challenge(bare.http, undefined));
  }
  const sentence = say(http, info.metadata.code ?? REFUSALS.internal.code, error.details);
  if (http === 422) {
    const detail = violations.map(({ field, description, reason }) => ({ loc: location(field), msg: description, type: reason }));
    return jsonAnswer(422, { detail: detail.length > 0 ? detail : [{ loc: ["body"], msg: sentence.message, type: "value_error" }] });
  }
  const named = violations.map(({ field, description }) => ({ field, message: description }));
  const incident = info.metadata.incident;
  const details = named.length > 0 ? named : incident === undefined ? null : { incident };
  return renderEnvelope(sentence, requestId, details, { ...challenge(http, info), ...retry(info) });
}
