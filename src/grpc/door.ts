import type { Http2SecureServer, Http2Server, IncomingHttpHeaders, ServerHttp2Session, ServerHttp2Stream } from "node:http2";
import type { Server } from "@grpc/grpc-js";
import { type CredentialError, fail, REASONS } from "../domain/errors.ts";
import { newRequestId } from "../log.ts";
import type { GrpcDeps } from "./deps.ts";
import { toStatus } from "./status.ts";

/**
 * The HTTP/2 servers inside a gRPC server. grpc-js has no public way to them, and none to what only they know: the size
 * of a header list, headers that are repeated (of two `authorization` it would see the first) and their sessions.
 */
interface Inside {
  readonly http2Servers?: ReadonlyMap<Http2Server | Http2SecureServer, unknown>;
}

type StreamListener = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, flags: number, raw: string[]) => void;

/** Headers whose values are told apart where they are repeated. */
const SEPARATE = ["authorization", "x-api-key", "x-request-id", "x-flow-id", "x-run-id", "x-rest-faults-bin"];

/** Longest delay of a Node timer, ms; a longer deadline is as good as none. */
const MAX_TIMER_MS = 2 ** 31 - 1;
const UNIT_MS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 0.001, n: 0.000_001 };

/** What stands before the gRPC server and sees every call first. */
export interface Door {
  /** Stands before everything the server listens on by now; no call comes between listening and this, if it follows at once. */
  guard(server: Server): void;
  /** From now on new calls are UNAVAILABLE. */
  shut(): void;
  /** Cuts every connection, whatever is under way on it. */
  cut(): void;
}

type Pairs = readonly (readonly [name: string, value: string])[];

function pairsOf(raw: readonly string[]): Pairs {
  const pairs: [string, string][] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) pairs.push([raw[i] as string, raw[i + 1] as string]);
  return pairs;
}

/** Size of a header list as RFC 9113 section 6.5.2 counts it: names, values, and 32 bytes for each pair. */
const sizeOf = (pairs: Pairs): number => pairs.reduce((size, [name, value]) => size + name.length + value.length + 32, 0);

/** The deadline of a `grpc-timeout` header in ms; undefined where it is malformed. */
function timeoutMs(text: string): number | undefined {
  const [, digits, unit] = /^(\d{1,8})([HMSmun])$/.exec(text) ?? [];
  return digits === undefined || unit === undefined ? undefined : Number(digits) * (UNIT_MS[unit] as number);
}

/** What is wrong with a call's headers; undefined where nothing is. */
function headerFault(pairs: Pairs, maxBytes: number): CredentialError | undefined {
  const timeouts = pairs.filter(([name]) => name === "grpc-timeout");
  const sound =
    sizeOf(pairs) <= maxBytes &&
    pairs.every(([, value]) => /^[\x20-\x7e]*$/.test(value)) &&
    timeouts.length <= 1 &&
    timeouts.every(([, value]) => timeoutMs(value) !== undefined);
  return sound ? undefined : fail("METADATA_INVALID");
}

/** The headers as grpc-js is to see them: repeated ones apart, and no deadline that its timer would take for a past one. */
function adjust(headers: IncomingHttpHeaders, pairs: Pairs): void {
  for (const name of SEPARATE) {
    const values = pairs.filter(([key]) => key === name).map(([, value]) => value);
    if (values.length > 1) Object.assign(headers, { [name]: values });
  }
  const timeout = headers["grpc-timeout"];
  if (typeof timeout === "string" && (timeoutMs(timeout) ?? 0) > MAX_TIMER_MS) delete headers["grpc-timeout"];
}

function refuse(stream: ServerHttp2Stream, error: CredentialError, requestId: string): void {
  const { code, details, metadata } = toStatus(error);
  stream.on("error", () => stream.destroy());
  stream.respond(
    {
      ":status": 200,
      "content-type": "application/grpc+proto",
      "x-request-id": requestId,
      "grpc-status": String(code),
      "grpc-message": encodeURI(details),
      ...metadata.toHttp2Headers(),
    },
    { endStream: true },
  );
  // Reads what the client still sends, so that the stream can end.
  stream.resume();
}

/** Makes the door of one server. Nothing has been authenticated before it, so a refusal here is a log line and no audit record. */
export function createDoor({ log, metrics }: Pick<GrpcDeps, "log" | "metrics">, maxMetadataBytes: number): Door {
  const guarded = new WeakSet<object>();
  const sessions = new Set<ServerHttp2Session>();
  let shut = false;
  const turnAway = (stream: ServerHttp2Stream, error: CredentialError) => {
    const requestId = newRequestId();
    const code = REASONS[error.reason].grpc;
    refuse(stream, error, requestId);
    log.info({ request_id: requestId, code, reason: error.reason }, "call turned away");
    metrics.observe({ method: "none", code, seconds: 0 });
  };
  const guardOne = (server: Http2Server | Http2SecureServer) => {
    if (guarded.has(server)) return;
    guarded.add(server);
    const [grpc, ...others] = server.listeners("stream") as StreamListener[];
    if (!grpc || others.length > 0) throw new Error("grpc-js no longer listens to streams in one place");
    server.removeAllListeners("stream");
    server.on("stream", (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, flags: number, raw: string[]) => {
      const pairs = pairsOf(raw);
      const error = shut ? fail("SHUTTING_DOWN") : headerFault(pairs, maxMetadataBytes);
      if (error) return turnAway(stream, error);
      adjust(headers, pairs);
      grpc.call(server, stream, headers, flags, raw);
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
  };
}
