import { type Metadata, status } from "@grpc/grpc-js";
import { BadRequest, ErrorInfo } from "../../gen/google/rpc/error_details.ts";
import { Status } from "../../gen/google/rpc/status.ts";

/** Name of a gRPC status code, for example `NOT_FOUND`. */
export type StatusName = Exclude<keyof typeof status, "OK">;

/** One field of the request that the service refused. Never repeats the value. */
export interface FieldViolation {
  /** Dotted path of the field, for example `credentials.host`. */
  readonly field: string;
  /** Kind of fault as a stable lower-case word, for example `missing`. */
  readonly reason: string;
  /** A sentence for people. */
  readonly description: string;
}

/** What is known about a failed call besides its code. */
export interface ErrorFacts {
  readonly reason?: string | undefined;
  readonly requestId?: string | undefined;
  readonly violations?: readonly FieldViolation[];
  readonly incident?: string | undefined;
  readonly cause?: unknown;
}

/** A call that failed, on either side. Neither its message nor a property holds a token or a secret. */
export class CredentialClientError extends Error {
  override readonly name = "CredentialClientError";
  /** The gRPC status. */
  readonly code: StatusName;
  /** The service's stable name for why, for example `CREDENTIAL_NOT_FOUND`; undefined where it was not the service that refused. */
  readonly reason: string | undefined;
  /** ULID under which the service logged the call; undefined where it never answered. */
  readonly requestId: string | undefined;
  /** Fields at fault; empty unless the request was malformed. */
  readonly violations: readonly FieldViolation[];
  /** What to tell the service's operators where a stored secret does not open. */
  readonly incident: string | undefined;

  constructor(code: StatusName, message: string, facts: ErrorFacts = {}) {
    super(message, "cause" in facts ? { cause: facts.cause } : {});
    this.code = code;
    this.reason = facts.reason;
    this.requestId = facts.requestId;
    this.violations = facts.violations ?? [];
    this.incident = facts.incident;
  }

  /** Whether the same call may succeed a little later. Says nothing about whether this one took effect. */
  get retryable(): boolean {
    return this.code === "UNAVAILABLE" || this.reason === "OVERLOADED";
  }
}

/** What grpc-js says of a failed call. */
interface FailedCall {
  readonly code: number;
  readonly details: string;
  readonly metadata: Metadata;
}

/** Longest sentence taken over from the other side, in characters. */
const MAX_SENTENCE = 300;

const sentence = (text: string): string => text.replace(/[\p{Cc}\s]+/gu, " ").trim().slice(0, MAX_SENTENCE);

const isStatusName = (name: string | undefined): name is StatusName => name !== undefined && name !== "OK" && Object.hasOwn(status, name);

/** A failed call as our error; `headers` is the initial metadata of the answer, where one came. */
export function fromFailedCall(failed: FailedCall, headers: Metadata | undefined): CredentialClientError {
  const name = (status as Record<number, string | undefined>)[failed.code];
  const requestId = headers?.get("x-request-id")[0] ?? failed.metadata.get("x-request-id")[0];
  const facts = { ...detailsOf(failed.metadata), requestId: requestId?.toString() };
  const where = (facts.violations ?? []).map(({ field, description }) => `${field === "" ? "request" : field}: ${description}`);
  const text = [sentence(failed.details) || "the call failed", ...where.map(sentence)].join("; ");
  return new CredentialClientError(isStatusName(name) ? name : "UNKNOWN", text, facts);
}

/** Reads the trailer `grpc-status-details-bin` (https://google.aip.dev/193); one that does not decode says nothing. */
function detailsOf(trailers: Metadata): ErrorFacts {
  const [encoded] = trailers.get("grpc-status-details-bin");
  if (!Buffer.isBuffer(encoded)) return {};
  try {
    const { details } = Status.decode(encoded);
    const find = (name: string) => details.find(({ typeUrl }) => typeUrl.endsWith(`/google.rpc.${name}`))?.value;
    const [info, bad] = [find("ErrorInfo"), find("BadRequest")];
    const { reason, metadata } = info ? ErrorInfo.decode(info) : { reason: undefined, metadata: {} as Record<string, string> };
    const violations = bad ? BadRequest.decode(bad).fieldViolations.map(({ field, reason: kind, description }) => ({ field, reason: kind, description })) : [];
    return { reason, violations, incident: metadata["incident"] };
  } catch {
    return {};
  }
}
