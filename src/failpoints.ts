import { ConfigError } from "./config.ts";
import { type Failpoint, FAILPOINTS, type FailpointName } from "./domain/failpoint.ts";

const ACTIONS = ["kill", "stop", "error"] as const;
type FailpointAction = (typeof ACTIONS)[number];

/**
 * Reads entries such as `after-send=kill`. Each place acts once: `kill` ends this process as a crash would, `stop` halts it until
 * somebody continues it, `error` throws. Throws ConfigError.
 */
export function parseFailpoints(entries: readonly string[]): Failpoint {
  const planned = new Map<FailpointName, FailpointAction>();
  for (const [index, entry] of entries.entries()) {
    const [place, action] = entry.split("=");
    const name = FAILPOINTS.find((known) => known === place);
    const act = ACTIONS.find((known) => known === action);
    if (name === undefined || act === undefined) throw new ConfigError(`CREDENTIALS_FAILPOINTS: entry ${index + 1} must be one of ${FAILPOINTS.join(", ")}, then = and one of ${ACTIONS.join(", ")}`);
    planned.set(name, act);
  }
  return async (at) => {
    const act = planned.get(at);
    if (act === undefined) return;
    planned.delete(at);
    if (act === "error") throw new Error(`failpoint ${at}`);
    process.kill(process.pid, act === "kill" ? "SIGKILL" : "SIGSTOP");
  };
}
