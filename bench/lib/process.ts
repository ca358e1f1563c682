import { spawn } from "node:child_process";
import { closeSync, fstatSync, openSync, readFileSync, readSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

/** A server process under measurement. */
export interface Measured {
  /** `host:port` of its gRPC listener; empty where it has none. */
  readonly target: string;
  /** `host:port` of its REST listener; empty where it has none. */
  readonly rest: string;
  /** From the start of the process to its `ready` line, ms. */
  readonly startMs: number;
  /** CPU it has used so far, user and system, µs. The kernel counts in steps of 10 ms. */
  cpuMicros(): number;
  /** Resident memory now, MB. */
  rssMegabytes(): number;
  /** Sends SIGTERM and waits for its end; throws where it does not end well. */
  stop(): Promise<void>;
}

/** Ticks of the kernel's CPU clock in a second; 100 on every Linux that Node.js supports. */
const TICKS = 100;
const READY = /^ready(?: grpc=(\S+))?(?: rest=(\S+))?/m;
const START_MS = 60_000;
/** How memory is managed where `npm start` runs the service: flags of Node.js, and variables of the C library. */
const MEMORY = startSettings();

function startSettings(): { readonly flags: readonly string[]; readonly env: Readonly<Record<string, string>> } {
  const { scripts: { start } } = JSON.parse(readFileSync("package.json", "utf8")) as { scripts: { start: string } };
  return { flags: start.match(/--(?:max|min|heap)-\S+/g) ?? [], env: Object.fromEntries(Array.from(start.matchAll(/(MALLOC_\w+)=(\S+)/g), ([, name = "", value = ""]) => [name, value])) };
}

/** What a TypeScript file of the project is compiled to, as it runs in production. */
export const compiled = (script: string): string => `dist/${script.replace(/\.ts$/, ".js")}`;

/** The end of a file, which may be larger than a string can be. */
function lastOf(file: string, bytes: number): string {
  const fd = openSync(file, "r");
  try {
    const { size } = fstatSync(fd);
    const end = Buffer.alloc(Math.min(size, bytes));
    readSync(fd, end, 0, end.length, size - end.length);
    return end.toString("utf8");
  } finally {
    closeSync(fd);
  }
}

/**
 * Runs a file as a server and waits until it prints `ready`; throws where it does not. Its log goes to a file:
 * writing it is part of the server's work, and reading it would be part of the driver's.
 */
export async function startMeasured(script: string, env: Readonly<Record<string, string>>, logFile: string): Promise<Measured> {
  const started = performance.now();
  const log = openSync(logFile, "a");
  const child = spawn(process.execPath, [...MEMORY.flags, script], { env: { PATH: process.env["PATH"] ?? "", ...MEMORY.env, ...env }, stdio: ["ignore", "pipe", log] });
  closeSync(log);
  const said = () => lastOf(logFile, 2_000);
  let output = "";
  const ended = new Promise<number | string>((resolve) => child.once("close", (code, signal) => resolve(code ?? signal ?? "")));
  const [target, rest] = await new Promise<[grpc: string, rest: string]>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${script} is not ready after ${START_MS} ms`)), START_MS);
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      output += text;
      const match = output.includes("\n") ? READY.exec(output) : null;
      if (match) resolve([match[1] ?? "", match[2] ?? ""]);
      if (match) clearTimeout(timer);
    });
    void ended.then((code) => {
      clearTimeout(timer);
      reject(new Error(`${script} ended with ${code}:\n${output}${said()}`));
    });
  });
  const startMs = performance.now() - started;
  const field = (file: string) => readFileSync(`/proc/${child.pid}/${file}`, "utf8");
  return {
    target,
    rest,
    startMs,
    cpuMicros() {
      // The second field is the program's name in parentheses and may hold spaces; utime and stime are 14 and 15 (proc(5)).
      const fields = field("stat").split(") ")[1]?.split(" ") ?? [];
      return ((Number(fields[11]) + Number(fields[12])) * 1_000_000) / TICKS;
    },
    rssMegabytes: () => Number(/^VmRSS:\s+(\d+)/m.exec(field("status"))?.[1]) / 1_024,
    async stop() {
      child.kill("SIGTERM");
      const late = sleep(30_000, "timeout", { ref: false });
      const code = await Promise.race([ended, late]);
      if (code === "timeout") child.kill("SIGKILL");
      if (code !== 0) throw new Error(`${script} ended with ${code}:\n${said()}`);
    },
  };
}
