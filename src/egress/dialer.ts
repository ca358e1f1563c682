import type { Socket } from "node:net";
import { type Clock, pause, systemClock } from "./clock.ts";
import { type Connect, connectFirst, systemConnect } from "./connect.ts";
import { EgressError, egressError, type EgressReason } from "./error.ts";
import { checkPort, type Host, parseHost, type PortRules } from "./name.ts";
import type { AddressPolicy, AdmittedAddress } from "./policy.ts";
import { createResolver, type NameResolver } from "./resolver.ts";
import { type ByteCaps, GuardedSocket } from "./socket.ts";

/** Bounds of one connection. */
export interface DialLimits extends ByteCaps {
  /** Time from the call of `dial` to the end of the connection, ms. */
  readonly totalMs: number;
  /** Time for all attempts to connect together, ms. */
  readonly connectMs: number;
}

/** Bounds where none are given. */
export const DIAL_LIMITS: DialLimits = { beforeAuthenticated: 65_536, total: 1_048_576, totalMs: 10_000, connectMs: 5_000 };

/** Where to go. */
export interface DialTarget {
  /** As it was written; see `parseHost`. */
  readonly host: string;
  readonly port: number;
  /** Whose port rules apply; none where not given. */
  readonly provider?: string;
}

/** What may be said about one dial. */
export interface DialOptions {
  readonly signal?: AbortSignal | undefined;
  readonly limits?: Partial<DialLimits>;
  /** Go only where an operator's list names every answer. */
  readonly listedOnly?: boolean;
}

/** Opens connections to hosts that somebody else chose. */
export interface Dialer {
  /**
   * A connection to one admitted address of the host, after exactly one resolution (none for an address). Throws `EgressError`; refusals come at
   * multiples of one fixed time, so that they do not tell what is behind them.
   */
  dial(target: DialTarget, options?: DialOptions): Promise<GuardedSocket>;
}

/** What a dialer is made of; tests replace its leaves. */
export interface DialerDeps {
  readonly policy: AddressPolicy;
  readonly ports?: PortRules;
  readonly limits?: Partial<DialLimits>;
  readonly resolver?: NameResolver;
  readonly connect?: Connect;
  readonly clock?: Clock;
  /** Refusals come at multiples of this time after the call, ms; 0 is at once. */
  readonly refusalBandMs?: number;
}

const REFUSAL_BAND_MS = 500;
/** Most answers of one name that are looked at; a real one has few, and a response has room for thousands. */
const MAX_ANSWERS = 64;
const BANDED: readonly EgressReason[] = ["refused-name", "refused-port", "refused-address"];

/** The guarded dialer. */
export function createDialer(deps: DialerDeps): Dialer {
  const clock = deps.clock ?? systemClock;
  const band = deps.refusalBandMs ?? REFUSAL_BAND_MS;
  const parts: Parts = {
    policy: deps.policy,
    ports: deps.ports ?? {},
    resolver: deps.resolver ?? createResolver({ clock }),
    connect: deps.connect ?? systemConnect,
    clock,
  };
  return {
    dial: async (target, options = {}) => {
      const limits = { ...DIAL_LIMITS, ...deps.limits, ...options.limits };
      const begun = clock.now();
      try {
        return await run(parts, target, options, limits, begun);
      } catch (error) {
        const failure = egressError(error, "unreachable");
        if (BANDED.includes(failure.reason)) {
          const passed = clock.now() - begun;
          const due = band > 0 ? Math.max(1, Math.ceil(passed / band)) * band : 0;
          await pause(clock, Math.min(limits.totalMs, due) - passed, options.signal);
        }
        throw failure;
      }
    },
  };
}

/** The dependencies, all of them there. */
type Parts = Required<Pick<DialerDeps, "policy" | "ports" | "resolver" | "connect" | "clock">>;

async function run(parts: Parts, target: DialTarget, options: DialOptions, limits: DialLimits, begun: number): Promise<GuardedSocket> {
  const { clock } = parts;
  const deadlineAt = begun + limits.totalMs;
  if (options.signal?.aborted === true) throw new EgressError("cancelled");
  const host = parseHost(target.host);
  checkPort(parts.ports, target.provider, target.port);

  const answers = host.kind === "address" ? [host.address] : await resolve(parts, host, deadlineAt, options.signal);
  const admitted = admitAll(parts.policy, answers, options.listedOnly === true);
  const connectBy = Math.min(deadlineAt, clock.now() + limits.connectMs);
  const { socket, peer } = await connectFirst(parts.connect, admitted, target.port, { clock, deadlineAt: connectBy, signal: options.signal });
  const fault = peerFault(parts.policy, socket, peer, target.port);
  if (fault) {
    socket.destroy();
    throw new EgressError(fault);
  }
  return new GuardedSocket(socket, { peer, caps: limits, clock, deadlineAt, signal: options.signal });
}

/** The answers for a name, or the end of waiting for them. */
async function resolve(parts: Parts, host: Host & { kind: "name" }, deadlineAt: number, signal: AbortSignal | undefined): Promise<readonly string[]> {
  const stop = new AbortController();
  const { promise: given, reject } = Promise.withResolvers<never>();
  const end = (reason: EgressReason) => {
    reject(new EgressError(reason));
    stop.abort();
  };
  const aborted = () => end("cancelled");
  const cancel = parts.clock.after(deadlineAt - parts.clock.now(), () => end("deadline"));
  signal?.addEventListener("abort", aborted);
  try {
    return await Promise.race([given, parts.resolver.resolve(host.name, stop.signal)]);
  } catch (error) {
    throw egressError(error, "dns-failed");
  } finally {
    cancel();
    signal?.removeEventListener("abort", aborted);
  }
}

/** The answers as admitted addresses. One that is not allowed refuses them all: a host that mixes them is trying something. */
function admitAll(policy: AddressPolicy, answers: readonly string[], listedOnly: boolean): readonly AdmittedAddress[] {
  if (answers.length === 0) throw new EgressError("dns-not-found");
  if (answers.length > MAX_ANSWERS) throw new EgressError("dns-failed");
  return answers.map((answer) => {
    const address = policy.admit(answer);
    if (!address || (listedOnly && !address.listed)) throw new EgressError("refused-address");
    return address;
  });
}

/** What is wrong with the other end of a connection: it is not where it was to lead, or has gone already. */
function peerFault(policy: AddressPolicy, socket: Socket, peer: AdmittedAddress, port: number): EgressReason | undefined {
  if (socket.remoteAddress === undefined) return "connection-lost";
  return policy.admit(socket.remoteAddress)?.address === peer.address && socket.remotePort === port ? undefined : "refused-address";
}
