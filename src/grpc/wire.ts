import type { IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import type { TLSSocket } from "node:tls";
import { promisify } from "node:util";
import { gunzip, inflate } from "node:zlib";
import { CredentialError } from "../domain/errors.ts";
import { linger } from "./arrivals.ts";
import { deadlineOf, metadataIn } from "./headers.ts";
import { type OutgoingStatus, plainStatus, TOO_LARGE, toStatus } from "./status.ts";
import type { Running, UnaryRpc } from "./unary.ts";

/**
 * Unary calls on HTTP/2 streams (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md). What the library makes for
 * each call costs as much as everything else that a resolve does, so that calls with one message each way do without it.
 */

/** A call that has come in. */
export interface WireCall {
  readonly stream: ServerHttp2Stream;
  readonly headers: IncomingHttpHeaders;
  /** When it came, on the clock of `performance.now()`, ms. */
  readonly at: number;
}

/** How unary calls are read. */
export interface WireOptions {
  /** Largest request message, bytes, also when it is no longer compressed. */
  readonly maxMessageBytes: number;
  /** The longest deadline granted, ms. */
  readonly deadlineMs: number;
}

/** Bytes ahead of a message: whether it is compressed, and its length. */
const PREFIX_BYTES = 5;

/** A client cancels at its deadline too, by its own clock and a little before ours; that is still the deadline, ms. */
const DEADLINE_SLACK_MS = 100;

/** The code of a stream that is ended for a fault of ours (RFC 9113 section 7). */
const INTERNAL_ERROR = 0x2;

/** How requests may be compressed; answers are not. */
const ACCEPTED = "identity,deflate,gzip";
const ENCODINGS = ["grpc-accept-encoding", ACCEPTED, "grpc-encoding", "identity"] as const;
const DECOMPRESS = { gzip: promisify(gunzip), deflate: promisify(inflate) } as const;

const WITH_TRAILERS = { waitForTrailers: true } as const;
const OK = { "grpc-status": "0", "grpc-message": "OK" } as const;

const NOT_GRPC = plainStatus("UNIMPLEMENTED", "The request is not gRPC");
const NOT_ONE_MESSAGE = plainStatus("UNIMPLEMENTED", "The request is not one message");
const UNKNOWN_ENCODING = plainStatus("UNIMPLEMENTED", "The request is compressed in a way that is not supported");
const NOT_COMPRESSED = plainStatus("INTERNAL", "The request cannot be decompressed");

/** The bytes of a request. A piece is a part of everything that was read from the connection at once, and would keep all of it: it is copied. */
class Received {
  #bytes: Buffer = Buffer.alloc(0);
  #length = 0;

  /** Adds bytes. However small the pieces are, what is kept is at most twice as large as they are together. */
  add(piece: Buffer): void {
    const length = this.#length + piece.length;
    if (length > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(Math.max(length, 2 * this.#length));
      this.#bytes.copy(larger, 0, 0, this.#length);
      this.#bytes = larger;
    }
    piece.copy(this.#bytes, this.#length);
    this.#length = length;
  }

  /** What is wrong with it so far; nothing, as far as is known, where undefined. */
  fault(maxMessageBytes: number): OutgoingStatus | undefined {
    if (this.#length < PREFIX_BYTES) return undefined;
    const bytes = this.#bytes.readUInt32BE(1);
    if (bytes > maxMessageBytes) return TOO_LARGE;
    return this.#length > PREFIX_BYTES + bytes ? NOT_ONE_MESSAGE : undefined;
  }

  /** Whether one message is there. */
  get whole(): boolean {
    return this.#length >= PREFIX_BYTES && this.#length === PREFIX_BYTES + this.#bytes.readUInt32BE(1);
  }

  get compressed(): boolean {
    return this.#bytes[0] !== 0;
  }

  get message(): Buffer {
    return this.#bytes.subarray(PREFIX_BYTES, this.#length);
  }
}

/** The message as it was before it was compressed, or what is wrong with it. Never rejects. */
async function decompressed(message: Buffer, encoding: string | undefined, maxOutputLength: number): Promise<Buffer | OutgoingStatus> {
  if (encoding === undefined || encoding === "identity") return NOT_COMPRESSED;
  if (encoding !== "gzip" && encoding !== "deflate") return UNKNOWN_ENCODING;
  try {
    return await DECOMPRESS[encoding](message, { maxOutputLength });
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE" ? TOO_LARGE : NOT_COMPRESSED;
  }
}

const isGrpc = (headers: IncomingHttpHeaders): boolean => headers["content-type"]?.startsWith("application/grpc") === true;

/** SHA-256 fingerprint of the connection's client certificate, where an authority that is trusted has signed it. */
function fingerprintOf({ session }: ServerHttp2Stream): string | undefined {
  const socket = session?.socket as TLSSocket | undefined;
  return socket?.authorized === true ? socket.getPeerCertificate().fingerprint256 : undefined;
}

/**
 * Reads one unary call and answers it. `refuse` answers a request that is no message of this method: nothing of it is run.
 * A call whose stream ends before its answer is given up.
 */
export function answerUnary(rpc: UnaryRpc, call: WireCall, { maxMessageBytes, deadlineMs }: WireOptions, refuse: (status: OutgoingStatus) => void): void {
  const { stream, headers, at } = call;
  if (!isGrpc(headers)) return refuse(NOT_GRPC);
  const due = at + Math.min(deadlineMs, deadlineOf(headers) ?? deadlineMs);
  let received: Received | undefined = new Received();
  let running: Running | undefined;
  const begin = (request: Buffer): void => {
    const incoming = { metadata: metadataIn(headers), request, certificate: () => fingerprintOf(stream), deadlineMs: Math.max(1, due - performance.now()) };
    running = rpc.begin(incoming, (outcome, requestId) => {
      try {
        if (outcome instanceof CredentialError) sendStatus(stream, headers, requestId, toStatus(outcome));
        else sendMessage(stream, requestId, outcome);
      } catch {
        // Whatever Node finds wrong with an answer concerns this call alone.
        stream.close(INTERNAL_ERROR);
      }
    });
  };
  stream.on("error", ignore);
  stream.on("data", (piece: Buffer) => {
    received?.add(piece);
    const fault = received?.fault(maxMessageBytes);
    if (fault === undefined) return;
    received = undefined;
    refuse(fault);
  });
  stream.once("end", () => {
    const request = received;
    received = undefined;
    if (!request?.whole) return refuse(NOT_ONE_MESSAGE);
    if (!request.compressed) return begin(request.message);
    void decompressed(request.message, headers["grpc-encoding"]?.toString(), maxMessageBytes).then((message) => {
      if (stream.closed || stream.destroyed) return;
      if (Buffer.isBuffer(message)) begin(message);
      else refuse(message);
    });
  });
  stream.once("close", () => {
    running?.giveUp(performance.now() >= due - DEADLINE_SLACK_MS ? "DEADLINE_EXCEEDED" : "CANCELLED");
    // The stream outlives the call until garbage is collected in full, and would keep all of it.
    [received, running] = [undefined, undefined];
    stream.removeAllListeners();
    stream.on("error", ignore);
  });
}

function ignore(): void {}

function sendOk(this: ServerHttp2Stream): void {
  this.sendTrailers(OK);
}

/** Answers with a message. */
function sendMessage(stream: ServerHttp2Stream, requestId: string, message: Buffer): void {
  if (stream.closed || stream.destroyed) return;
  const framed = Buffer.allocUnsafe(PREFIX_BYTES + message.length);
  framed[0] = 0;
  framed.writeUInt32BE(message.length, 1);
  framed.set(message, PREFIX_BYTES);
  stream.respond([":status", "200", "content-type", "application/grpc+proto", ...ENCODINGS, "x-request-id", requestId], WITH_TRAILERS);
  stream.once("wantTrailers", sendOk);
  stream.end(framed);
}

/** Answers with a status and its details; what is not gRPC learns only that. */
export function sendStatus(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, requestId: string, { code, details, metadata }: OutgoingStatus): void {
  if (stream.closed || stream.destroyed) return;
  if (isGrpc(headers)) {
    const trailers = { "grpc-status": String(code), "grpc-message": encodeURI(details), ...metadata.toHttp2Headers() };
    stream.respond({ ":status": 200, "content-type": "application/grpc+proto", "grpc-accept-encoding": ACCEPTED, "x-request-id": requestId }, WITH_TRAILERS);
    stream.once("wantTrailers", () => stream.sendTrailers(trailers));
    stream.end();
  } else {
    stream.respond({ ":status": 415 }, { endStream: true });
  }
  if (!stream.readableEnded) linger(stream);
}
