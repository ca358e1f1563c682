import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse, STATUS_CODES } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { Socket } from "node:net";
import { type Log, newRequestId } from "../log.ts";
import { wireHeaders } from "./answer.ts";
import { type Refused, refusal } from "./envelope.ts";

/** How long a request may take to arrive, ms. */
export interface RequestTimeouts {
  /** Until its headers are complete. */
  readonly headersMs: number;
  /** Until its body is complete. */
  readonly requestMs: number;
}

/** What the HTTP server needs. */
export interface ListenerOptions {
  readonly timeouts: RequestTimeouts;
  /** Certificate chain and private key, PEM. */
  readonly tls: { readonly certificate: Buffer; readonly key: Buffer } | undefined;
}

/** The parser's verdicts that have an answer of their own; every other one is a malformed request. */
const PARSER_REFUSALS: Readonly<Record<string, Refused>> = {
  HPE_HEADER_OVERFLOW: "header_size",
  HPE_CHUNK_EXTENSIONS_OVERFLOW: "body_size",
  ERR_HTTP_REQUEST_TIMEOUT: "slow",
};

/** Makes the HTTP server, with TLS where a certificate is given. It has its time limits, but does not listen yet. */
export function createListener({ timeouts, tls }: ListenerOptions, listener: RequestListener): Server {
  const { headersMs, requestMs } = timeouts;
  const bounds = {
    headersTimeout: headersMs,
    requestTimeout: requestMs,
    connectionsCheckingInterval: Math.min(headersMs, 1_000),
    // Longer than the 60 s for which load balancers commonly keep a quiet connection.
    keepAliveTimeout: 72_000,
    // A missing Host is refused with the same envelope as every other fault.
    requireHostHeader: false,
  };
  const server = tls ? createTlsServer({ ...bounds, cert: tls.certificate, key: tls.key }, listener) : createServer(bounds, listener);
  // RFC 9110 section 10.1.1 lets a server ignore an expectation it does not know.
  return server.on("checkExpectation", (request: IncomingMessage, response: ServerResponse) => server.emit("request", request, response));
}

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
