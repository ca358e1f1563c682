import { readdirSync, readFileSync } from "node:fs";
import type { CheckResult, Findings } from "../../src/domain/check.ts";
import { CredentialError } from "../../src/domain/errors.ts";
import { createProber, type Prober, type ProberOptions, type ProbeTask } from "../../src/egress/probe.ts";
import { readAnswer } from "../../src/egress/probe-answer.ts";
import { createCheckIo } from "../../src/egress/probe-io.ts";
import type { Log, LogFields } from "../../src/log.ts";
import { findings, providers } from "../../src/providers/index.ts";

/** A child that does what the order's document says instead of testing anything. */
export const SCRIPTED_ENTRY = new URL("./probe-entry.ts", import.meta.url);

/** What the scripted child may say too. */
const SAID: Findings = { failures: findings.failures, passes: new Set([...findings.passes, "Done."]) };

/** Loopback and nothing else. */
const EGRESS: ProberOptions["egress"] = { profile: "development", allow: ["127.0.0.0/8"], ports: {} };

/** A prober for loopback, with what it logged. */
export function testProber(options: Partial<ProberOptions> = {}) {
  const lines: { readonly fields: LogFields; readonly message: string }[] = [];
  const write = (fields: LogFields, message: string) => void lines.push({ fields, message });
  const log: Log = { debug: write, info: write, warn: write, error: write };
  const prober = createProber({ egress: EGRESS, findings: SAID, log, burst: 10_000, ...options });
  return { prober, lines, run: runner(prober), [Symbol.asyncDispose]: () => prober.close() };
}

/** What is tried, of which the document alone must be said. */
type Task = Pick<ProbeTask, "document"> & Partial<ProbeTask>;

const whole = (task: Task): ProbeTask => ({ provider: "postgresql", credentialType: "user_password", options: { testPath: "" }, ...task });

/** Runs a task, of one organization where no other is named. */
const runner = (prober: Prober) => (task: Task, { organizationId = "one", signal = new AbortController().signal } = {}): Promise<CheckResult> =>
  prober.run(whole(task), { organizationId, signal });

/** Does in this process what a test's own process does: the same check behind the same dialer, its answer read in the same way. Starting one takes more time than most checks do. */
export async function runHere(task: Task, budgetMs = 9_500): Promise<CheckResult> {
  const { provider, credentialType, document, options } = whole(task);
  const said = await providers[provider].types[credentialType]?.check?.(document, createCheckIo(provider, EGRESS, budgetMs), options);
  const result = readAnswer(JSON.stringify(said), findings);
  if (result === undefined) throw new TypeError(`no answer: ${JSON.stringify(said)}`);
  return result;
}

/** The task of a scripted child. */
export const behave = (behaviour: string, more: Record<string, string> = {}) => ({ document: { behaviour, ...more } });

/** Why a promise failed; fails itself where it did not, or not with an error of the house. */
export async function refusalOf(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => new Error("it succeeded"),
    (error: unknown) => error,
  );
  if (error instanceof CredentialError) return error.reason;
  throw error;
}

/** Processes that a process has started and that are not gone, zombies included. Linux only. */
export function childrenOf(parent = process.pid): number[] {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  return pids.map(Number).filter((pid) => {
    try {
      // The second field is a name in parentheses and may hold anything.
      return Number(readFileSync(`/proc/${pid}/stat`, "latin1").replace(/^.*\)/s, "").trim().split(" ")[1]) === parent;
    } catch {
      return false;
    }
  });
}

/** A process's argument list and environment, as anyone of the same user can read them. */
export const shownBy = (pid: number): string => readFileSync(`/proc/${pid}/cmdline`, "latin1") + readFileSync(`/proc/${pid}/environ`, "latin1");
