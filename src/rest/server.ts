import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse, STATUS_CODES } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import Fastify, { type FastifyError, type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import { errorFields, isRequestId, type Log, newRequestId } from "../log.ts";
import type { Address } from "../settings.ts";
import { type Answer, jsonAnswer, wireHeaders } from "./answer.ts";
import { createCors } from "./cors.ts";
import { loadDescriptors } from "./descriptors.ts";
import { type Refused, refusal } from "./envelope.ts";
import { createGateway } from "./gateway.ts";
import { parseJson } from "./json.ts";
import { compileRoutes } from "./routes.ts";
import { type Probe, screen, type Screened } from "./screen.ts";

/** What the REST listener needs. */
export interface RestOptions {
  readonly listen: Address;
  /** The gRPC service: `unix:/path` or `host:port`. */
  readonly target: string;
  /** Certificate authority of that service, PEM; its presence turns TLS on. */
  readonly targetCa?: Buffer | undefined;
  /** Certificate chain and private key of this listener, PEM; plaintext without. */
  readonly tls?: { readonly certificate: Buffer; readonly key: Buffer } | undefined;
  /** Exact origins that browsers may call from. */
  readonly corsOrigins: readonly string[];
  readonly maxBodyBytes: number;
  readonly maxJsonDepth: number;
  readonly maxJsonKeys: number;
  /** Longest time a call of the service may take, ms. */
  readonly deadlineMs: number;
  /** Whether the secret of a credential can be read over REST. */
  readonly resolve: boolean;
  readonly log: Log;
  /** Whether this process can serve; a rejection counts as no. */
  readonly ready: () => Promise<boolean>;
  /** The metrics in Prometheus' text format. */
  readonly metrics: () => Promise<{ readonly contentType: string; readonly body: string }>;
  /** How long the headers and the whole of a request may take to arrive, ms; 10 s and 30 s unless given. */
  readonly requestTimeouts?: { readonly headersMs: number; readonly requestMs: number } | undefined;
}

/** A REST listener that serves. */
export interface RestServer {
  /** Where it listens; the port is the real one. */
  readonly address: Address;
  /** Takes no new requests, waits for those in flight (no longer than one deadline), closes. */
  stop(): Promise<void>;
}

/** RPCs that REST does not offer unless asked to. */
const WITHHELD = ["ResolveCredential"] as const;

/** The parser's verdicts that have an answer of their own; every other one is a malformed request. */
const PARSER_REFUSALS: Readonly<Record<string, Refused>> = {
  HPE_HEADER_OVERFLOW: "header_size",
  HPE_CHUNK_EXTENSIONS_OVERFLOW: "body_size",
  ERR_HTTP_REQUEST_TIMEOUT: "slow",
};

/** The framework's errors that have an answer of their own. */
const FRAMEWORK_REFUSALS: Readonly<Record<string, Refused>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: "body_size",
  FST_ERR_CTP_INVALID_MEDIA_TYPE: "media_type",
};

function refusedBy(error: Pick<FastifyError, "code" | "statusCode">): Refused {
  return FRAMEWORK_REFUSALS[error.code] ?? (error.statusCode !== undefined && error.statusCode >= 400 && error.statusCode < 500 ? "malformed" : "internal");
}

function createListener(options: RestOptions, listener: RequestListener): Server {
  const { headersMs, requestMs } = options.requestTimeouts ?? { headersMs: 10_000, requestMs: 30_000 };
  const bounds = {
    headersTimeout: headersMs,
    requestTimeout: requestMs,
    connectionsCheckingInterval: Math.min(headersMs, 1_000),
    // Longer than the 60 s for which load balancers commonly keep a quiet connection.
    keepAliveTimeout: 72_000,
    // A missing Host is refused with the same envelope as every other fault.
    requireHostHeader: false,
  };
  const tls = options.tls && { cert: options.tls.certificate, key: options.tls.key };
  const server = tls ? createTlsServer({ ...bounds, ...tls }, listener) : createServer(bounds, listener);
  // RFC 9110 section 10.1.1 lets a server ignore an expectation it does not know.
  return server.on("checkExpectation", (request: IncomingMessage, response: ServerResponse) => server.emit("request", request, response));
}

