import type { Http2SecureServer, Http2Server, Http2Session, IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import { type Server, status as codes } from "@grpc/grpc-js";
import { CredentialError, fail, REASONS } from "../domain/errors.ts";
import { beginSpan, within } from "../trace.ts";
import { createArrivals, MAX_UNFINISHED_BYTES } from "./arrivals.ts";
import type { GrpcDeps } from "./deps.ts";
import { adjust, deadlineOf, readHead, requestIdIn } from "./headers.ts";
import { type OutgoingStatus, toStatus, UNKNOWN_METHOD } from "./status.ts";
import type { UnaryRpc } from "./unary.ts";
import { answerUnary, sendStatus, type WireCall } from "./wire.ts";

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

/** How long a connection may stay open without a call unless told otherwise, ms. */
const MAX_IDLE_MS = 300_000;

/** The flag of a request that ends with its headers, and the code of a stream that is no longer wanted (RFC 9113 sections 6.2 and 7). */
const END_STREAM = 0x1;
const CANCEL = 0x8;

/** What the door knows of a method. */
export interface Method {
  /** Whether a call that presents no identity is refused before its request is read. */
  readonly needsIdentity: boolean;
  /** Whether its request is a stream of messages. */
  readonly requestStream: boolean;
  /** What answers it, where it is one of ours with one message each way; grpc-js otherwise. */
  readonly rpc?: UnaryRpc | undefined;
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
  /** Largest request message of a unary call, bytes. */
  readonly maxMessageBytes: number;
  /** How long a request may take to arrive, and the longest deadline of a unary call, ms. */
  readonly deadlineMs: number;
  /** Most bytes that requests may hold which have not ended; {@link MAX_UNFINISHED_BYTES} unless given. */
  readonly maxUnfinishedBytes?: number;
  /** Connections at once on one address; {@link MAX_CONNECTIONS} unless given. */
  readonly maxConnections?: number;
  /** How long a connection may stay open without a call, ms; five minutes unless given. */
  readonly maxIdleMs?: number;
}

/** A call that has come to the door. */
interface Visitor extends WireCall {
  /** The method's path; `none` for one that is not known, because what is asked for may be anything. */
  readonly method: string;
}

/** What is known of a connection. */
class Connection {
  #calls = 0;
  #quietSince = performance.now();

  /** Counts a call until its stream closes. */
  readonly take = (stream: ServerHttp2Stream): void => {
    this.#calls += 1;
    stream.once("close", this.#left);
  };

  readonly #left = (): void => {
    this.#calls -= 1;
    this.#quietSince = performance.now();
  };

  /** How long it has had no call, ms. */
  get idleMs(): number {
    return this.#calls > 0 ? 0 : performance.now() - this.#quietSince;
  }
}

/** Answers a call in the form in which the adapter does, whoever has begun to read its request: nobody is told its end, which would run the call. */
function answer({ stream, headers }: Visitor, requestId: string, status: OutgoingStatus): void {
  if (stream.destroyed || stream.closed) return;
  stream.removeAllListeners("data").removeAllListeners("end");
  if (stream.headersSent) return stream.close(CANCEL);
  stream.on("error", () => stream.destroy());
  sendStatus(stream, headers, requestId, status);
  // Whoever has the stream as well would answer at a deadline of its own, and a second answer throws.
  stream.respond = () => {};
}

/** Whether the connection shows a client certificate of a trusted authority, which may be an identity. */
function hasCertificate({ session }: ServerHttp2Stream): boolean {
  // A proxy, which does not tell what is in it.
  const socket = session?.socket as ({ readonly authorized?: unknown } & object) | undefined;
  return socket?.authorized === true;
}

/** Makes the door of one server. Nothing has been authenticated before it, so a refusal here is a log line and no audit record. */
export function createDoor({ log, metrics }: Pick<GrpcDeps, "log" | "metrics">, options: DoorOptions): Door {
  const { methods, maxMetadataBytes, deadlineMs, maxUnfinishedBytes = MAX_UNFINISHED_BYTES, maxIdleMs = MAX_IDLE_MS } = options;
  const guarded = new WeakSet<object>();
  const secure: Http2SecureServer[] = [];
  const sessions = new Map<Http2Session, Connection>();
  let sweeping: NodeJS.Timeout | undefined;
  const sweep = () => {
    for (const [session, { idleMs }] of sessions) if (idleMs >= maxIdleMs) session.close();
  };
  let shut = false;
  const turnAway = (visitor: Visitor, error: CredentialError | OutgoingStatus): void => {
    const { method, headers, at } = visitor;
    const known = error instanceof CredentialError ? error : undefined;
    const status = error instanceof CredentialError ? toStatus(error) : error;
    const code = known ? REASONS[known.reason].grpc : (codes[status.code] as string);
    const requestId = requestIdIn(headers);
    const seconds = (performance.now() - at) / 1000;
    const span = beginSpan(method === "none" ? "unknown method" : method.slice(1), "server", [headers["traceparent"] ?? []].flat());
    answer(visitor, requestId, status);
    within(span, () => log.info({ request_id: requestId, method, code, reason: known?.reason, duration_ms: Math.round(seconds * 1_000_000) / 1000 }, "call"));
    span?.end({ "rpc.system": "grpc", "rpc.grpc.status_code": status.code, "flow.request_id": requestId, "error.type": known?.reason ?? code });
    metrics.observe({ method, code, seconds, reason: known?.reason });
  };
  const arrivals = createArrivals<Visitor>({
    deadlineMs,
    maxBytes: maxUnfinishedBytes,
    refuse: (visitor, reason) => turnAway(visitor, fail(reason)),
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
      const visitor = { stream, headers, method: method ? path : "none", at: performance.now() };
      if (stream.session) sessions.get(stream.session)?.take(stream);
      if (shut) return turnAway(visitor, fail("SHUTTING_DOWN"));
      const head = readHead(raw, maxMetadataBytes);
      if (!head.sound) return turnAway(visitor, fail("METADATA_INVALID"));
      if (!method) return turnAway(visitor, UNKNOWN_METHOD);
      if (method.needsIdentity && !head.identified && !hasCertificate(stream)) return turnAway(visitor, fail("UNAUTHENTICATED"));
      adjust(headers, raw, head);
      if (method.rpc) answerUnary(method.rpc, visitor, options, (status) => turnAway(visitor, status));
      else grpc.call(server, stream, headers, flags, raw);
      // grpc-js keeps the deadlines of the calls that it has.
      if ((flags & END_STREAM) === 0) arrivals.expect(visitor, method.requestStream, method.rpc && deadlineOf(headers));
    });
    server.on("session", (session: Http2Session) => {
      sessions.set(session, new Connection());
      session.on("close", () => sessions.delete(session));
    });
  };
  return {
    guard(server) {
      const { http2Servers } = server as unknown as Inside;
      if (!http2Servers || http2Servers.size === 0) throw new Error("grpc-js no longer keeps its HTTP/2 servers where they are looked for");
      for (const inner of http2Servers.keys()) guardOne(inner);
      sweeping ??= setInterval(sweep, maxIdleMs / 10).unref();
    },
    shut() {
      shut = true;
      clearInterval(sweeping);
    },
    cut() {
      for (const session of sessions.keys()) session.destroy();
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
