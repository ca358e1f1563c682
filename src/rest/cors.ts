import type { Answer } from "./answer.ts";
import { headerValues } from "./headers.ts";

/** Headers that a browser may send, and those it may show to the page. */
const ALLOWED = "authorization, content-type, x-api-key, x-request-id, x-flow-id, x-run-id, idempotency-key, traceparent";
const EXPOSED = "location, retry-after, www-authenticate, x-request-id";

/** How long a browser may keep the answer to a preflight, seconds. */
const MAX_AGE = "600";

/**
 * Cross-origin rules (https://fetch.spec.whatwg.org/#http-cors-protocol). Credentials mode is never allowed: callers
 * send a header, no cookie.
 */
export interface Cors {
  /** Headers for a response to a request with these raw headers. */
  headers(raw: readonly string[]): Record<string, string>;
  /** The answer to a preflight from an allowed origin; undefined for every other request. */
  preflight(verb: string, raw: readonly string[], methods: readonly string[]): Answer | undefined;
}

/** @param origins exact origins, such as `https://app.example`; anything else is an error */
export function createCors(origins: readonly string[]): Cors {
  for (const origin of origins) {
    if (!URL.canParse(origin) || new URL(origin).origin !== origin) throw new Error("a CORS origin is not exactly scheme://host[:port]");
  }
  const allowed = new Set(origins);
  const allowedOrigin = (raw: readonly string[]): string | undefined => {
    const [origin, ...more] = headerValues(raw, "origin");
    return origin !== undefined && more.length === 0 && allowed.has(origin) ? origin : undefined;
  };
  return {
    headers(raw) {
      if (allowed.size === 0) return {};
      const origin = allowedOrigin(raw);
      return { vary: "Origin", ...(origin === undefined ? {} : { "access-control-allow-origin": origin, "access-control-expose-headers": EXPOSED }) };
    },
    preflight(verb, raw, methods) {
      const asked = headerValues(raw, "access-control-request-method").length > 0;
      if (verb !== "OPTIONS" || !asked || allowedOrigin(raw) === undefined) return undefined;
      const headers = { "access-control-allow-methods": methods.join(", "), "access-control-allow-headers": ALLOWED, "access-control-max-age": MAX_AGE };
      return { status: 204, headers, body: undefined };
    },
  };
}
