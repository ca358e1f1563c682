import { type CheckIo, type CheckResult, DialError, type GuardedResponse } from "../../domain/check.ts";
import { type Details, failed, passed, type Reason } from "./doctor.ts";
import type { Pass } from "./passes.ts";
import { CheckFailure } from "./trial.ts";

/** Largest answer of an API that is read, bytes. What is asked for here takes a few hundred. */
const MAX_ANSWER_BYTES = 65_536;

/** What a question to an API came to: how it succeeded, and facts. */
export interface Inquired {
  readonly pass: Pass;
  readonly details: Details;
}

/** A test at a fixed API; resolves at the deadline at the latest. Never throws. */
export async function inquire(io: CheckIo, ask: () => Promise<Inquired>): Promise<CheckResult> {
  const { promise, reject } = Promise.withResolvers<never>();
  const late = (): void => reject(new CheckFailure("api_timed_out"));
  io.signal.addEventListener("abort", late, { once: true });
  try {
    if (io.signal.aborted) return failed("api_timed_out");
    const { pass, details } = await Promise.race([ask(), promise]);
    return passed(pass, details);
  } catch (error) {
    if (error instanceof CheckFailure) return failed(error.reason);
    return failed(error instanceof DialError ? lossReason(error) : "check_failed");
  } finally {
    io.signal.removeEventListener("abort", late);
  }
}

/** What the guard's words mean where nobody chose the host. */
function lossReason({ reason }: DialError): Reason {
  if (reason === "deadline_exceeded") return "api_timed_out";
  return reason === "connection_reset" ? "api_connection_lost" : reason;
}

/** The JSON object of an answer; null where it is none, or is larger than any answer to what was asked. */
export function objectIn({ body }: GuardedResponse): Readonly<Record<string, unknown>> | null {
  if (body.length > MAX_ANSWER_BYTES) return null;
  try {
    return asObject(JSON.parse(body.toString("utf8")));
  } catch {
    return null;
  }
}

/** A value as an object with its own keys only; null where it is none. */
export function asObject(value: unknown): Readonly<Record<string, unknown>> | null {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return null;
  return Object.assign(Object.create(null), value) as Record<string, unknown>;
}

/** What a status says where nothing in the body says more. */
export function statusReason(status: number): Reason {
  if (status === 429) return "api_throttled";
  if (status >= 500) return "api_service_error";
  return status >= 400 ? "api_request_refused" : "api_answer_unreadable";
}