/** Answers what the HTTP parser refused, where no response has begun on the connection; then closes it. */
function answerParserError(error: Error & { code?: string }, socket: Socket, current: WeakMap<Socket, ServerResponse>, log: Log): void {
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

/** Starts the REST listener. It is a client of the gRPC service and knows no rule that the service does not. */
export async function serveRest(options: RestOptions): Promise<RestServer> {
  const { log } = options;
  const resources = compileRoutes(loadDescriptors(), options.resolve ? [] : WITHHELD);
  const site = { resources, cors: createCors(options.corsOrigins), stopping: false };
  const limits = { maxDepth: options.maxJsonDepth, maxKeys: options.maxJsonKeys };
  const gateway = createGateway(options);
  const current = new WeakMap<Socket, ServerResponse>();

  const app: FastifyInstance = Fastify({
    bodyLimit: options.maxBodyBytes,
    serverFactory: (listener) => createListener(options, listener),
    // The framework's router would decode and normalise the path; it sees one constant, and `screen` the raw path.
    rewriteUrl: () => "/",
    return503OnClosing: false,
    forceCloseConnections: "idle",
    clientErrorHandler: (error, socket) => answerParserError(error, socket, current, log),
    genReqId: (raw) => {
      const given = raw.headers["x-request-id"];
      return typeof given === "string" && isRequestId(given) ? given : newRequestId();
    },
  });

  const send = (request: FastifyRequest, reply: FastifyReply, answer: Answer): FastifyReply => {
    if (site.stopping) reply.header("connection", "close");
    return reply.code(answer.status).headers({ ...site.cors.headers(request.raw.rawHeaders), ...wireHeaders(answer, request.id) }).send(answer.body);
  };
  const refused = (request: FastifyRequest, answer: Answer, template: string) =>
    log.info({ request_id: request.id, method: request.method, path: template, status: answer.status }, "rest request answered without a call");

  const probes: Record<Probe, (requestId: string) => Promise<Answer>> = {
    "/healthz": async () => jsonAnswer(200, { status: "ok" }),
    "/readyz": async () => ((await options.ready().catch(() => false)) && !site.stopping ? jsonAnswer(200, { status: "ready" }) : jsonAnswer(503, { status: "unavailable" })),
    "/metrics": async () => {
      const { contentType, body } = await options.metrics();
      return { status: 200, headers: { "content-type": contentType }, body };
    },
  };

  const handle = async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
    const { route, params, path } = request.getDecorator<Screened & { kind: "route" }>("screened");
    const body = route.body && Buffer.isBuffer(request.body) && request.body.length > 0 ? parseJson(request.body, limits) : undefined;
    const gone = new AbortController();
    reply.raw.once("close", () => gone.abort());
    return send(request, reply, await gateway.call({ route, params, path, body, rawHeaders: request.raw.rawHeaders, requestId: request.id, signal: gone.signal }));
  };

  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", { parseAs: "buffer" }, (_request, body, done) => done(null, body));
  app.decorateRequest("screened", null);
  app.addHook("onRequest", async (request, reply) => {
    current.set(request.socket, reply.raw);
    const screened = screen(site, request.raw, request.originalUrl, request.id);
    if (screened.kind === "route") return request.setDecorator("screened", screened);
    if (screened.kind === "probe") return send(request, reply, await probes[screened.probe](request.id));
    refused(request, screened.answer, screened.template);
    return send(request, reply, screened.answer);
  });
  app.setErrorHandler((error: FastifyError, request, reply) => {
    const kind = refusedBy(error);
    const answer = refusal(kind, request.id);
    if (kind === "internal") log.error({ request_id: request.id, ...errorFields(error) }, "rest request failed");
    else refused(request, answer, request.getDecorator<Screened & { kind: "route" } | null>("screened")?.route.template ?? "-");
    return send(request, reply, answer);
  });
  app.setNotFoundHandler(handle);
  app.all("/", handle);

  await app.listen({ host: options.listen.host, port: options.listen.port });
  const bound = app.server.address() as AddressInfo;
  return {
    address: { host: options.listen.host, port: bound.port },
    async stop() {
      site.stopping = true;
      const force = setTimeout(() => app.server.closeAllConnections(), options.deadlineMs);
      await app.close();
      clearTimeout(force);
      gateway.close();
    },
  };
}
