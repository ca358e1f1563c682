import type { CheckResult, Findings } from "../domain/check.ts";
import { fail } from "../domain/errors.ts";
import type { Log } from "../log.ts";
import { createAddressPolicy } from "./policy.ts";
import { DEADLINE_EXCEEDED, TEST_FAILED } from "./probe-answer.ts";
import { createProbeStarter, type Probe, PROBE_ENTRY } from "./probe-process.ts";
import { createRates } from "./probe-rate.ts";
import { createSpares } from "./probe-spare.ts";
import { type ProbeEgress, type ProbeOrder, type ProbeTask, sharedClockMs } from "./probe-task.ts";

export type { ProbeEgress, ProbeTask } from "./probe-task.ts";

/** Bounds of the tests, and where they may go. */
export interface ProberOptions {
  /** Tests of one organization at a time. */
  readonly maxPerOrganization?: number;
  /** Tests that an organization may save up. */
  readonly burst?: number;
  /** Time in which an organization may run one more, ms. */
  readonly refillMs?: number;
  /** Tests at a time. */
  readonly maxTotal?: number;
  /** Time from the call to the result, ms; waiting for a process to start is part of it. */
  readonly deadlineMs?: number;
  /** Memory of one test. Watched on Linux; elsewhere only V8's heap is bounded, to half of it. Node and the drivers alone need about 110. */
  readonly memoryMegabytes?: number;
  readonly egress: ProbeEgress;
  /** What tests can find; an answer that is not among it counts as none. */
  readonly findings: Findings;
  readonly log: Log;
  /** The file that the children run; tests give another. */
  readonly entry?: URL;
  /** The monotonic clock of `refillMs`, ms; tests give another. */
  readonly now?: () => number;
}

/** The right to run one test. Disposing of it ends the right, and where no test was run, the organization has lost nothing. */
export interface Slot extends Disposable {
  /**
   * Tries a secret, once. Whatever becomes of the test, there is a result. Throws CANCELLED when the signal is aborted, SHUTTING_DOWN once `close` was
   * called, OVERLOADED where no process was ready for it in time. When it settles, the test's process is gone.
   */
  run(task: ProbeTask, signal: AbortSignal): Promise<CheckResult>;
}

/** On whose behalf a test runs. */
interface ProbeCaller {
  readonly organizationId: string;
  /** The call that asked for it, as the log names it. */
  readonly requestId?: string | undefined;
  readonly signal: AbortSignal;
}

/** Runs connection tests, each in a process of its own. */
export interface Prober {
  /** Throws TEST_LIMIT_REACHED at once where a bound is reached, SHUTTING_DOWN once `close` was called. */
  reserve(organizationId: string, requestId?: string): Slot;
  /** Reserves a slot and runs one test in it; throws what either throws. */
  run(task: ProbeTask, call: ProbeCaller): Promise<CheckResult>;
  /** How many tests run, and how many may. */
  readonly load: { readonly running: number; readonly most: number };
  /** Ends every test and the spare process, and waits until they are gone. */
  close(): Promise<void>;
}

const MAX_PER_ORGANIZATION = 2;
const BURST = 30;
const REFILL_MS = 2_000;
const MAX_TOTAL = 16;
const DEADLINE_MS = 10_000;
const MEMORY_MEGABYTES = 256;
const BYTES_PER_MEGABYTE = 1_048_576;
/** How often a test's memory is looked at, ms. */
const MEMORY_WATCH_MS = 100;
/** Time that is kept for the answer, ms: a test that runs out of time can still say where. */
const ANSWER_MS = 500;

/** What ends a test besides itself. */
type Cut = "deadline" | "cancelled" | "stopped";
/** How a test ended: with an answer, or without. `unready`: its time was over before its process was ready. */
type End = CheckResult | Cut | "unready" | "crashed" | "garbage" | "memory";

