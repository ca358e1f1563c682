import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

/** A server process under measurement. */
export interface Measured {
  /** `host:port` of its gRPC listener. */
  readonly target: string;
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
const READY = /^ready grpc=(\S+)/m;
const START_MS = 60_000;
/** As `npm start` runs the service. */
const FLAGS = ["--max-semi-space-size=16"];

/** Runs a TypeScript file as a server and waits until it prints `ready`; throws what it printed where it does not. */
export async function startMeasured(script: string, env: Readonly<Record<string, string>>): Promise<Measured> {
  const started = performance.now();
  const child = spawn(process.execPath, [...FLAGS, script], { env: { PATH: process.env["PATH"] ?? "", ...env }, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  const ended = new Promise<number | string>((resolve) => child.once("close", (code, signal) => resolve(code ?? signal ?? "")));
  const target = await new Promise<string>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${script} is not ready after ${START_MS} ms`)), START_MS);
    const watch = (text: string) => {
      // The log of a whole run is of no use and of much size.
      if (output.length < 100_000) output += text;
      const match = READY.exec(output);
      if (match?.[1]) resolve(match[1]);
      if (match) clearTimeout(timer);
    };
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", watch);
    void ended.then((code) => {
      clearTimeout(timer);
      reject(new Error(`${script} ended with ${code}:\n${output}`));
    });
  });
  const startMs = performance.now() - started;
  const field = (file: string) => readFileSync(`/proc/${child.pid}/${file}`, "utf8");
  return {
    target,
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
      if (code !== 0) throw new Error(`${script} ended with ${code}:\n${output.slice(-2_000)}`);
    },
  };
}
