import type { ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import Fastify, { type FastifyError, type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import { errorFields, isRequestId, type Log, newRequestId } from "../log.ts";
import type { Address } from "../settings.ts";
import { beginSpan, within } from "../trace.ts";
import { type Answer, wireHeaders } from "./answer.ts";
import { createBrowsers } from "./browser.ts";
import { createCors } from "./cors.ts";
import { loadDescriptors } from "./descriptors.ts";
import { docsPages } from "./docs.ts";
import { type Refused, refusal } from "./envelope.ts";
import { createGateway } from "./gateway.ts";
import { headerValues } from "./headers.ts";
import { parseJson } from "./json.ts";
import { answerParserError, createListener, LISTENER_LIMITS, type ListenerLimits, type ListenerTls, renewCertificate } from "./listener.ts";
import { type Pages, probePages, type ProbeSources } from "./probes.ts";
import { compileRoutes } from "./routes.ts";
import { screen, type Screened, type Site } from "./screen.ts";
import type { Transport } from "./transport.ts";

/** What the REST listener needs. */
export interface RestOptions {
  readonly listen: Address;
  /** The way to the gRPC service; closed with the listener. */
  readonly transport: Transport;
  /** Certificate chain and private key of this listener, PEM; plaintext without. */
  readonly tls?: ListenerTls | undefined;
  /** Exact origins that browsers may call from. */
  readonly corsOrigins: readonly string[];
  /** Largest request body, bytes. */
  readonly maxBodyBytes: number;
  /** Deepest nesting of a JSON body. */
  readonly maxJsonDepth: number;
  /** Most keys and array elements of a JSON body together. */
  readonly maxJsonKeys: number;
  /** Longest time a call of the service may take, ms. */
  readonly deadlineMs: number;
  /** Whether browsers reach this listener over https, through whatever stands before it; so unless said otherwise. */
  readonly secureBrowsers?: boolean | undefined;
  /** Whether the API reference is served at `/openapi.json`, and a page for it at `/docs`. */
  readonly docs: boolean;
  /** Whether the secret of a credential can be read over REST. */
  readonly resolve: boolean;
  readonly log: Log;
  /** Whether this process can serve, apart from reaching the gRPC service. */
  readonly ready: ProbeSources["ready"];
  readonly metrics: ProbeSources["metrics"];
  /** Whether the probes and the metrics are on this listener; so unless said otherwise. */
  readonly probes?: boolean | undefined;
  /** What a client may take of the listener; {@link LISTENER_LIMITS} unless given. */
  readonly limits?: Partial<ListenerLimits> | undefined;
}

/** A REST listener that serves. */
export interface RestServer {
  /** Where it listens; the port is the real one. */
  readonly address: Address;
  /** Connections that are open now. */
  readonly connections: number;
  /** Whether it can serve now. */
  ready(): Promise<boolean>;
  /** Puts another certificate in the place of the listener's own; only where it has one. */
  renewCertificate(tls: ListenerTls): void;
  /** Takes no new requests, waits for those in flight (no longer than one deadline), closes. */
  stop(): Promise<void>;
}

/** RPCs that REST does not offer unless asked to. */
const WITHHELD = ["ResolveCredential"] as const;

/** The framework's errors that have an answer of their own. */
const FRAMEWORK_REFUSALS: Readonly<Record<string, Refused>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: "body_size",
  FST_ERR_CTP_INVALID_MEDIA_TYPE: "media_type",
};

/** Requests are read and answers written by the gateway: the framework's compilers of JSON Schema are not even loaded. */
const noSchemas = (): never => {
  throw new TypeError("routes have no schemas");
};

function refusedBy(error: Pick<FastifyError, "code" | "statusCode">): Refused {
  return FRAMEWORK_REFUSALS[error.code] ?? (error.statusCode !== undefined && error.statusCode >= 400 && error.statusCode < 500 ? "malformed" : "internal");
}

/** Starts the REST listener. It is a client of the gRPC service and knows no rule that the service does not. */
export async function serveRest(options: RestOptions): Promise<RestServer> {
  const { log, transport } = options;
  const resources = compileRoutes(loadDescriptors(), options.resolve ? [] : WITHHELD);
  const json = { maxDepth: options.maxJsonDepth, maxKeys: options.maxJsonKeys };
  const limits = { ...LISTENER_LIMITS, ...options.limits };
  const gateway = createGateway({ transport, log, browsers: createBrowsers(options.secureBrowsers ?? true) });
  const current = new WeakMap<Socket, ServerResponse>();

  const app: FastifyInstance = Fastify({
    bodyLimit: options.maxBodyBytes,
    serverFactory: (listener) => createListener({ limits, tls: options.tls, answerMs: options.deadlineMs }, listener),
    // The framework's router would decode and normalise the path; it sees one constant, and `screen` the raw path.
    rewriteUrl: () => "/",
    schemaController: { compilersFactory: { buildValidator: noSchemas, buildSerializer: noSchemas } },
    return503OnClosing: false,
    forceCloseConnections: "idle",
    clientErrorHandler: (error, socket) => answerParserError(error, socket, current, log),
    genReqId: (raw) => {
      const given = raw.headers["x-request-id"];
      return typeof given === "string" && isRequestId(given) ? given : newRequestId();
    },
  });

  const ready = async () => !site.stopping && (await options.ready().catch(() => false)) && (await transport.reachable());
  const pages: Pages = new Map([
    ...(options.probes === false ? [] : probePages({ ready, metrics: options.metrics, stopping: () => site.stopping })),
    ...(options.docs ? docsPages() : []),
  ]);
  const site: Site & { stopping: boolean } = { resources, pages, cors: createCors(options.corsOrigins), stopping: false };

  const send = (request: FastifyRequest, reply: FastifyReply, answer: Answer): FastifyReply => {
    if (site.stopping) reply.header("connection", "close");
    return reply.code(answer.status).headers({ ...site.cors.headers(request.raw.rawHeaders), ...wireHeaders(answer, request.id) }).send(answer.body);
  };
  const refused = (request: FastifyRequest, answer: Answer, template: string) =>
    log.info({ request_id: request.id, method: request.method, path: template, status: answer.status }, "rest request answered without a call");

  const handle = async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
    const { route, params, path, query } = request.getDecorator<Screened & { kind: "route" }>("screened");
    const body = route.body && Buffer.isBuffer(request.body) && request.body.length > 0 ? parseJson(request.body, json) : undefined;
    const gone = new AbortController();
    // Not after every answer: what an abort says is costly to make.
    reply.raw.once("close", () => void (reply.raw.writableFinished || gone.abort()));
    const call = { route, params, path, query, body, rawHeaders: request.raw.rawHeaders, requestId: request.id, signal: gone.signal };
    const span = beginSpan(`${request.method} ${route.template}`, "server", headerValues(request.raw.rawHeaders, "traceparent"));
    const answer = await within(span, () => gateway.call(call));
    span?.end({ "http.request.method": request.method, "http.route": route.template, "http.response.status_code": answer.status, "flow.request_id": request.id, ...(answer.status >= 500 ? { "error.type": String(answer.status) } : {}) });
    return send(request, reply, answer);
  };

  // Node counts a connection that has not sent a request yet as busy, so that it would hold up a stop.
  const silent = new Set<Socket>();
  let connections = 0;
  app.server.on("connection", (socket: Socket) => {
    connections += 1;
    socket.once("close", () => (connections -= 1));
  });
  app.server.on(options.tls ? "secureConnection" : "connection", (socket: Socket) => {
    if (site.stopping) return socket.destroy();
    silent.add(socket);
    return socket.once("close", () => silent.delete(socket));
  });

  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", { parseAs: "buffer" }, (_request, body, done) => done(null, body));
  app.decorateRequest("screened", null);
  app.addHook("onRequest", async (request, reply) => {
    current.set(request.socket, reply.raw);
    silent.delete(request.socket);
    const screened = screen(site, request.raw, request.originalUrl, request.id);
    if (screened.kind === "route") return request.setDecorator("screened", screened);
    if (screened.kind === "page") return send(request, reply, await screened.page());
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

  try {
    await app.listen({ host: options.listen.host, port: options.listen.port });
  } catch (error) {
    transport.close();
    throw error;
  }
  const bound = app.server.address() as AddressInfo;
  return {
    address: { host: options.listen.host, port: bound.port },
    get connections() {
      return connections;
    },
    ready,
    renewCertificate: (tls) => renewCertificate(app.server, tls),
    async stop() {
      site.stopping = true;
      for (const socket of silent) socket.destroy();
      const force = setTimeout(() => app.server.closeAllConnections(), options.deadlineMs);
      await app.close();
      clearTimeout(force);
      transport.close();
    },
  };
}
