import type { Http2SecureServer, Http2Server, IncomingHttpHeaders, ServerHttp2Session, ServerHttp2Stream } from "node:http2";
import { Metadata, type Server } from "@grpc/grpc-js";
import { type CredentialError, fail, GRPC_CODE, REASONS } from "../domain/errors.ts";
import { beginSpan, within } from "../trace.ts";
import { createArrivals, linger, MAX_UNFINISHED_BYTES } from "./arrivals.ts";
import type { GrpcDeps } from "./deps.ts";
import { adjust, readHead, requestIdIn } from "./headers.ts";
import { type OutgoingStatus, toStatus } from "./status.ts";

/**
 * The HTTP/2 servers inside a gRPC server. grpc-js has no public way to them, and none to what only they know: the size
 * of a header list, headers that are repeated (of two `authorization` it would see the first), how long a request takes
 * to arrive, and their sessions.
 */
interface Inside {
  readonly http2Servers?: ReadonlyMap<Http2Server | Http2SecureServer, unknown>;
}

type StreamListener = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, flags: number, raw: string[]) => void;

/** Connections at once on one address unless told otherwise; one more is closed at once. */
export const MAX_CONNECTIONS = 2_048;

/** The flag of a request that ends with its headers, and the code of a stream that is no longer wanted (RFC 9113 sections 6.2 and 7). */
const END_STREAM = 0x1;
const CANCEL = 0x8;

/** What the door knows of a method. */
export interface Method {
  /** Whether a call that presents no identity is refused before its request is read. */
  readonly needsIdentity: boolean;
  /** Whether its request is a stream of messages. */
  readonly requestStream: boolean;
}

/** What stands before the gRPC server and sees every call first. */
export interface Door {
  /** Stands before everything the server listens on by now; no call comes between listening and this, if it follows at once. */
  guard(server: Server): void;
  /** From now on new calls are UNAVAILABLE. */
  shut(): void;
  /** Cuts every connection, whatever is under way on it. */
  cut(): void;
  /** Connections that are open now. */
  readonly connections: number;
  /** Puts another certificate, and another authority of clients, in the place of those that the guarded servers have; connections that stand keep theirs. */
  renewCertificate(tls: { readonly certificate: Buffer; readonly key: Buffer; readonly clientCa?: Buffer }): void;
  /** Bytes that requests hold which have not ended, with something for each stream. */
  readonly heldBytes: number;
}

/** How a door decides. */
export interface DoorOptions {
  /** Every method there is, by its path; any other is UNIMPLEMENTED. */
  readonly methods: ReadonlyMap<string, Method>;
  /** Largest header list of a call, bytes as RFC 9113 section 6.5.2 counts them. */
  readonly maxMetadataBytes: number;
  /** How long a request may take to arrive, ms. */
  readonly deadlineMs: number;
  /** Most bytes that requests may hold which have not ended; {@link MAX_UNFINISHED_BYTES} unless given. */
  readonly maxUnfinishedBytes?: number;
  /** Connections at once on one address; {@link MAX_CONNECTIONS} unless given. */
  readonly maxConnections?: number;
}

/** A call that the door has let in, as far as it matters for turning it away later. */
interface Visitor {
  /** The method's path; `none` for one that is not known, because what is asked for may be anything. */
  readonly method: string;
  readonly headers: IncomingHttpHeaders;
  /** When it came, on the clock of `performance.now()`, ms. */
  readonly at: number;
}

/** The answer to a call of a method that does not exist; it does not repeat what was asked for. */
const UNKNOWN_METHOD: OutgoingStatus = { code: GRPC_CODE.UNIMPLEMENTED, details: "Unknown method", metadata: new Metadata() };

/** Answers a call in the form in which the adapter does: its id at once, then status and details. */
function answer(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, requestId: string, { code, details, metadata }: OutgoingStatus): void {
  if (stream.destroyed || stream.closed) return;
  // Whoever has begun to read the request is told nothing more, its end least of all: it would run the call.
  stream.removeAllListeners("data").removeAllListeners("end");
  if (stream.headersSent) return stream.close(CANCEL);
  stream.on("error", () => stream.destroy());
  if (headers["content-type"]?.startsWith("application/grpc")) {
    const trailers = { "grpc-status": String(code), "grpc-message": encodeURI(details), ...metadata.toHttp2Headers() };
    stream.respond({ ":status": 200, "content-type": "application/grpc+proto", "x-request-id": requestId }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers(trailers));
    stream.end();
  } else {
    stream.respond({ ":status": 415 }, { endStream: true });
  }
  // Whoever has the stream as well would answer at a deadline of its own, and a second answer throws.
  stream.respond = () => {};
  linger(stream);
}

