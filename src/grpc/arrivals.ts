import type { ServerHttp2Stream } from "node:http2";

/**
 * Most bytes that requests which have not ended may hold, over all connections. Nobody has been authenticated by then:
 * it bounds what strangers can make the process keep.
 */
export const MAX_UNFINISHED_BYTES = 64 * 1024 * 1024;

/** What a request counts for before its first byte, bytes: about what Node and grpc-js keep for an open stream. */
export const STREAM_BYTES = 8 * 1024;

/** How long a client may go on sending after its answer, ms. */
const LINGER_MS = 1_000;

/**
 * Ends a stream that has been answered, whether or not its client goes on sending (RFC 9113 section 8.1). Not at once:
 * a reset would overtake an answer that waits to be sent.
 */
export function linger(stream: ServerHttp2Stream): void {
  const timer = setTimeout(() => stream.close(), LINGER_MS);
  stream.once("close", () => clearTimeout(timer));
  stream.resume();
}

/** Why a request is not waited for any longer. */
export type Unfinished = "DEADLINE_EXCEEDED" | "OVERLOADED";

/** A call that may be on its way in. */
interface Coming {
  readonly stream: ServerHttp2Stream;
}

/** Requests on their way in: those whose last byte has not come. */
export interface Arrivals<Call extends Coming> {
  /**
   * Waits for the end of a request, after the one who reads it has begun to listen. It is given up at the deadline, or
   * where requests hold too much and it is the one that takes longest: a slow sender has to go before a quick one.
   *
   * @param conversation whether the request is a sequence of messages with answers between them; its deadline is that
   * of the first bytes, and it counts until it ends
   * @param deadlineMs its own deadline, ms, where that is the earlier one
   */
  expect(call: Call, conversation: boolean, deadlineMs?: number): void;
  /** Bytes that are held now. */
  readonly heldBytes: number;
}

interface Arrival<Call extends Coming> {
  readonly call: Call;
  readonly deadlineMs: number;
  bytes: number;
  timer: NodeJS.Timeout | undefined;
}

function forgetEnd(this: ServerHttp2Stream): void {
  this.removeAllListeners("end").resume();
}

/** Begins with nothing on its way. */
export function createArrivals<Call extends Coming>(options: {
  /** How long a request may take to end, ms. */
  readonly deadlineMs: number;
  readonly maxBytes: number;
  /** Ends a request that is given up. */
  readonly refuse: (call: Call, reason: Unfinished) => void;
}): Arrivals<Call> {
  const { deadlineMs, maxBytes, refuse } = options;
  // In the order of their beginning.
  const arriving = new Set<Arrival<Call>>();
  let held = 0;
  const leave = (arrival: Arrival<Call>): boolean => {
    if (!arriving.delete(arrival)) return false;
    held -= arrival.bytes;
    return true;
  };
  const giveUp = (arrival: Arrival<Call>, reason: Unfinished): void => {
    if (leave(arrival)) refuse(arrival.call, reason);
  };
  const count = (arrival: Arrival<Call>, bytes: number): void => {
    arrival.bytes += bytes;
    held += bytes;
    if (held <= maxBytes) return;
    for (const oldest of arriving) {
      giveUp(oldest, "OVERLOADED");
      if (held <= maxBytes) return;
    }
  };
  const follow = (arrival: Arrival<Call>): void => {
    const timer = setTimeout(giveUp, arrival.deadlineMs, arrival, "DEADLINE_EXCEEDED");
    arrival.timer = timer;
    const ended = (): void => {
      clearTimeout(timer);
      leave(arrival);
    };
    arrival.call.stream.once("end", ended).once("close", ended);
    arriving.add(arrival);
    const { bytes } = arrival;
    arrival.bytes = 0;
    count(arrival, bytes + STREAM_BYTES);
  };
  const hear = (arrival: Arrival<Call>, conversation: boolean, bytes: number): void => {
    if (!arriving.has(arrival)) {
      arrival.bytes += bytes;
      return;
    }
    if (conversation) clearTimeout(arrival.timer);
    if (!arrival.call.stream.writableEnded) return count(arrival, bytes);
    clearTimeout(arrival.timer);
    leave(arrival);
    linger(arrival.call.stream);
  };
  let begun: Arrival<Call>[] = [];
  const followUnfinished = (): void => {
    const arrivals = begun;
    begun = [];
    for (const arrival of arrivals) {
      const { stream } = arrival.call;
      // One that was answered meanwhile lingers, and is nobody's any more.
      if (!stream.readableEnded && !stream.writableEnded && !stream.closed && !stream.destroyed) follow(arrival);
    }
  };
  return {
    expect(call, conversation, own = deadlineMs) {
      const { stream } = call;
      const arrival: Arrival<Call> = { call, deadlineMs: Math.min(deadlineMs, own), bytes: 0, timer: undefined };
      stream.on("data", (chunk: Buffer) => hear(arrival, conversation, chunk.length));
      if (conversation) return follow(arrival);
      // Node ends what was broken off as if it were complete, and grpc-js would run it.
      stream.once("aborted", forgetEnd);
      // Most requests come whole, in one piece with their headers: only what has not ended by the end of this turn is followed.
      if (begun.push(arrival) === 1) setImmediate(followUnfinished);
    },
    get heldBytes() {
      return held;
    },
  };
}
