import { write, writeSync } from "node:fs";

/** Room for log text that waits for a slow reader at most, bytes; what does not fit is dropped, so that a blocked pipe costs no memory. */
const MAX_ROOM = 16 * 1024 * 1024;

/** Room for the lines of a moment, bytes. */
const FIRST_ROOM = 128 * 1024;

/** Bytes of a character at most (RFC 3629); those outside the basic plane are two characters of a string. */
const CHARACTER_BYTES = 3;

/** How long a line waits for others, so that many are written at once, ms: a write of its own costs more than the rest of a line. */
const GATHER_MS = 50;

/** Lines that wait at most. */
const GATHER_LINES = 256;

/** Pause before a full pipe is tried again, ms, and how often that is done where the process ends. */
const BUSY_MS = 100;
const LAST_TRIES = 10;

/** Where log lines go. */
export interface LogLines {
  write(line: string): void;
  /** Writes what waits. */
  flush(): void;
}

let shared: LogLines | undefined;

/** Standard error, for every log of the process: lines of a moment are written together. What waits is written before the process ends by itself; one that is killed loses it. */
export const standardError = (): LogLines => (shared ??= gather(2));

const isBusy = (error: unknown): boolean => error instanceof Error && "code" in error && error.code === "EAGAIN";

/** One write at a time. A log that cannot be written, for want of a reader or of room, is lost and ends nothing. */
function gather(fd: number): LogLines {
  // As bytes at once: a string would be copied with every collection of garbage until it is written, piece by piece.
  let waiting: Buffer = Buffer.alloc(0);
  let filled = 0;
  let lines = 0;
  let timer: NodeJS.Timeout | undefined;
  let leaving: Buffer = Buffer.alloc(0);
  let due = false;
  let writing = false;
  let again: NodeJS.Timeout | undefined;
  const pump = () => {
    due = false;
    if (leaving.length === 0) [leaving, waiting, filled] = [waiting.subarray(0, filled), Buffer.alloc(0), 0];
    if (leaving.length === 0) return;
    writing = true;
    write(fd, leaving, (error, written) => {
      writing = false;
      // Not for the sake of a reader who may never come: the end of the process has tries of its own.
      if (isBusy(error)) return void (again = setTimeout(retry, BUSY_MS).unref());
      leaving = error ? Buffer.alloc(0) : leaving.subarray(written);
      if (leaving.length > 0 || due) pump();
    });
  };
  const retry = () => {
    again = undefined;
    pump();
  };
  const flush = () => {
    clearTimeout(timer);
    timer = undefined;
    lines = 0;
    if (writing || again !== undefined) due = true;
    else pump();
  };
  /** Whether there is room for so many bytes more. */
  const makeRoom = (bytes: number): boolean => {
    const needed = filled + bytes;
    if (needed <= waiting.length) return true;
    if (needed > MAX_ROOM) return false;
    const larger = Buffer.allocUnsafeSlow(Math.min(MAX_ROOM, Math.max(needed, FIRST_ROOM, 2 * waiting.length)));
    waiting.copy(larger, 0, 0, filled);
    waiting = larger;
    return true;
  };
  // By now nothing is waited for any more. What is being written, the thread that does it brings to its end, perhaps after this.
  process.on("exit", () => {
    let rest = Buffer.concat([writing ? Buffer.alloc(0) : leaving, waiting.subarray(0, filled)]);
    for (let tries = 0; rest.length > 0 && tries < LAST_TRIES; ) {
      try {
        rest = rest.subarray(writeSync(fd, rest));
        tries = 0;
      } catch (error) {
        if (!isBusy(error)) return;
        tries += 1;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, BUSY_MS);
      }
    }
  });
  return {
    write(line) {
      if (makeRoom(CHARACTER_BYTES * line.length)) filled += waiting.write(line, filled);
      lines += 1;
      if (lines >= GATHER_LINES) flush();
      else timer ??= setTimeout(flush, GATHER_MS).unref();
    },
    flush,
  };
}
