import { connect, type Socket } from "node:net";
import type { Clock } from "./clock.ts";
import { EgressError, type EgressReason } from "./error.ts";
import type { AdmittedAddress } from "./policy.ts";

/** Begins one connection to an address. */
export type Connect = (address: AdmittedAddress, port: number) => Socket;

/** The system's TCP. The address is a literal, so nothing is resolved again; without `autoSelectFamily` there is exactly one attempt. */
export const systemConnect: Connect = ({ address, family }, port) => connect({ host: address, port, family, autoSelectFamily: false });

/** Most addresses of one host that are tried. */
const MAX_ATTEMPTS = 4;

/** Bounds of the attempts together. */
export interface Attempts {
  readonly clock: Clock;
  /** When the last attempt ends, on that clock. */
  readonly deadlineAt: number;
  readonly signal: AbortSignal | undefined;
}

/** Tries the addresses in order, each with its share of the time that is left. Throws the most telling failure of all attempts. */
export async function connectFirst(
  open: Connect,
  addresses: readonly AdmittedAddress[],
  port: number,
  attempts: Attempts,
): Promise<{ socket: Socket; peer: AdmittedAddress }> {
  const tried = addresses.slice(0, MAX_ATTEMPTS);
  const failures: EgressReason[] = [];
  for (const [index, peer] of tried.entries()) {
    const left = attempts.deadlineAt - attempts.clock.now();
    const result = await attempt(() => open(peer, port), left / (tried.length - index), attempts);
    if (typeof result !== "string") return { socket: result, peer };
    if (result === "cancelled") throw new EgressError(result);
    failures.push(result);
  }
  const telling: readonly EgressReason[] = ["connect-refused", "connect-timeout"];
  throw new EgressError(telling.find((reason) => failures.includes(reason)) ?? "unreachable");
}

/** The connected socket, or why there is none. */
function attempt(open: () => Socket, ms: number, { clock, signal }: Attempts): Promise<Socket | EgressReason> {
  if (signal?.aborted === true) return Promise.resolve("cancelled");
  return new Promise((resolve) => {
    const socket = open();
    // What a socket reports after it was given up, or before its guard listens, is of no interest, but may not be unheard.
    socket.on("error", () => {});
    const finish = (result: Socket | EgressReason) => {
      cancel();
      signal?.removeEventListener("abort", aborted);
      socket.removeListener("connect", connected);
      socket.removeListener("error", failed);
      if (result !== socket) socket.destroy();
      resolve(result);
    };
    const connected = () => finish(socket);
    const failed = (error: NodeJS.ErrnoException) => finish(REASONS[error.code ?? ""] ?? "unreachable");
    const aborted = () => finish("cancelled");
    const cancel = clock.after(Math.max(0, ms), () => finish("connect-timeout"));
    signal?.addEventListener("abort", aborted);
    socket.once("connect", connected);
    socket.once("error", failed);
  });
}

/** What the system's codes mean; all others are about the way to the host. */
const REASONS: Readonly<Record<string, EgressReason>> = { ECONNREFUSED: "connect-refused", ECONNRESET: "connect-refused", ETIMEDOUT: "connect-timeout" };
