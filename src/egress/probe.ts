import type { CheckResult } from "../domain/check.ts";
import { fail } from "../domain/errors.ts";
import type { Log } from "../log.ts";
import { createAddressPolicy } from "./policy.ts";
import { DEADLINE_EXCEEDED, TEST_FAILED } from "./probe-answer.ts";
import { createProbeStarter, type Probe, PROBE_ENTRY } from "./probe-process.ts";
import { createSpares } from "./probe-spare.ts";
import { type ProbeEgress, type ProbeTask, sharedClockMs } from "./probe-task.ts";

export type { ProbeEgress, ProbeTask } from "./probe-task.ts";

/** Bounds of the tests, and where they may go. */
export interface ProberOptions {
  /** Tests of one organization at a time. */
  readonly maxPerOrganization?: number;
  /** Tests at a time. */
  readonly maxTotal?: number;
  /** Time from the call to the result, ms. */
  readonly deadlineMs?: number;
  /** Memory of one test. Watched on Linux; elsewhere only V8's heap is bounded, to half of it. Node and the drivers alone need about 110. */
  readonly memoryMegabytes?: number;
  readonly egress: ProbeEgress;
  readonly log: Log;
  /** The file that the children run; tests give another. */
  readonly entry?: URL;
}

/** Runs connection tests, each in a process of its own. */
export interface Prober {
  /**
   * Tries a secret. Whatever becomes of the test, there is a result. Throws OVERLOADED at once where a bound is reached, CANCELLED when the signal
   * is aborted, SHUTTING_DOWN once `close` was called. When it settles, the test's process is gone.
   */
  run(task: ProbeTask, call: { readonly organizationId: string; readonly signal: AbortSignal }): Promise<CheckResult>;
  /** Ends every test and the spare process, and waits until they are gone. */
  close(): Promise<void>;
}

const MAX_PER_ORGANIZATION = 2;
const MAX_TOTAL = 16;
const DEADLINE_MS = 10_000;
const MEMORY_MEGABYTES = 256;
const BYTES_PER_MEGABYTE = 1_048_576;
/** How often a test's memory is looked at, ms. */
const MEMORY_WATCH_MS = 100;
/** Time that is kept for the answer, ms: a test that runs out of time can still say where. */
const ANSWER_MS = 250;

/** How a test ended: with an answer, or without. */
type End = CheckResult | "crashed" | "garbage" | "memory" | "deadline" | "cancelled" | "stopped";

/** A prober; its spare process starts now. Throws `EgressSetupError` for rules that cannot be honoured. */
export function createProber(options: ProberOptions): Prober {
  const { egress, log, entry = PROBE_ENTRY, deadlineMs = DEADLINE_MS, memoryMegabytes = MEMORY_MEGABYTES } = options;
  const { maxPerOrganization = MAX_PER_ORGANIZATION, maxTotal = MAX_TOTAL } = options;
  createAddressPolicy(egress);
  const spares = createSpares(
    createProbeStarter(entry, memoryMegabytes),
    () => log.warn({}, "the spare process for connection tests died"),
  );
  const perOrganization = new Map<string, number>();
  const running = new Set<Promise<void>>();
  const closing = new AbortController();

  const run: Prober["run"] = async (task, { organizationId, signal }) => {
    if (closing.signal.aborted) throw fail("SHUTTING_DOWN");
    if (signal.aborted) throw fail("CANCELLED");
    const mine = perOrganization.get(organizationId) ?? 0;
    if (mine >= maxPerOrganization || running.size >= maxTotal) throw fail("OVERLOADED");
    perOrganization.set(organizationId, mine + 1);
    const { promise: over, resolve: finished } = Promise.withResolvers<void>();
    running.add(over);
    const begun = performance.now();
    try {
      const probe = spares.take();
      const end = await watched(probe, {
        answer: probe.ask({ task, egress, endsAt: sharedClockMs() + deadlineMs - ANSWER_MS }),
        deadlineMs,
        maxBytes: memoryMegabytes * BYTES_PER_MEGABYTE,
        cancelled: signal,
        stopped: closing.signal,
      });
      probe.kill();
      await probe.gone;
      if (typeof end !== "string") return end;
      if (end === "cancelled") throw fail("CANCELLED");
      if (end === "stopped") throw fail("SHUTTING_DOWN");
      log.warn({ organization_id: organizationId, reason: end, duration_ms: Math.round(performance.now() - begun) }, "a connection test was ended");
      return end === "deadline" ? DEADLINE_EXCEEDED : TEST_FAILED;
    } finally {
      const left = (perOrganization.get(organizationId) ?? 1) - 1;
      if (left > 0) perOrganization.set(organizationId, left);
      else perOrganization.delete(organizationId);
      running.delete(over);
      finished();
    }
  };

  return {
    run,
    async close() {
      closing.abort();
      await Promise.all([spares.close(), ...running]);
    },
  };
}

/** What ends a test besides itself. */
interface Bounds {
  readonly answer: Promise<CheckResult | undefined>;
  readonly deadlineMs: number;
  readonly maxBytes: number;
  readonly cancelled: AbortSignal;
  readonly stopped: AbortSignal;
}

/** Waits for the first end of a test. */
async function watched(probe: Probe, { answer, deadlineMs, maxBytes, cancelled, stopped }: Bounds): Promise<End> {
  const { promise, resolve } = Promise.withResolvers<End>();
  const cancel = () => resolve("cancelled");
  const stop = () => resolve("stopped");
  void answer.then((result) => resolve(result ?? "garbage"));
  void probe.gone.then(() => resolve("crashed"));
  const deadline = setTimeout(() => resolve("deadline"), deadlineMs);
  const memory = setInterval(() => {
    if ((probe.memory() ?? 0) > maxBytes) resolve("memory");
  }, MEMORY_WATCH_MS);
  cancelled.addEventListener("abort", cancel);
  stopped.addEventListener("abort", stop);
  try {
    return await promise;
  } finally {
    clearTimeout(deadline);
    clearInterval(memory);
    cancelled.removeEventListener("abort", cancel);
    stopped.removeEventListener("abort", stop);
  }
}
