import { Metadata, status as codes } from "@grpc/grpc-js";
import { CredentialError, fail } from "../domain/errors.ts";
import { readHead } from "./headers.ts";
import { type OutgoingStatus, TOO_LARGE, toStatus, UNKNOWN_METHOD } from "./status.ts";
import type { Running, UnaryRpc } from "./unary.ts";

/** A call from inside the process. */
export interface LocalCall {
  /** Full name of the method, with slashes. */
  readonly path: string;
  readonly request: Uint8Array;
  readonly metadata: Metadata;
  /** Aborts when nobody waits for the answer any more. */
  readonly signal?: AbortSignal | undefined;
}

/** A status as an error, as a client of grpc-js would have it. */
export class LocalStatus extends Error implements OutgoingStatus {
  override readonly name = "LocalStatus";
  readonly code: number;
  readonly details: string;
  readonly metadata: Metadata;

  constructor({ code, details, metadata }: OutgoingStatus) {
    super(details);
    [this.code, this.details, this.metadata] = [code, details, metadata];
  }
}

/** The way to the RPCs of this process that crosses no network: the same RPCs, behind the same rules as on the network. */
export interface Local {
  /** The response. Rejects with LocalStatus only. */
  call(call: LocalCall): Promise<Buffer>;
  /** Whether it takes calls. */
  readonly open: boolean;
  /** Refuses new calls from now on as UNAVAILABLE, and waits for those under way. */
  stop(): Promise<void>;
  /** Cancels every call under way. */
  cut(): void;
}

/** How such calls are limited. */
export interface LocalOptions {
  /** Largest header list of a call, bytes as RFC 9113 section 6.5.2 counts them. */
  readonly maxMetadataBytes: number;
  /** Largest request message, bytes. */
  readonly maxMessageBytes: number;
  /** Calls at once; others wait, as they would on a connection. */
  readonly maxConcurrent: number;
  /** Longest time of a call, that wait included, ms. */
  readonly deadlineMs: number;
}

const statusOf = (code: number, details: string): LocalStatus => new LocalStatus({ code, details, metadata: new Metadata() });

/** Header list of a call, as it would be on the wire. */
const rawHeaders = (metadata: Metadata): string[] => Object.entries(metadata.toHttp2Headers()).flatMap(([name, value]) => [value].flat().flatMap((text) => [name, String(text)]));

/** Opens the way to these RPCs. */
export function createLocal(rpcs: readonly UnaryRpc[], options: LocalOptions): Local {
  const byPath = new Map(rpcs.map((rpc) => [rpc.path, rpc]));
  const waiting = new Set<() => void>();
  const running = new Set<Running>();
  let taken = 0;
  let shut = false;
  let drained: (() => void) | undefined;

  /** Takes one of the places, or waits for one. */
  const enter = (signal: AbortSignal | undefined): Promise<void> | undefined => {
    if (taken < options.maxConcurrent) {
      taken += 1;
      return undefined;
    }
    return new Promise((resolve, reject) => {
      const leave = (code: number) => {
        if (!waiting.delete(begin)) return;
        end();
        reject(statusOf(code, "The call was not begun"));
      };
      const cancel = () => leave(codes.CANCELLED);
      const timer = setTimeout(leave, options.deadlineMs, codes.DEADLINE_EXCEEDED);
      const end = () => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", cancel);
      };
      const begin = () => {
        end();
        resolve();
      };
      waiting.add(begin);
      signal?.addEventListener("abort", cancel, { once: true });
    });
  };
  /** Gives a place to who waits longest. */
  const exit = () => {
    const [next] = waiting;
    if (next !== undefined) {
      waiting.delete(next);
      return next();
    }
    taken -= 1;
    if (taken === 0) drained?.();
  };
  const answer = (rpc: UnaryRpc, { request, metadata, signal }: LocalCall, sound: boolean, deadlineMs: number): Promise<Buffer> =>
    new Promise((resolve, reject) => {
      const refused = shut ? fail("SHUTTING_DOWN") : sound ? undefined : fail("METADATA_INVALID");
      const cancel = () => call.giveUp("CANCELLED");
      const bytes = Buffer.from(request.buffer, request.byteOffset, request.byteLength);
      const call = rpc.begin({ metadata, request: bytes, deadlineMs, ...(refused && { refused }) }, (outcome) => {
        running.delete(call);
        signal?.removeEventListener("abort", cancel);
        if (outcome instanceof CredentialError) reject(new LocalStatus(toStatus(outcome)));
        else resolve(outcome);
      });
      running.add(call);
      if (signal?.aborted) cancel();
      else signal?.addEventListener("abort", cancel, { once: true });
    });

  return {
    async call(call) {
      const rpc = byPath.get(call.path);
      if (rpc === undefined) throw new LocalStatus(UNKNOWN_METHOD);
      const { sound, identified } = readHead(rawHeaders(call.metadata), options.maxMetadataBytes);
      // Who shows no identity where one is needed is told that, whatever else is wrong.
      if (call.request.length > options.maxMessageBytes && (identified || rpc.open)) throw new LocalStatus(TOO_LARGE);
      const came = performance.now();
      const turn = enter(call.signal);
      if (turn) await turn;
      try {
        return await answer(rpc, call, sound, turn ? Math.max(1, options.deadlineMs - (performance.now() - came)) : options.deadlineMs);
      } finally {
        exit();
      }
    },
    get open() {
      return !shut;
    },
    stop() {
      shut = true;
      return taken === 0 ? Promise.resolve() : new Promise((resolve) => (drained = resolve));
    },
    cut() {
      for (const call of running) call.giveUp("CANCELLED");
    },
  };
}
