import type { IncomingHttpHeaders } from "node:http2";
import { isRequestId, newRequestId } from "../log.ts";

/** The metadata of a call, as far as they are asked for. */
export interface CallMetadata {
  /** Every value of a name in lower case; bytes where it ends in `-bin`. */
  get(name: string): readonly (string | Buffer)[];
}

/** What a call's raw headers show at one glance. */
export interface Head {
  /** Whether they can be used: not too large, printable, and with one well-formed deadline at most. */
  readonly sound: boolean;
  /** Whether something that can carry an identity is among them. */
  readonly identified: boolean;
  /** Whether one of those that are told apart is repeated. */
  readonly repeated: boolean;
}

/** Headers whose values are told apart where they are repeated, a bit for each. */
const SEPARATE: ReadonlyMap<string, number> = new Map([
  ["authorization", 1],
  ["x-api-key", 2],
  ["x-request-id", 4],
  ["x-flow-id", 8],
  ["x-run-id", 16],
  ["x-rest-faults-bin", 32],
  ["idempotency-key", 64],
]);
const IDENTITY = 1 | 2;

const UNPRINTABLE = /[^\x20-\x7e]/;

/** Longest delay of a Node timer, ms; a longer deadline is as good as none. */
const MAX_TIMER_MS = 2 ** 31 - 1;
const UNIT_MS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 0.001, n: 0.000_001 };

/** The deadline of a `grpc-timeout` header in ms; undefined where it is malformed. */
function timeoutMs(text: string): number | undefined {
  const [, digits, unit] = /^(\d{1,8})([HMSmun])$/.exec(text) ?? [];
  return digits === undefined || unit === undefined ? undefined : Number(digits) * (UNIT_MS[unit] as number);
}

/**
 * Looks through the raw headers of a call once: this runs before every call, and makes nothing but its result.
 *
 * @param maxBytes largest header list, as RFC 9113 section 6.5.2 counts it: names, values, and 32 bytes for each pair
 */
export function readHead(raw: readonly string[], maxBytes: number): Head {
  let size = 0;
  let seen = 0;
  let repeated = false;
  let timed = false;
  let sound = true;
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i] as string;
    const value = raw[i + 1] as string;
    size += name.length + value.length + 32;
    if (UNPRINTABLE.test(value)) sound = false;
    if (name === "grpc-timeout") {
      if (timed || timeoutMs(value) === undefined) sound = false;
      timed = true;
    }
    const bit = SEPARATE.get(name) ?? 0;
    if ((seen & bit) !== 0) repeated = true;
    seen |= bit;
  }
  return { sound: sound && size <= maxBytes, identified: (seen & IDENTITY) !== 0, repeated };
}

/** The headers as grpc-js is to see them: repeated ones apart, and no deadline that its timer would take for a past one. */
export function adjust(headers: IncomingHttpHeaders, raw: readonly string[], { repeated }: Head): void {
  if (repeated) {
    for (const name of SEPARATE.keys()) {
      const values = raw.filter((_, index) => index % 2 === 1 && raw[index - 1] === name);
      if (values.length > 1) Object.assign(headers, { [name]: values });
    }
  }
  const timeout = headers["grpc-timeout"];
  if (typeof timeout === "string" && (timeoutMs(timeout) ?? 0) > MAX_TIMER_MS) delete headers["grpc-timeout"];
}

/** The deadline that a call brings, ms from its beginning; undefined where it brings none. Its headers are sound. */
export function deadlineOf({ "grpc-timeout": timeout }: IncomingHttpHeaders): number | undefined {
  return typeof timeout === "string" ? timeoutMs(timeout) : undefined;
}

const NONE: readonly never[] = [];

/** The values of one header. Those of a name that ends in `-bin` are bytes in base64, several of which may stand in one value, with commas between them. */
function valuesOf(headers: IncomingHttpHeaders, name: string): readonly (string | Buffer)[] {
  const value = headers[name];
  if (value === undefined) return NONE;
  const values = typeof value === "string" ? [value] : value;
  return name.endsWith("-bin") ? values.flatMap((text) => text.split(",").map((part) => Buffer.from(part.trim(), "base64"))) : values;
}

/** The headers of a call as its metadata. */
export const metadataIn = (headers: IncomingHttpHeaders): CallMetadata => ({ get: (name) => valuesOf(headers, name) });

/** The caller's request id where it is one well-formed ULID, else a new one. */
export function requestIdIn(headers: IncomingHttpHeaders): string {
  const id = headers["x-request-id"];
  return typeof id === "string" && isRequestId(id) ? id : newRequestId();
}
