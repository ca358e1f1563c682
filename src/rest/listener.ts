import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse, STATUS_CODES } from "node:http";
import { createServer as createTlsServer, type Server as TlsServer } from "node:https";
import type { Socket } from "node:net";
import { type Log, newRequestId } from "../log.ts";
import { wireHeaders } from "./answer.ts";
import { type Refused, refusal } from "./envelope.ts";

/** What a client may take of a listener. */
export interface ListenerLimits {
  /** How long the headers of a request may take to arrive, ms. */
  readonly headersMs: number;
  /** How long a request may take to arrive as a whole, ms; an answer of which nothing is taken for so long is cut off. */
  readonly requestMs: number;
  /** How long a connection is kept between two requests, ms. */
  readonly keepAliveMs: number;
  /** Largest request line and headers together, bytes. */
  readonly maxHeaderBytes: number;
  /** Connections at once. */
  readonly maxConnections: number;
}

/** What holds unless something else is said. */
export const LISTENER_LIMITS: ListenerLimits = {
  headersMs: 10_000,
  requestMs: 30_000,
  // Longer than the 60 s for which load balancers commonly keep a quiet connection.
  keepAliveMs: 72_000,
  maxHeaderBytes: 16_384,
  maxConnections: 2_048,
};

/** Certificate chain and private key, PEM. */
export interface ListenerTls {
  readonly certificate: Buffer;
  readonly key: Buffer;
}

/** What the HTTP server needs. */
export interface ListenerOptions {
  readonly limits: ListenerLimits;
  readonly tls: ListenerTls | undefined;
  /** Longest time from a whole request to its answer, ms. */
  readonly answerMs: number;
}

/** The parser's verdicts that have an answer of their own; every other one is a malformed request. */
const PARSER_REFUSALS: Readonly<Record<string, Refused>> = {
  HPE_HEADER_OVERFLOW: "header_size",
  HPE_CHUNK_EXTENSIONS_OVERFLOW: "body_size",
  ERR_HTTP_REQUEST_TIMEOUT: "slow",
};

/** Makes the HTTP server, with TLS where a certificate is given. It has its limits, but does not listen yet. */
export function createListener({ limits, tls, answerMs }: ListenerOptions, listener: RequestListener): Server {
  const { headersMs, requestMs, keepAliveMs, maxHeaderBytes, maxConnections } = limits;
  const bounds = {
    headersTimeout: headersMs,
    requestTimeout: requestMs,
    connectionsCheckingInterval: Math.min(headersMs, 1_000),
    keepAliveTimeout: keepAliveMs,
    maxHeaderSize: maxHeaderBytes,
    // A missing Host is refused with the same envelope as every other fault.
    requireHostHeader: false,
  };
  const server = tls ? createTlsServer({ ...bounds, ...contextOf(tls) }, listener) : createServer(bounds, listener);
  server.maxConnections = maxConnections;
  // Of silence in both directions: no quiet request lasts longer, so that it is an answer that nobody takes.
  server.timeout = requestMs + answerMs;
  // RFC 9110 section 10.1.1 lets a server ignore an expectation it does not know.
  return server.on("checkExpectation", (request: IncomingMessage, response: ServerResponse) => server.emit("request", request, response));
}

const contextOf = ({ certificate, key }: ListenerTls) => ({ cert: certificate, key, minVersion: "TLSv1.2" as const });

/** Puts another certificate in the place of a listener's own; connections that stand keep theirs. */
export const renewCertificate = (server: Server, tls: ListenerTls): void => (server as TlsServer).setSecureContext(contextOf(tls));

/**
 * Answers what the HTTP parser refused, where no response has begun on the connection; then closes it.
 *
 * @param current the latest response of each connection
 */
export function answerParserError(error: Error & { code?: string }, socket: Socket, current: WeakMap<Socket, ServerResponse>, log: Log): void {
  const begun = current.get(socket);
  if (error.code === "ECONNRESET" || !socket.writable || (begun?.headersSent === true && !begun.writableFinished)) {
    socket.destroy();
    return;
  }
  const requestId = newRequestId();
  const answer = refusal(PARSER_REFUSALS[error.code ?? ""] ?? "malformed", requestId);
  log.info({ request_id: requestId, path: "-", status: answer.status, error_code: error.code }, "rest request answered without a call");
  const headers = { ...wireHeaders(answer, requestId), connection: "close", "content-length": String(Buffer.byteLength(answer.body ?? "")) };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${answer.status} ${STATUS_CODES[answer.status]}\r\n${lines.join("")}\r\n${answer.body ?? ""}`);
}
