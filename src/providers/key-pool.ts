import { Worker } from "node:worker_threads";
import { fail } from "../domain/errors.ts";
import type { KeyJob, KeyVerdict } from "./key-open.ts";

/** On whose behalf a key is opened, and for how long that is wanted. */
export interface KeyTurn {
  /** Who takes turns with others; the id of an organization. */
  readonly fairness: string;
  /** Aborts when nobody waits for the verdict any longer. */
  readonly signal: AbortSignal;
}

/** How many keys are opened at once, how many may wait, and how long one may take. */
export interface KeyPoolOptions {
  /** Keys that are opened at once, in all and for one organization. */
  readonly running: { readonly all: number; readonly each: number };
  /** Keys that may wait, in all and for one organization. */
  readonly waiting: { readonly all: number; readonly each: number };
  /** Milliseconds, counted from when the worker starts. */
  readonly deadlineMs: number;
  /** Opens one key; in a worker of its own unless given. */
  readonly open?: (job: KeyJob, signal: AbortSignal, deadlineMs: number) => Promise<KeyVerdict>;
}

/**
 * Opens a key somewhere else. Throws OVERLOADED where too many wait or it takes too long, INTERNAL where the worker dies,
 * and the signal's reason where that aborts.
 */
export type KeyOpener = (job: KeyJob, turn: KeyTurn) => Promise<KeyVerdict>;

/** Memory of one worker, in megabytes; bcrypt needs kilobytes, the modules a few megabytes. */
const RESOURCE_LIMITS = { maxOldGenerationSizeMb: 128, maxYoungGenerationSizeMb: 16, stackSizeMb: 4 };

/** The worker beside this file, which is TypeScript in the source tree and JavaScript in a build. */
const WORKER = new URL(import.meta.url.endsWith(".ts") ? "./key-worker.ts" : "./key-worker.js", import.meta.url);

/** One organization's keys: how many are being opened, and what starts the next. */
interface Line {
  running: number;
  readonly waiting: Set<() => void>;
}

/**
 * Makes an opener whose work happens in worker threads. Each key has its own, which ends with it: nothing of one secret
 * is left when the next comes, and an idle pool keeps no process alive. Organizations take turns, and none can take
 * every place: a key may cost seconds of work, and whoever posts it decides how many.
 */
export function createKeyPool({ running, waiting, deadlineMs, open = openInWorker }: KeyPoolOptions): KeyOpener {
  // In the order in which their turns come.
  const lines = new Map<string, Line>();
  let busy = 0;
  let queued = 0;

  const leave = (fairness: string, line: Line, start: () => void): void => {
    if (!line.waiting.delete(start)) return;
    queued -= 1;
    if (line.running === 0 && line.waiting.size === 0) lines.delete(fairness);
  };
  const startNext = (): void => {
    for (const [fairness, line] of lines) {
      const [start] = line.waiting;
      if (busy >= running.all) return;
      if (start === undefined || line.running >= running.each) continue;
      line.running += 1;
      busy += 1;
      leave(fairness, line, start);
      return start();
    }
  };
  const takePlace = async (fairness: string, line: Line, signal: AbortSignal): Promise<void> => {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const giveUp = (): void => {
      leave(fairness, line, resolve);
      reject(signal.reason as Error);
    };
    line.waiting.add(resolve);
    queued += 1;
    signal.addEventListener("abort", giveUp, { once: true });
    startNext();
    try {
      await promise;
    } finally {
      signal.removeEventListener("abort", giveUp);
    }
  };

  return async (job, { fairness, signal }) => {
    signal.throwIfAborted();
    const own = lines.get(fairness);
    const free = busy < running.all && (own?.running ?? 0) < running.each;
    if (!free && ((own?.waiting.size ?? 0) >= waiting.each || queued >= waiting.all)) throw fail("OVERLOADED");
    const line = own ?? { running: 0, waiting: new Set() };
    lines.set(fairness, line);
    await takePlace(fairness, line, signal);
    try {
      signal.throwIfAborted();
      return await open(job, signal, deadlineMs);
    } finally {
      line.running -= 1;
      busy -= 1;
      // To the end, where anything is left: the next turn is another's.
      lines.delete(fairness);
      if (line.running > 0 || line.waiting.size > 0) lines.set(fairness, line);
      startNext();
    }
  };
}

async function openInWorker(job: KeyJob, signal: AbortSignal, deadlineMs: number): Promise<KeyVerdict> {
  const worker = new Worker(WORKER, { workerData: job, env: {}, resourceLimits: RESOURCE_LIMITS });
  const { promise, resolve, reject } = Promise.withResolvers<KeyVerdict>();
  const deadline = setTimeout(() => reject(fail("OVERLOADED")), deadlineMs);
  const giveUp = (): void => reject(signal.reason as Error);
  signal.addEventListener("abort", giveUp, { once: true });
  worker.once("message", resolve);
  worker.once("error", (cause) => reject(fail("INTERNAL", { cause })));
  worker.once("exit", () => reject(fail("INTERNAL")));
  try {
    return await promise;
  } finally {
    clearTimeout(deadline);
    signal.removeEventListener("abort", giveUp);
    await worker.terminate();
  }
}
