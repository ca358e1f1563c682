import { readFileSync } from "node:fs";
import { url as inspectorUrl } from "node:inspector";
import { ConfigError } from "./config.ts";
import { logFatal } from "./log.ts";

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

/** Options of Node.js that open a process's memory or its traffic to others, or write it to a file, or bring such options from a file. */
const OPENING = /--(inspect|heapsnapshot|heap-prof|cpu-prof|report-|diagnostic-dir|experimental-repl|abort-on-uncaught|tls-keylog|trace-tls|trace-event|trace(=|\s|$)|experimental-(default-)?config-file)/;

/** Variables by which Node.js and gRPC print the headers and bodies that pass. */
const TALKATIVE = ["NODE_DEBUG", "NODE_DEBUG_NATIVE", "GRPC_TRACE", "GRPC_NODE_TRACE"];

/** Where Linux tells the limits of this process. */
const LIMITS = "/proc/self/limits";

/** Largest core file, bytes, that holds nothing: the kernel writes none into one byte, and starts no program to take it either. */
const NO_CORE = 1;

/**
 * Closes the ways by which memory with keys in it could leave: SIGUSR1 does not start the inspector, and a fault nobody
 * caught ends the process without Node's own report, whose text may quote a secret. A report that development asks for leaves out
 * the environment, where secrets may stand.
 */
export function guardProcess(): void {
  Object.assign(process.report ?? {}, { excludeEnv: true });
  // With a listener Node.js leaves the signal to it.
  process.on("SIGUSR1", () => {});
  for (const event of ["uncaughtException", "unhandledRejection"] as const) {
    process.on(event, (error: unknown) => {
      logFatal(event, error);
      process.exit(1);
    });
  }
}

/** Largest core file that a crash of this process may leave, bytes; none where the system does not tell. */
function coreLimit(limits: string): number {
  const soft = /^Max core file size +(\S+)/m.exec(limits)?.[1] ?? "0";
  return soft === "unlimited" ? Infinity : Number(soft);
}

function readLimits(): string {
  try {
    return readFileSync(LIMITS, "utf8");
  } catch {
    return "";
  }
}

/**
 * Refuses to run in production where the process's memory or traffic could leave it: by an open inspector, an option or a variable of
 * Node.js that dumps or prints it, or a core file after a crash. Throws ConfigError.
 */
export function refuseInspection(env: Readonly<Record<string, string | undefined>>, limits: string = readLimits()): void {
  // Node.js takes "_" for "-" in its options.
  const options = [...process.execArgv, env["NODE_OPTIONS"] ?? ""].map((option) => option.replaceAll("_", "-"));
  const { reportOnFatalError, reportOnSignal, reportOnUncaughtException } = process.report ?? {};
  const opened = inspectorUrl() !== undefined || reportOnFatalError || reportOnSignal || reportOnUncaughtException || options.some((option) => OPENING.test(option));
  if (opened) throw new ConfigError("production refuses Node.js options that open or dump the process's memory or traffic (--inspect and its like)");
  const talkative = TALKATIVE.find((name) => env[name]);
  if (talkative !== undefined) throw new ConfigError(`production refuses ${talkative}, which prints what passes`);
  if (coreLimit(limits) > NO_CORE) throw new ConfigError("production refuses to run where a crash may leave a core file: start it with `prlimit --core=1`, `ulimit -c 0`, or LimitCORE=1 of systemd");
}
