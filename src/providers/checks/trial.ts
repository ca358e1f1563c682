import { type CheckIo, type CheckResult, DialError, type GuardedConnection } from "../../domain/check.ts";
import { failed, passed, type Reason } from "./doctor.ts";
import type { Pass } from "./passes.ts";

/** How far a test has come; each has its own word for a lost connection and for a timeout. */
export type Phase = {
  [R in Reason]: R extends `${infer P}_closed` ? (`${P}_timed_out` extends Reason ? P : never) : never;
}[Reason];

/** The end of a test with a finding. Thrown inside a check only; holds no text from outside. */
export class CheckFailure extends Error {
  override readonly name = "CheckFailure";
  readonly reason: Reason;

  constructor(reason: Reason) {
    super(reason);
    this.reason = reason;
  }
}

/** One test on its way: how far it is, what it has learnt, and the first thing that ended it. */
export class Trial {
  phase: Phase;
  /** Facts for the result. */
  readonly details: Record<string, string | number | boolean> = {};
  /** Rejects with the first failure; never resolves. */
  readonly over: Promise<never>;
  #failure: CheckFailure | null = null;
  #succeeded = false;
  readonly #reject: (failure: CheckFailure) => void;

  constructor(phase: Phase) {
    this.phase = phase;
    const { promise, reject } = Promise.withResolvers<never>();
    this.over = promise;
    this.#reject = reject;
    this.over.catch(() => {});
  }

  /** What ended it; null while nothing has. */
  get failure(): CheckFailure | null {
    return this.#failure;
  }

  /** Ends it; only the first call counts. */
  fail(reason: Reason): void {
    if (this.#failure || this.#succeeded) return;
    this.#failure = new CheckFailure(reason);
    this.#reject(this.#failure);
  }

  /** Says that nothing is left to be found: the connection may close now. */
  succeed(): void {
    this.#succeeded = true;
  }

  /** The other side is gone. */
  closed(): void {
    this.fail(`${this.phase}_closed`);
  }

  /** The time is up. */
  timedOut(): void {
    this.fail(`${this.phase}_timed_out`);
  }
}

/** How long the drivers may take to work off what arrived before the connection closed, and how long a farewell may take, ms. */
const LAST_WORDS_MS = 50;
const FAREWELL_MS = 250;

/**
 * Connects and runs a test, and turns whatever happens into a result. Never throws. When it returns, the connection is
 * destroyed. The deadline ends it at once, whatever the driver is waiting for.
 */
export async function conduct(
  io: CheckIo,
  address: { readonly host: string; readonly port: number },
  first: Phase,
  run: (connection: GuardedConnection, trial: Trial) => Promise<Pass>,
): Promise<CheckResult> {
  const trial = new Trial(first);
  let unwatch = () => {};
  try {
    const connection = await dialled(io, address);
    unwatch = watch(connection, io.signal, trial);
    const pass = await Promise.race([run(connection, trial), trial.over]);
    return passed(pass, trial.details);
  } catch (error) {
    return failed((trial.failure ?? asFailure(error)).reason, trial.details);
  } finally {
    unwatch();
  }
}

/** Dials, but waits no longer than the signal; a connection that comes later is destroyed. */
async function dialled(io: CheckIo, { host, port }: { readonly host: string; readonly port: number }): Promise<GuardedConnection> {
  if (io.signal.aborted) throw new CheckFailure("deadline_exceeded");
  const { promise, reject } = Promise.withResolvers<never>();
  const late = () => reject(new CheckFailure("deadline_exceeded"));
  io.signal.addEventListener("abort", late, { once: true });
  const dialling = io.dial(host, port);
  try {
    return await Promise.race([dialling, promise]);
  } catch (error) {
    dialling.then(({ stream }) => stream.on("error", () => {}).destroy(), () => {});
    throw error;
  } finally {
    io.signal.removeEventListener("abort", late);
  }
}

/** Lets deadline, caps and losses end the test. Returns what ends the watch and the connection. */
function watch({ stream }: GuardedConnection, signal: AbortSignal, trial: Trial): () => void {
  let grace: NodeJS.Timeout | undefined;
  const late = () => trial.timedOut();
  signal.addEventListener("abort", late, { once: true });
  stream.on("error", (error) => {
    if (!(error instanceof DialError) || error.reason === "connection_reset") return;
    if (error.reason === "deadline_exceeded") trial.timedOut();
    else trial.fail(error.reason);
  });
  // The drivers may still have to read the server's last words.
  const closed = () => (grace ??= setTimeout(() => trial.closed(), LAST_WORDS_MS));
  stream.once("close", closed);
  if (signal.aborted) late();
  if (stream.destroyed) closed();
  return () => {
    clearTimeout(grace);
    stream.off("close", closed);
    signal.removeEventListener("abort", late);
    stream.destroy();
  };
}

function asFailure(error: unknown): CheckFailure {
  if (error instanceof CheckFailure) return error;
  return new CheckFailure(error instanceof DialError ? error.reason : "check_failed");
}

/** Gives a farewell a moment to leave. */
export async function farewell(leaving: Promise<unknown>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, FAREWELL_MS);
  await Promise.race([leaving.catch(() => {}), promise]);
  clearTimeout(timer);
}
