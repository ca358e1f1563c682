import type { Probe } from "./probe-process.ts";

/** Starts children ahead of their use. */
export interface Spares {
  /** The child that waits, or a new one where none does. Another is started in its place. */
  take(): Probe;
  /** Kills the one that waits, and starts no more. */
  close(): Promise<void>;
}

/** How long a spare that died unused stays without a successor, ms: one that cannot start must not be started in a circle. */
const RETRY_MS = 1_000;

/** Keeps one spare from now on. `died` hears of each that ended unused. */
export function createSpares(start: () => Probe, died: () => void): Spares {
  let spare: Probe | undefined;
  let later: NodeJS.Timeout | undefined;
  let closed = false;

  const keep = () => {
    if (closed || spare) return;
    const probe = start();
    spare = probe;
    void probe.gone.then(() => {
      if (spare !== probe) return;
      spare = undefined;
      if (closed) return;
      died();
      clearTimeout(later);
      later = setTimeout(keep, RETRY_MS).unref();
    });
  };

  keep();
  return {
    take() {
      const taken = spare ?? start();
      spare = undefined;
      // After the one that was taken has its order: starting a process takes milliseconds.
      setImmediate(keep).unref();
      return taken;
    },
    async close() {
      closed = true;
      clearTimeout(later);
      spare?.kill();
      await spare?.gone;
    },
  };
}