/** A prober; its spare process starts now. Throws `EgressSetupError` for rules that cannot be honoured. */
export function createProber(options: ProberOptions): Prober {
  const { egress, log, entry = PROBE_ENTRY, deadlineMs = DEADLINE_MS, memoryMegabytes = MEMORY_MEGABYTES } = options;
  const { maxPerOrganization = MAX_PER_ORGANIZATION, maxTotal = MAX_TOTAL } = options;
  createAddressPolicy(egress);
  const spares = createSpares(
    createProbeStarter(entry, memoryMegabytes, options.findings),
    () => log.warn({}, "the spare process for connection tests died"),
  );
  const rates = createRates({ burst: options.burst ?? BURST, refillMs: options.refillMs ?? REFILL_MS, now: options.now ?? (() => performance.now()) });
  const perOrganization = new Map<string, number>();
  let reserved = 0;
  const running = new Set<Promise<unknown>>();
  const closing = new AbortController();

  const tried = async (task: ProbeTask, { organizationId, requestId }: Pick<ProbeCaller, "organizationId" | "requestId">, signal: AbortSignal): Promise<CheckResult> => {
    const begun = performance.now();
    const endsAt = sharedClockMs() + deadlineMs - ANSWER_MS;
    using cut = cutBy({ deadlineMs, cancelled: signal, stopped: closing.signal });
    const probe = await spares.take(cut.signal);
    const end = probe ? await watched(probe, { task, egress, endsAt }, { cut: cut.signal, maxBytes: memoryMegabytes * BYTES_PER_MEGABYTE }) : unready(cut.signal);
    probe?.kill();
    await probe?.gone;
    if (typeof end !== "string") return end;
    if (end === "cancelled") throw fail("CANCELLED");
    if (end === "stopped") throw fail("SHUTTING_DOWN");
    log.warn({ request_id: requestId, organization_id: organizationId, reason: end, duration_ms: Math.round(performance.now() - begun) }, "a connection test was ended");
    // Nothing was learnt of the other side, so nothing is said of it.
    if (end === "unready") throw fail("OVERLOADED");
    return end === "deadline" ? DEADLINE_EXCEEDED : TEST_FAILED;
  };

  const reserve: Prober["reserve"] = (organizationId, requestId) => {
    if (closing.signal.aborted) throw fail("SHUTTING_DOWN");
    const mine = perOrganization.get(organizationId) ?? 0;
    if (mine >= maxPerOrganization || reserved >= maxTotal || !rates.take(organizationId)) throw fail("TEST_LIMIT_REACHED");
    perOrganization.set(organizationId, mine + 1);
    reserved += 1;
    let state: "free" | "used" | "over" = "free";
    return {
      async run(task, signal) {
        if (state !== "free") throw new TypeError("a slot is for one test");
        if (closing.signal.aborted) throw fail("SHUTTING_DOWN");
        if (signal.aborted) throw fail("CANCELLED");
        state = "used";
        const { promise: over, resolve: finished } = Promise.withResolvers<void>();
        running.add(over);
        try {
          return await tried(task, { organizationId, requestId }, signal);
        } finally {
          running.delete(over);
          finished();
        }
      },
      [Symbol.dispose]() {
        if (state === "over") return;
        if (state === "free") rates.giveBack(organizationId);
        state = "over";
        reserved -= 1;
        const left = (perOrganization.get(organizationId) ?? 1) - 1;
        if (left > 0) perOrganization.set(organizationId, left);
        else perOrganization.delete(organizationId);
      },
    };
  };

  return {
    reserve,
    async run(task, { organizationId, requestId, signal }) {
      using slot = reserve(organizationId, requestId);
      return await slot.run(task, signal);
    },
    get load() {
      return { running: running.size, most: maxTotal };
    },
    async close() {
      closing.abort();
      await Promise.all([spares.close(), ...running]);
    },
  };
}

/** A signal whose reason is what cut a test short first. */
function cutBy({ deadlineMs, cancelled, stopped }: { readonly deadlineMs: number; readonly cancelled: AbortSignal; readonly stopped: AbortSignal }): Disposable & { readonly signal: AbortSignal } {
  const cut = new AbortController();
  const because = (why: Cut) => () => cut.abort(why);
  const [cancel, stop] = [because("cancelled"), because("stopped")];
  const deadline = setTimeout(because("deadline"), deadlineMs);
  cancelled.addEventListener("abort", cancel);
  stopped.addEventListener("abort", stop);
  return {
    signal: cut.signal,
    [Symbol.dispose]() {
      clearTimeout(deadline);
      cancelled.removeEventListener("abort", cancel);
      stopped.removeEventListener("abort", stop);
    },
  };
}

/** How a test ended that was cut short before its process was ready. */
function unready(cut: AbortSignal): End {
  const why = cut.reason as Cut;
  return why === "deadline" ? "unready" : why;
}

/** Gives a child its order and waits for the first end. */
async function watched(probe: Probe, order: ProbeOrder, { cut, maxBytes }: { readonly cut: AbortSignal; readonly maxBytes: number }): Promise<End> {
  const { promise, resolve } = Promise.withResolvers<End>();
  let ready = false;
  const ended = () => resolve(ready ? (cut.reason as Cut) : unready(cut));
  void probe.ready.then(() => (ready = true));
  void probe.ask(order).then((result) => resolve(result ?? "garbage"));
  void probe.gone.then(() => resolve("crashed"));
  const memory = setInterval(() => {
    if ((probe.memory() ?? 0) > maxBytes) resolve("memory");
  }, MEMORY_WATCH_MS);
  cut.addEventListener("abort", ended);
  if (cut.aborted) ended();
  try {
    return await promise;
  } finally {
    clearInterval(memory);
  }
}
