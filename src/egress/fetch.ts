import { type ClientRequest, type IncomingMessage, request as httpRequest } from "node:http";
import type { Duplex } from "node:stream";
import type { DialLimits, Dialer } from "./dialer.ts";
import { EgressError, egressError, type EgressReason } from "./error.ts";
import type { GuardedSocket } from "./socket.ts";
import { secure } from "./tls.ts";
import { type FetchTarget, parseUrl } from "./url.ts";

/** One request. */
export interface FetchRequest {
  /** Absolute; https, or in development http to hosts on the operator's list. */
  readonly url: string;
  readonly method?: "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Printable ASCII values; those that frame the message or belong to the connection are not the caller's to set, nor are cookies. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
  /** Whose port rules apply; none where not given. */
  readonly provider?: string;
  readonly signal?: AbortSignal;
  /** Called before the first byte of the request leaves, once there is a connection. */
  readonly sending?: () => void;
  /** Called when the whole request was handed to the system: from then on the other side may have acted on it. */
  readonly sent?: () => void;
}

/** What came back. */
export interface FetchResponse {
  /** `redirect` for a 3xx with a `location`: nobody goes there unless the caller asks anew. */
  readonly outcome: "response" | "redirect";
  readonly status: number;
  /** By lower-case name; cookies are left out. */
  readonly headers: Readonly<Record<string, string>>;
  /** As it was sent: not decompressed, not decoded. */
  readonly body: Buffer;
}

/** Fetches a URL that somebody else chose. Throws `EgressError`; an HTTP error status is a response. */
export type GuardedFetch = (request: FetchRequest) => Promise<FetchResponse>;

/** What the guarded fetch is made of. */
export interface FetchDeps {
  readonly dialer: Dialer;
  /** Whether http to listed hosts is allowed. */
  readonly development: boolean;
  /** Authorities that are trusted instead of the system's, PEM. */
  readonly ca?: string | Buffer;
  /** Largest body, bytes. */
  readonly maxBodyBytes?: number;
  /** Largest status line and headers together, bytes. */
  readonly maxHeaderBytes?: number;
  /** Time from the call to the last byte, ms. */
  readonly totalMs?: number;
}

const MAX_BODY = 1_048_576;
const MAX_HEADERS = 16_384;
/** What TLS and chunks may add to the body and the headers. */
const FRAMING = 131_072;

/** Headers that frame the message, speak to the connection or carry a browser's state. */
const RESERVED = /^(?:host|connection|keep-alive|content-length|transfer-encoding|te|trailer|upgrade|expect|cookie2?|proxy-.*)$/i;

/** The guarded fetch: one request on one connection of its own. No redirects, cookies, proxies, decompression or reuse. */
export function createGuardedFetch(deps: FetchDeps): GuardedFetch {
  const bounds = { body: deps.maxBodyBytes ?? MAX_BODY, headers: deps.maxHeaderBytes ?? MAX_HEADERS };
  const limits: Partial<DialLimits> = {
    total: bounds.body + bounds.headers + FRAMING,
    ...(deps.totalMs === undefined ? {} : { totalMs: deps.totalMs }),
  };
  return async (request) => {
    const target = parseUrl(request.url);
    if (target.scheme === "http" && !deps.development) throw new EgressError("refused-request", "scheme");
    checkHeaders(request.headers ?? {});
    const name = target.host.kind === "name" ? target.host.name : target.host.address;
    const place = { host: name, port: target.port, ...(request.provider === undefined ? {} : { provider: request.provider }) };
    await using socket = await deps.dialer.dial(place, { signal: request.signal, limits, listedOnly: target.scheme === "http" });
    const carrier = target.scheme === "https" ? await secure(socket, { name, ca: deps.ca }) : socket;
    try {
      socket.authenticated();
      return await exchange(socket, carrier, target, request, bounds);
    } finally {
      carrier.destroy();
    }
  };
}

function checkHeaders(headers: Readonly<Record<string, string>>): void {
  for (const [name, value] of Object.entries(headers)) {
    if (!/^[A-Za-z0-9-]+$/.test(name) || RESERVED.test(name) || !/^[\x20-\x7e]*$/.test(value)) throw new EgressError("refused-request", "headers");
  }
}

/** Largest parts of a response. */
interface Bounds {
  readonly body: number;
  readonly headers: number;
}

/** Sends the request and reads the response to its end. */
function exchange(socket: GuardedSocket, carrier: Duplex, target: FetchTarget, request: FetchRequest, bounds: Bounds): Promise<FetchResponse> {
  return new Promise((resolve, reject) => {
    const fail = (error: unknown) => reject(socket.failure ?? egressError(error, httpReason(error)));
    // With `createConnection` and no agent there is no pool, no keep-alive and no proxy from the environment.
    const outgoing: ClientRequest = httpRequest({
      createConnection: () => carrier,
      method: request.method ?? "GET",
      path: target.path,
      headers: { ...request.headers, host: target.authority, connection: "close" },
      setHost: false,
      maxHeaderSize: bounds.headers,
      insecureHTTPParser: false,
    });
    outgoing.on("error", fail);
    outgoing.once("finish", () => request.sent?.());
    outgoing.on("upgrade", () => fail(new EgressError("protocol-error")));
    const closed = () => fail(new EgressError("connection-lost"));
    outgoing.once("close", closed);
    outgoing.on("response", (response) => {
      // From here the response itself says how it ends.
      outgoing.removeListener("close", closed);
      read(response, bounds.body).then(resolve, fail);
    });
    request.sending?.();
    outgoing.end(request.body);
  });
}

/** What an error of the HTTP client means. */
function httpReason(error: unknown): EgressReason {
  const code = error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
  if (code === "HPE_HEADER_OVERFLOW") return "too-many-bytes";
  return code.startsWith("HPE_") ? "protocol-error" : "connection-lost";
}

async function read(response: IncomingMessage, maximum: number): Promise<FetchResponse> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > maximum) throw new EgressError("too-many-bytes");
    chunks.push(chunk);
  }
  const status = response.statusCode ?? 0;
  const headers: Record<string, string> = Object.create(null);
  // The one header that is a list is `set-cookie`.
  for (const [name, value] of Object.entries(response.headers)) if (typeof value === "string") headers[name] = value;
  const redirect = status >= 300 && status <= 399 && headers["location"] !== undefined;
  return { outcome: redirect ? "redirect" : "response", status, headers, body: Buffer.concat(chunks) };
}
