import type { IncomingMessage } from "node:http";
import type { Answer } from "./answer.ts";
import type { Cors } from "./cors.ts";
import { type Refused, refusal } from "./envelope.ts";
import { PASSED_HEADERS } from "./gateway.ts";
import { announcesBody, announcesJson, headerValues, isPrintable } from "./headers.ts";
import { findRoute, isAmbiguousPath, type Resource, type Route } from "./routes.ts";

/** What becomes of a request before its body is read. */
export type Screened =
  | { readonly kind: "answer"; readonly answer: Answer; readonly template: string }
  | { readonly kind: "page"; readonly page: () => Promise<Answer> }
  | { readonly kind: "route"; readonly route: Route; readonly params: ReadonlyMap<string, string>; readonly path: string; readonly query: string };

/** RFC 9112 section 3.2: exactly one Host in HTTP/1.1. A header folded over lines (section 5.2) may hide another one. */
function isWellFormed(raw: IncomingMessage): boolean {
  const hosts = headerValues(raw.rawHeaders, "host").length;
  return (raw.httpVersion === "1.0" ? hosts <= 1 : hosts === 1) && !raw.rawHeaders.some((text) => /[\r\n\0]/.test(text));
}

function passedHeadersFit(raw: readonly string[]): boolean {
  return PASSED_HEADERS.map((name) => headerValues(raw, name)).every((values) => values.length <= 1 && values.every(isPrintable));
}

/** What the listener knows besides a request. */
export interface Site {
  readonly resources: readonly Resource[];
  /** Paths that answer by themselves, without authentication. */
  readonly pages: ReadonlyMap<string, () => Promise<Answer>>;
  readonly cors: Cors;
  /** Whether a stop was asked for; no call is begun from then on. */
  readonly stopping: boolean;
}

/** Decides by method, path and headers alone whether a request is answered here or becomes a call. */
export function screen(site: Site, raw: IncomingMessage, target: string, requestId: string): Screened {
  const verb = raw.method ?? "";
  const path = target.split("?", 1)[0] ?? "";
  const refuse = (refused: Refused, template = "-", headers = {}): Screened => ({ kind: "answer", answer: refusal(refused, requestId, headers), template });

  if (!isWellFormed(raw)) return refuse("malformed");
  const page = site.pages.get(path);
  if (page) return verb === "GET" || verb === "HEAD" ? { kind: "page", page } : refuse("method", path, { allow: "GET, HEAD" });
  if (site.stopping) return refuse("stopping");
  if (isAmbiguousPath(path)) return refuse("path");
  const found = findRoute(site.resources, verb, path);
  if (found.kind === "unknown") return refuse("unknown");
  if (found.kind === "wrong_method") {
    const preflight = site.cors.preflight(verb, raw.rawHeaders, found.allow);
    return preflight ? { kind: "answer", answer: preflight, template: found.template } : refuse("method", found.template, { allow: found.allow.join(", ") });
  }
  const { route, params } = found;
  if (route.body && announcesBody(raw.rawHeaders) && !announcesJson(raw.rawHeaders)) return refuse("media_type", route.template);
  if (!passedHeadersFit(raw.rawHeaders)) return refuse("metadata", route.template);
  return { kind: "route", route, params, path, query: target.slice(path.length + 1) };
}
