import { randomFillSync } from "node:crypto";
import pino, { type DestinationStream } from "pino";
import { ulid } from "ulid";
import { type LogLines, standardError } from "./log-lines.ts";
import { currentSpan } from "./trace.ts";

/** Fields a log line may carry. Whatever else is handed in is left out, so that a secret cannot ride along. */
const FIELDS = [
  "request_id", "method", "code", "reason", "duration_ms", "caller_kind", "caller_id", "organization_id", "credential_id", "incident",
  "error_name", "error_code", "address", "count", "key_id", "table", "migration", "signal", "state", "pid", "path", "status", "attempt",
  "link", "hash", "trace_id",
] as const;

/** What a log line says besides its message. Values are ids, names, counts and codes; never text from outside. */
export type LogFields = { readonly [F in (typeof FIELDS)[number]]?: string | number | boolean | null | undefined };

/** Writes one JSON line a call, with the allowed fields only. */
export interface Log {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
}

const LEVELS = ["debug", "info", "warn", "error"] as const;

/** Longest text of a field, in characters. */
const MAX_TEXT = 256;

const ALLOWED: ReadonlySet<string> = new Set(FIELDS);

function allowed(fields: LogFields): Record<string, unknown> {
  const out: Record<string, unknown> = {};
  for (const name in fields) {
    const value = fields[name as keyof LogFields];
    if (value !== undefined && ALLOWED.has(name)) out[name] = typeof value === "string" ? value.slice(0, MAX_TEXT) : value;
  }
  return out;
}

let told = 0;
let text = "";

/** The time as a field of a line (RFC 3339, UTC): of a busy service's lines several have the same. */
function time(): string {
  const now = Date.now();
  if (now !== told) [told, text] = [now, `,"time":"${new Date(now).toISOString()}"`];
  return text;
}

/** A log at a level, to standard error unless another place is given. A warning or an error is written at once. */
export function createLog(level: (typeof LEVELS)[number], stream: DestinationStream | LogLines = standardError()): Log {
  const out = pino({ level, base: null, messageKey: "message", timestamp: time, formatters: { level: (label) => ({ level: label }) } }, stream);
  const write = (at: (typeof LEVELS)[number]) => (fields: LogFields, message: string) => {
    if (!out.isLevelEnabled(at)) return;
    const span = currentSpan();
    out[at](allowed(span === undefined ? fields : { trace_id: span.traceId, ...fields }), message);
    if ((at === "warn" || at === "error") && "flush" in stream) stream.flush();
  };
  return { debug: write("debug"), info: write("info"), warn: write("warn"), error: write("error") };
}

/** Writes the last line of a process, behind those that wait: a fault that nobody caught, of which only type and code are told. What is being written just then may come after it. */
export function logFatal(message: string, error: unknown): void {
  standardError().write(`${JSON.stringify({ level: "fatal", message, ...errorFields(error) })}\n`);
}

/** The same log for a piece of work that no call asked for: all its lines carry one id of their own, unless a line has another. */
export function identified(log: Log, requestId: string = newRequestId()): Log {
  const at = (level: (typeof LEVELS)[number]) => (fields: LogFields, message: string) => log[level]({ request_id: requestId, ...fields }, message);
  return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

/** Random bytes for request ids, drawn many at a time: one by one they cost more than the rest of a log line. */
const pool = Buffer.alloc(4096);
let drawn = pool.length;

function randomFraction(): number {
  if (drawn === pool.length) {
    randomFillSync(pool);
    drawn = 0;
  }
  return pool.readUInt8(drawn++) / 256;
}

/** A new request id: a ULID, 26 characters of Crockford's base 32. */
export const newRequestId = (): string => ulid(undefined, randomFraction);

/** Whether a text is a well-formed ULID. */
export const isRequestId = (text: string): boolean => /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/.test(text);

/** What may be said of an unknown error: its type and its code, never its message, which may quote a value. */
export function errorFields(error: unknown): Pick<LogFields, "error_name" | "error_code"> {
  if (!(error instanceof Error)) return { error_name: typeof error };
  const code = (error as { code?: unknown }).code;
  const known = typeof code === "string" || typeof code === "number" ? String(code) : undefined;
  return { error_name: error.name.slice(0, 64), error_code: known?.slice(0, 64) };
}
