import pino, { type DestinationStream } from "pino";

/** Most log text that waits for a slow reader, bytes; what comes beyond is dropped, so that a blocked pipe costs no memory. */
const MAX_WAITING_BYTES = 16 * 1024 * 1024;

/** How long a line waits for others, so that many are written at once, ms: a write of its own costs more than the rest of a line. */
const GATHER_MS = 50;

/** Lines that wait at most. */
const GATHER_LINES = 256;

/** Where log lines go. */
export interface LogLines extends DestinationStream {
  /** Writes what waits. */
  flush(): void;
}

let shared: LogLines | undefined;

/** Standard error, for every log of the process: lines of a moment are written together. What waits is written before the process ends by itself; one that is killed loses it. */
export const standardError = (): LogLines => (shared ??= gather());

function gather(): LogLines {
  const out = pino.destination({ fd: 2, sync: false, maxLength: MAX_WAITING_BYTES });
  let lines: string[] = [];
  let timer: NodeJS.Timeout | undefined;
  const flush = () => {
    clearTimeout(timer);
    timer = undefined;
    if (lines.length === 0) return;
    const text = lines.join("");
    lines = [];
    out.write(text);
  };
  process.on("exit", () => {
    flush();
    out.flushSync();
  });
  return {
    write(line) {
      lines.push(line);
      if (lines.length >= GATHER_LINES) flush();
      else timer ??= setTimeout(flush, GATHER_MS).unref();
    },
    flush,
  };
}
