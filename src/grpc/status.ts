import { Metadata } from "@grpc/grpc-js";
import { BadRequest, ErrorInfo } from "../../gen/google/rpc/error_details.ts";
import { Status } from "../../gen/google/rpc/status.ts";
import { CredentialError, fail, GRPC_CODE, REASONS, type Violation } from "../domain/errors.ts";

/** The `domain` of every `google.rpc.ErrorInfo` of this service. */
export const ERROR_DOMAIN = "credentials.flow";

/** A status as it leaves: code, public sentence, and the trailer with its details. */
export interface OutgoingStatus {
  readonly code: number;
  readonly details: string;
  readonly metadata: Metadata;
}

/** A status without details, for what gRPC itself asks of a request. */
export const plainStatus = (code: keyof typeof GRPC_CODE, details: string): OutgoingStatus => ({ code: GRPC_CODE[code], details, metadata: new Metadata() });

/** The answer to a request message that is larger than allowed. */
export const TOO_LARGE = plainStatus("RESOURCE_EXHAUSTED", "The request is too large");

/** The answer to a call of a method that does not exist; it does not repeat what was asked for. */
export const UNKNOWN_METHOD = plainStatus("UNIMPLEMENTED", "Unknown method");

/** Most text of violations in one status, in characters: clients accept 8 KiB of trailers at the least. */
const MAX_VIOLATION_TEXT = 3_000;

/** Whatever was thrown, as the one error that may leave; what is not ours becomes INTERNAL and stays inside as its cause. */
export function toCredentialError(thrown: unknown): CredentialError {
  return thrown instanceof CredentialError ? thrown : fail("INTERNAL", { cause: thrown });
}

const any = (name: string, value: Uint8Array) => ({ typeUrl: `type.googleapis.com/google.rpc.${name}`, value: Buffer.from(value) });

function fieldViolations(violations: readonly Violation[]): BadRequest["fieldViolations"] {
  let room = MAX_VIOLATION_TEXT;
  const fields = violations.map(({ path, message, type }) => ({ field: path.join("."), description: message, reason: type, localizedMessage: undefined }));
  return fields.filter(({ field, description, reason }) => (room -= field.length + description.length + reason.length) >= 0);
}

/**
 * Renders an error as a gRPC status. `grpc-status-details-bin` holds a `google.rpc.Status` with an ErrorInfo and, where
 * fields are at fault, a BadRequest (https://google.aip.dev/193); violations that do not fit into a trailer are left out.
 */
export function toStatus(error: CredentialError): OutgoingStatus {
  const { grpc, http, code, message } = REASONS[error.reason];
  const facts: Record<string, string> = { http_status: String(http), code };
  if (error.incident !== undefined) facts["incident"] = error.incident;
  if (error.redirectUri !== undefined) facts["redirect_uri"] = error.redirectUri;
  if (error.openerOrigins.length > 0) facts["opener_origins"] = error.openerOrigins.join(" ");
  if (error.retryAfterMs !== undefined) facts["retry_after_seconds"] = String(Math.max(1, Math.ceil(error.retryAfterMs / 1000)));
  const details = [any("ErrorInfo", ErrorInfo.encode({ reason: error.reason, domain: ERROR_DOMAIN, metadata: facts }).finish())];
  if (error.violations.length > 0) details.push(any("BadRequest", BadRequest.encode({ fieldViolations: fieldViolations(error.violations) }).finish()));
  const metadata = new Metadata();
  metadata.set("grpc-status-details-bin", Buffer.from(Status.encode({ code: GRPC_CODE[grpc], message, details }).finish()));
  return { code: GRPC_CODE[grpc], details: message, metadata };
}
