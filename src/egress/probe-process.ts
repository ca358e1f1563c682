import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
import { constants, setPriority } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { CheckResult, Findings } from "../domain/check.ts";
import { MAX_ANSWER_BYTES, readAnswer } from "./probe-answer.ts";
import { CHANNEL_FD, NEWLINE, type ProbeOrder } from "./probe-task.ts";

/** One child process, for one test. */
export interface Probe {
  /** When it can take its order; where it never can, never. */
  readonly ready: Promise<void>;
  /** When the process is gone, or could not be started. */
  readonly gone: Promise<void>;
  /** Gives it its one order, when it is ready. Resolves with the answer, or undefined where that is not one; where none comes, never. From here it keeps the service's process alive. */
  ask(order: ProbeOrder): Promise<CheckResult | undefined>;
  /** Its memory in bytes, native memory included; undefined where the system does not tell, which only Linux does. */
  memory(): number | undefined;
  /** Ends it and whatever it may have started. */
  kill(): void;
}

/** The file that a child runs, which is TypeScript in the source tree and JavaScript in a build. */
export const PROBE_ENTRY = new URL(import.meta.url.endsWith(".ts") ? "./probe-child.ts" : "./probe-child.js", import.meta.url);

/** V8's heap gets this part of the memory; the modules' code and native buffers need the rest. */
const HEAP_SHARE = 0.5;
const BYTES_PER_KILOBYTE = 1_024;

/** Makes what starts children for a file; each has this much memory, in megabytes, and may answer with these findings. */
export function createProbeStarter(entry: URL, memoryMegabytes: number, findings: Findings): () => Probe {
  const command = [...flags(entry, memoryMegabytes), fileURLToPath(entry)];
  return () => {
    try {
      return probeOf(start(command), findings);
    } catch {
      // Most faults of starting a process are told by an event, the rest is thrown. Either way there is none, and it is gone.
      return { ready: never(), gone: Promise.resolve(), ask: never, memory: () => undefined, kill: () => {} };
    }
  };
}

const never = (): Promise<never> => Promise.withResolvers<never>().promise;

const start = (command: readonly string[]): ChildProcess =>
  spawn(process.execPath, command, {
    cwd: "/",
    // The drivers take defaults from the environment: passwords, hosts, files, agents. And nobody's secrets are theirs to see.
    env: {},
    // A group of its own, so that all of it can be killed.
    detached: true,
    stdio: ["ignore", "ignore", "ignore", "pipe"],
    windowsHide: true,
  });

/** A child that waits for its order. It keeps no process alive, and ends itself when this one is gone. */
function probeOf(child: ChildProcess, findings: Findings): Probe {
  const { promise: gone, resolve } = Promise.withResolvers<void>();
  // Heard first: where descriptors have run out there is no channel, and looking for it throws.
  child.on("error", () => resolve());
  child.once("exit", () => resolve());
  const channel = child.stdio[CHANNEL_FD] as Socket;
  // Whatever befalls the channel, the end of the process says it too.
  channel.on("error", () => {});
  child.unref();
  channel.unref();
  const { pid } = child;
  if (pid !== undefined) yieldOnTrouble(pid);
  const { ready, answer } = heardFrom(channel, findings);
  return {
    ready,
    gone,
    async ask(order) {
      child.ref();
      channel.ref();
      await ready;
      channel.write(`${JSON.stringify(order)}\n`);
      return answer;
    },
    memory: () => (pid === undefined ? undefined : residentBytes(pid)),
    kill() {
      if (pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
      // Somebody may wait for its end.
      child.ref();
      try {
        if (process.platform === "win32") child.kill("SIGKILL");
        else process.kill(-pid, "SIGKILL");
      } catch {
        // It went by itself.
      }
    },
  };
}

/** Node's own locks: the code and its packages may be read and nothing else; no writing, no programs, no threads, no native addons. */
function flags(entry: URL, memoryMegabytes: number): string[] {
  return [
    "--permission",
    ...readable(entry).map((path) => `--allow-fs-read=${path}`),
    "--no-addons",
    "--disable-proto=throw",
    "--disallow-code-generation-from-strings",
    "--disable-sigusr1",
    `--max-old-space-size=${Math.floor(memoryMegabytes * HEAP_SHARE)}`,
  ];
}

/** The folder of the code, the description of the package it belongs to, and every folder in which Node looks for packages. */
function readable(entry: URL): string[] {
  const code = fileURLToPath(new URL("..", import.meta.url));
  const found = [code, fileURLToPath(entry)];
  for (let folder = dirname(code); ; folder = dirname(folder)) {
    found.push(...[join(folder, "package.json"), join(folder, "node_modules")].filter((path) => existsSync(path)));
    if (folder === dirname(folder)) break;
  }
  return [...new Set(found.flatMap((path) => [path, realpathSync(path)]))];
}

/**
 * Where there is little processor time the service goes first: a test has seconds, a call of a flow has milliseconds. On Linux also: when memory is short
 * the kernel ends the child and not the service, and a core file of it would hold none of its memory.
 */
function yieldOnTrouble(pid: number): void {
  try {
    setPriority(pid, constants.priority.PRIORITY_BELOW_NORMAL);
  } catch {
    // The child is gone already.
  }
  for (const [file, value] of [["oom_score_adj", "1000"], ["coredump_filter", "0"]] as const) {
    try {
      writeFileSync(`/proc/${pid}/${file}`, value);
    } catch {
      // Another system, or the child is gone already.
    }
  }
}

function residentBytes(pid: number): number | undefined {
  try {
    const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1];
    return kilobytes === undefined ? undefined : Number(kilobytes) * BYTES_PER_KILOBYTE;
  } catch {
    return undefined;
  }
}

/** An empty line, which says that the child is ready, and then one line, its answer; more than that, or more than is allowed, is no answer. */
function heardFrom(channel: Socket, findings: Findings): { readonly ready: Promise<void>; readonly answer: Promise<CheckResult | undefined> } {
  const ready = Promise.withResolvers<void>();
  const answer = Promise.withResolvers<CheckResult | undefined>();
  const chunks: Buffer[] = [];
  let length = 0;
  const hear = (chunk: Buffer) => {
    length += chunk.length;
    if (length > MAX_ANSWER_BYTES) {
      channel.destroy();
      answer.resolve(undefined);
      return;
    }
    chunks.push(chunk);
    const end = chunk.indexOf(NEWLINE);
    if (end >= 0) answer.resolve(end === chunk.length - 1 ? readAnswer(Buffer.concat(chunks).toString(), findings) : undefined);
  };
  channel.once("data", (chunk: Buffer) => {
    channel.on("data", hear);
    if (chunk.length === 1 && chunk[0] === NEWLINE) ready.resolve();
    else channel.destroy();
  });
  return { ready: ready.promise, answer: answer.promise };
}
