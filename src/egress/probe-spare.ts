import { availableParallelism } from "node:os";
import type { Probe } from "./probe-process.ts";

/** Starts children ahead of their use. */
export interface Spares {
  /**
   * The child that waits, or where none does a new one, as soon as it may start; undefined where the signal aborts before that. Another is started
   * in its place when nobody waits for one.
   */
  take(signal: AbortSignal): Promise<Probe | undefined>;
  /** Kills the one that waits, and starts no more. */
  close(): Promise<void>;
}

/** How long a spare that died unused stays without a successor, ms: one that cannot start must not be started in a circle. */
const RETRY_MS = 1_000;

/** Children that start at the same time: starting one is mostly work for a processor, and the service needs some of them itself. */
const MAX_STARTING = Math.max(1, Math.floor(availableParallelism() / 2));

/** Keeps one spare from now on. `died` hears of each that ended unused. */
export function createSpares(start: () => Probe, died: () => void, maxStarting = MAX_STARTING): Spares {
  let spare: Probe | undefined;
  let later: NodeJS.Timeout | undefined;
  let closed = false;
  let starting = 0;
  /** Who waits for a child, first come first. */
  const waiting = new Set<(probe: Probe) => void>();

  const mayStart = () => !closed && starting < maxStarting;

  const begin = (): Probe => {
    starting += 1;
    const probe = start();
    void Promise.race([probe.ready, probe.gone]).then(() => {
      starting -= 1;
      startMore();
    });
    return probe;
  };

  const keep = (probe: Probe) => {
    spare = probe;
    void probe.gone.then(() => {
      if (spare !== probe) return;
      spare = undefined;
      if (closed) return;
      died();
      later = setTimeout(() => {
        later = undefined;
        startMore();
      }, RETRY_MS).unref();
    });
  };

  /** Starts what may be started: first for those who wait, and then one spare. */
  const startMore = () => {
    for (const given of waiting) {
      if (!mayStart()) return;
      waiting.delete(given);
      given(begin());
    }
    if (mayStart() && !spare && !later) keep(begin());
  };

  startMore();
  return {
    take(signal) {
      if (spare) {
        const taken = spare;
        spare = undefined;
        // After the one that was taken has its order: starting a process takes milliseconds.
        setImmediate(startMore).unref();
        return Promise.resolve(taken);
      }
      const { promise, resolve } = Promise.withResolvers<Probe | undefined>();
      const given = (probe: Probe) => {
        signal.removeEventListener("abort", leave);
        resolve(probe);
      };
      const leave = () => {
        waiting.delete(given);
        resolve(undefined);
      };
      signal.addEventListener("abort", leave, { once: true });
      waiting.add(given);
      startMore();
      return promise;
    },
    async close() {
      closed = true;
      clearTimeout(later);
      spare?.kill();
      await spare?.gone;
    },
  };
}
