import { url as inspectorUrl } from "node:inspector";
import { ConfigError } from "./config.ts";
import { errorFields } from "./log.ts";

const STOP_SIGNALS = ["SIGTERM", "SIGINT"] as const;

/** What stands between a process and its signals; disposing gives them back. */
export interface StopRequest extends Disposable {
  /** Aborts with the first SIGTERM or SIGINT. A second one ends the process at once. */
  readonly signal: AbortSignal;
}

/** Listens for the request to stop. */
export function stopRequest(): StopRequest {
  const controller = new AbortController();
  const stop = () => {
    if (controller.signal.aborted) process.exit(1);
    controller.abort();
  };
  for (const name of STOP_SIGNALS) process.on(name, stop);
  return {
    signal: controller.signal,
    [Symbol.dispose]: () => {
      for (const name of STOP_SIGNALS) process.off(name, stop);
    },
  };
}

/** The time that everything has together to end, once the process is told to stop. */
export class Grace {
  readonly #ms: number;
  readonly #now: () => number;
  #until: number | undefined;

  /** @param now milliseconds on a clock that never goes back */
  constructor(ms: number, now: () => number = () => performance.now()) {
    this.#ms = ms;
    this.#now = now;
  }

  /** Lets it run, unless it does. */
  begin(): void {
    this.#until ??= this.#now() + this.#ms;
  }

  /** What is left of it, ms. */
  get leftMs(): number {
    return this.#until === undefined ? this.#ms : Math.max(0, this.#until - this.#now());
  }
}

/** Options of Node.js that open a process's memory to others, or write it to a file. */
const OPENING = /--(inspect|heapsnapshot|heap-prof|cpu-prof|report-|diagnostic-dir|experimental-repl|abort-on-uncaught)/;

/**
 * Closes the ways by which memory with keys in it could leave: SIGUSR1 does not start the inspector, and a fault nobody
 * caught ends the process without Node's own report, whose text may quote a secret.
 */
export function guardProcess(): void {
  // With a listener Node.js leaves the signal to it.
  process.on("SIGUSR1", () => {});
  for (const event of ["uncaughtException", "unhandledRejection"] as const) {
    process.on(event, (error: unknown) => {
      process.stderr.write(`${JSON.stringify({ level: "fatal", message: event, ...errorFields(error) })}\n`);
      process.exit(1);
    });
  }
}

/** Refuses to run in production with an open inspector, or with an option that dumps memory. Throws ConfigError. */
export function refuseInspection(env: Readonly<Record<string, string | undefined>>): void {
  const opened = inspectorUrl() !== undefined || [...process.execArgv, env["NODE_OPTIONS"] ?? ""].some((option) => OPENING.test(option));
  if (opened) throw new ConfigError("production refuses Node.js options that open or dump the process's memory (--inspect and its like)");
}
