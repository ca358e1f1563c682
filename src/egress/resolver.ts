import { promises as dns } from "node:dns";
import { type Clock, systemClock } from "./clock.ts";
import { EgressError } from "./error.ts";

/** Turns a name into addresses. */
export interface NameResolver {
  /**
   * Every address of a name that `parseHost` has accepted, at least one. Throws `dns-not-found`, `dns-failed` or, where the signal is aborted,
   * whatever: nobody waits any more.
   */
  resolve(name: string, signal: AbortSignal): Promise<readonly string[]>;
}

/** How names are resolved. */
export interface ResolverOptions {
  /** DNS servers as `ip` or `ip:port`; the system's where not given. */
  readonly servers?: readonly string[];
  /** Longest time that one resolution may take, ms. */
  readonly deadlineMs?: number;
  readonly clock?: Clock;
}

const DEADLINE_MS = 4_000;
/** First wait for an answer, ms, and how often a server is asked. */
const TIMEOUT_MS = 1_000;
const TRIES = 3;

/**
 * Asks DNS, and only DNS: `/etc/hosts`, search domains and NSS are not consulted, so that the text of a name says all about where it leads.
 * Operators put internal names into DNS or give addresses. `dns.lookup` is not used because it occupies a thread of a small shared pool for
 * as long as the slowest name server likes. Each resolution has a channel of its own: nothing is cached, and cancelling one ends only that one.
 */
export function createResolver(options: ResolverOptions = {}): NameResolver {
  const clock = options.clock ?? systemClock;
  const deadlineMs = options.deadlineMs ?? DEADLINE_MS;
  return {
    resolve: async (name, signal) => {
      if (signal.aborted) throw new EgressError("cancelled");
      const channel = new dns.Resolver({ timeout: TIMEOUT_MS, tries: TRIES, maxTimeout: deadlineMs });
      if (options.servers) channel.setServers(options.servers);
      const cancel = () => channel.cancel();
      const stop = clock.after(deadlineMs, cancel);
      signal.addEventListener("abort", cancel);
      try {
        // An answer of either family will do; the other's failure counts only where there is none.
        return merge(await Promise.allSettled([channel.resolve6(name), channel.resolve4(name)]));
      } finally {
        stop();
        signal.removeEventListener("abort", cancel);
      }
    },
  };
}

const codeOf = (reason: unknown): unknown => (reason instanceof Error && "code" in reason ? reason.code : undefined);

/** IPv6 and IPv4 in turn, IPv6 first (RFC 8305 section 4). */
function merge(results: readonly PromiseSettledResult<string[]>[]): readonly string[] {
  const lists = results.map((result) => (result.status === "fulfilled" ? result.value : []));
  const longest = Math.max(...lists.map((list) => list.length));
  const merged = Array.from({ length: longest }, (_, index) => lists.flatMap((list) => list.slice(index, index + 1))).flat();
  if (merged.length > 0) return merged;
  const absent = results.every((result) => result.status === "fulfilled" || codeOf(result.reason) === dns.NOTFOUND || codeOf(result.reason) === dns.NODATA);
  throw new EgressError(absent ? "dns-not-found" : "dns-failed");
}