/** Whether the connection shows a client certificate of a trusted authority, which may be an identity. */
function hasCertificate({ session }: ServerHttp2Stream): boolean {
  // A proxy, which does not tell what is in it.
  const socket = session?.socket as ({ readonly authorized?: unknown } & object) | undefined;
  return socket?.authorized === true;
}

/** Makes the door of one server. Nothing has been authenticated before it, so a refusal here is a log line and no audit record. */
export function createDoor({ log, metrics }: Pick<GrpcDeps, "log" | "metrics">, options: DoorOptions): Door {
  const { methods, maxMetadataBytes, deadlineMs, maxUnfinishedBytes = MAX_UNFINISHED_BYTES } = options;
  const guarded = new WeakSet<object>();
  const secure: Http2SecureServer[] = [];
  const sessions = new Set<ServerHttp2Session>();
  let shut = false;
  const turnAway = (stream: ServerHttp2Stream, { method, headers, at }: Visitor, error: CredentialError | "UNIMPLEMENTED"): void => {
    const known = error === "UNIMPLEMENTED" ? undefined : error;
    const code = known ? REASONS[known.reason].grpc : "UNIMPLEMENTED";
    const requestId = requestIdIn(headers);
    const seconds = (performance.now() - at) / 1000;
    const span = beginSpan(method === "none" ? "unknown method" : method.slice(1), "server", [headers["traceparent"] ?? []].flat());
    answer(stream, headers, requestId, known ? toStatus(known) : UNKNOWN_METHOD);
    within(span, () => log.info({ request_id: requestId, method, code, reason: known?.reason, duration_ms: Math.round(seconds * 1_000_000) / 1000 }, "call"));
    span?.end({ "rpc.system": "grpc", "rpc.grpc.status_code": GRPC_CODE[code], "flow.request_id": requestId, "error.type": known?.reason ?? code });
    metrics.observe({ method, code, seconds, reason: known?.reason });
  };
  const arrivals = createArrivals<Visitor>({
    deadlineMs,
    maxBytes: maxUnfinishedBytes,
    refuse: (stream, visitor, reason) => turnAway(stream, visitor, fail(reason)),
  });
  const guardOne = (server: Http2Server | Http2SecureServer) => {
    if (guarded.has(server)) return;
    guarded.add(server);
    if ("setSecureContext" in server) secure.push(server);
    const [grpc, ...others] = server.listeners("stream") as StreamListener[];
    if (!grpc || others.length > 0) throw new Error("grpc-js no longer listens to streams in one place");
    server.removeAllListeners("stream");
    server.maxConnections = options.maxConnections ?? MAX_CONNECTIONS;
    server.on("stream", (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, flags: number, raw: string[]) => {
      const path = headers[":path"] ?? "";
      const method = methods.get(path);
      const visitor = { method: method ? path : "none", headers, at: performance.now() };
      if (shut) return turnAway(stream, visitor, fail("SHUTTING_DOWN"));
      const head = readHead(raw, maxMetadataBytes);
      if (!head.sound) return turnAway(stream, visitor, fail("METADATA_INVALID"));
      if (!method) return turnAway(stream, visitor, "UNIMPLEMENTED");
      if (method.needsIdentity && !head.identified && !hasCertificate(stream)) return turnAway(stream, visitor, fail("UNAUTHENTICATED"));
      adjust(headers, raw, head);
      grpc.call(server, stream, headers, flags, raw);
      if ((flags & END_STREAM) === 0) arrivals.expect(stream, visitor, method.requestStream);
    });
    server.on("session", (session: ServerHttp2Session) => {
      sessions.add(session);
      session.on("close", () => sessions.delete(session));
    });
  };
  return {
    guard(server) {
      const { http2Servers } = server as unknown as Inside;
      if (!http2Servers || http2Servers.size === 0) throw new Error("grpc-js no longer keeps its HTTP/2 servers where they are looked for");
      for (const inner of http2Servers.keys()) guardOne(inner);
    },
    shut() {
      shut = true;
    },
    cut() {
      for (const session of sessions) session.destroy();
    },
    get connections() {
      return sessions.size;
    },
    renewCertificate({ certificate, key, clientCa }) {
      for (const server of secure) server.setSecureContext({ cert: certificate, key, ...(clientCa === undefined ? {} : { ca: clientCa }) });
    },
    get heldBytes() {
      return arrivals.heldBytes;
    },
  };
}
