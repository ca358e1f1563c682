import { Worker } from "node:worker_threads";
import { fail } from "../domain/errors.ts";
import type { KeyJob, KeyVerdict } from "./key-open.ts";

/** How many keys are opened at once, how many may wait, and how long one may take. */
export interface KeyPoolOptions {
  readonly concurrency: number;
  readonly queue: number;
  /** Milliseconds, counted from when the worker starts. */
  readonly deadlineMs: number;
}

/** Opens a key somewhere else. Throws OVERLOADED where too many wait or it takes too long, INTERNAL where the worker dies. */
export type KeyOpener = (job: KeyJob) => Promise<KeyVerdict>;

/** Memory of one worker, in megabytes; bcrypt needs kilobytes, the modules a few megabytes. */
const RESOURCE_LIMITS = { maxOldGenerationSizeMb: 128, maxYoungGenerationSizeMb: 16, stackSizeMb: 4 };

/** The worker beside this file, which is TypeScript in the source tree and JavaScript in a build. */
const WORKER = new URL(import.meta.url.endsWith(".ts") ? "./key-worker.ts" : "./key-worker.js", import.meta.url);

/**
 * Makes an opener whose work happens in worker threads. Each key has its own, which ends with it: nothing of one secret
 * is left when the next comes, and an idle pool keeps no process alive.
 */
export function createKeyPool({ concurrency, queue, deadlineMs }: KeyPoolOptions): KeyOpener {
  const waiting: (() => void)[] = [];
  let running = 0;
  return async (job) => {
    if (running < concurrency) running += 1;
    else if (waiting.length >= queue) throw fail("OVERLOADED");
    else await new Promise<void>((start) => waiting.push(start));
    try {
      return await openInWorker(job, deadlineMs);
    } finally {
      // The place passes to the next in line; only without one does it become free.
      const next = waiting.shift();
      if (next) next();
      else running -= 1;
    }
  };
}

async function openInWorker(job: KeyJob, deadlineMs: number): Promise<KeyVerdict> {
  const worker = new Worker(WORKER, { workerData: job, env: {}, resourceLimits: RESOURCE_LIMITS });
  const { promise, resolve, reject } = Promise.withResolvers<KeyVerdict>();
  const deadline = setTimeout(() => reject(fail("OVERLOADED")), deadlineMs);
  worker.once("message", resolve);
  worker.once("error", (cause) => reject(fail("INTERNAL", { cause })));
  worker.once("exit", () => reject(fail("INTERNAL")));
  try {
    return await promise;
  } finally {
    clearTimeout(deadline);
    await worker.terminate();
  }
}
