import { connect } from "node:net";
import { type CheckIo, type CheckResult, DialError } from "../../src/domain/check.ts";

/** A way out for tests: straight to loopback, with a cap on bytes and a deadline, and a count of what is still open. */
export interface DirectIo extends CheckIo {
  /** Bytes that arrived. */
  received(): number;
  /** Connections that are not destroyed. */
  open(): number;
  /** Ends the time of the test. */
  abort(): void;
}

/** Dials without any guard but a cap. */
export function directIo({ maxBytes = 1024 * 1024, deadlineMs = 8_000 }: { maxBytes?: number; deadlineMs?: number } = {}): DirectIo {
  const controller = new AbortController();
  const signal = AbortSignal.any([controller.signal, AbortSignal.timeout(deadlineMs)]);
  const sockets = new Set<{ destroyed: boolean }>();
  let received = 0;
  return {
    signal,
    received: () => received,
    open: () => [...sockets].filter(({ destroyed }) => !destroyed).length,
    abort: () => controller.abort(),
    secure: () => Promise.reject(new DialError("connection_reset")),
    request: () => Promise.reject(new DialError("address_not_allowed")),
    dial: (host, port) =>
      new Promise((resolve, reject) => {
        const socket = connect({ host: host === "localhost" ? "127.0.0.1" : host, port });
        sockets.add(socket);
        socket.once("error", () => reject(new DialError("connection_refused")));
        socket.on("connect", () => {
          socket.removeAllListeners("error");
          resolve({ stream: socket, authenticated: () => {} });
        });
        // Counted below the reader, as the guard does: a listener of ours would set the stream flowing.
        const push = socket.push.bind(socket);
        socket.push = (chunk: Buffer | null, encoding?: BufferEncoding) => {
          received += chunk?.length ?? 0;
          if (received > maxBytes) {
            socket.destroy(new DialError("too_much_data"));
            return false;
          }
          return push(chunk, encoding);
        };
      }),
  };
}

/** Whether a planted text shows anywhere in a result. */
export const shows = (result: CheckResult, planted: string): boolean => JSON.stringify(result).includes(planted);

const TICK_MS = 20;
const QUIET_TICKS = 8;
const MOST_TICKS = 40;

/**
 * Ends the time of a test once neither side has sent anything for a while, or when one side will not stop. Counted in turns of the event loop, which
 * both sides share here, so that a slow machine changes nothing.
 */
export function abortWhenQuiet(io: DirectIo, server: { heard(): Buffer }): void {
  let [said, quiet, ticks] = [-1, 0, 0];
  const timer = setInterval(() => {
    const now = io.received() + server.heard().length;
    quiet = now === said ? quiet + 1 : 0;
    said = now;
    ticks += 1;
    if (quiet < QUIET_TICKS && ticks < MOST_TICKS) return;
    clearInterval(timer);
    io.abort();
  }, TICK_MS);
}
