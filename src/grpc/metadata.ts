import { z } from "zod";
import type { Presented } from "../auth/authenticate.ts";
import { type CredentialError, fail, type Violation } from "../domain/errors.ts";
import { isRequestId, newRequestId } from "../log.ts";
import type { CallMetadata } from "./headers.ts";

const texts = (metadata: CallMetadata, name: string): string[] => metadata.get(name).map(String);

/** The values that can carry an identity, as they were received, and the fingerprint of the connection's certificate. */
export function presented(metadata: CallMetadata, certificate?: string): Presented {
  return { authorization: texts(metadata, "authorization"), apiKey: texts(metadata, "x-api-key"), certificate };
}

/** The caller's request id where it is one well-formed ULID, else a new one. */
export function requestIdOf(metadata: CallMetadata): string {
  const [id, ...more] = texts(metadata, "x-request-id");
  return id !== undefined && more.length === 0 && isRequestId(id) ? id : newRequestId();
}

/** Faults that the REST adapter may report at once, and how long each part of one may be, in characters. */
const MAX_REPORTED = 64;
const MAX_PART = 256;
/** Most bytes of the report. */
const MAX_REPORT_BYTES = 8 * 1024;

const part = z.string().max(MAX_PART);
const Reported = z
  .array(z.strictObject({ in: z.enum(["path", "body"]), path: z.array(z.union([part, z.int().min(0)])).max(MAX_REPORTED), type: part.min(1), message: part.min(1) }))
  .max(MAX_REPORTED);

/** The facts of a call that its metadata tell, besides the identity. */
export interface CallFacts {
  readonly flowId: string | null;
  readonly runId: string | null;
  /** The key under which a write may be repeated. */
  readonly idempotencyKey: string | null;
  /** Faults that the REST adapter found in what it could not pass on. */
  readonly reported: readonly Violation[];
}

/** What is known of a call whose metadata cannot be used. */
export const NO_FACTS: CallFacts = { flowId: null, runId: null, idempotencyKey: null, reported: [] };

function id(metadata: CallMetadata, name: string, most = 128): string | null {
  const [text, ...more] = texts(metadata, name);
  if (text === undefined) return null;
  if (more.length > 0 || text.length > most || !/^[\x20-\x7e]+$/.test(text)) throw new TypeError(name);
  return text;
}

/**
 * The report of the REST adapter. It is taken from any caller, because an adapter may run elsewhere, and one whose
 * report is dropped would have a request run of which it could read only a part. What makes that sound: a report can
 * do nothing but refuse the request it comes with. Its text goes back to whoever sent it, and nowhere else.
 */
function reported(metadata: CallMetadata): readonly Violation[] {
  const [bytes, ...more] = metadata.get("x-rest-faults-bin");
  if (bytes === undefined) return [];
  if (more.length > 0 || typeof bytes === "string" || bytes.length > MAX_REPORT_BYTES) throw new TypeError("x-rest-faults-bin");
  return Reported.parse(JSON.parse(bytes.toString("utf8")));
}

/** Reads the facts of a call; METADATA_INVALID, given back rather than thrown because it comes after the caller's right to call. */
export function callFacts(metadata: CallMetadata): CallFacts | CredentialError {
  try {
    return { flowId: id(metadata, "x-flow-id"), runId: id(metadata, "x-run-id"), idempotencyKey: id(metadata, "idempotency-key", 255), reported: reported(metadata) };
  } catch {
    return fail("METADATA_INVALID");
  }
}
