import { type handleServerStreamingCall, Metadata, type MethodDefinition, type ServerWritableStream } from "@grpc/grpc-js";
import type { z } from "zod";
import type { Action, Call, Caller } from "../domain/access.ts";
import { CredentialError, fail } from "../domain/errors.ts";
import { admit, type Grant, recordRefusal } from "../vault/gate.ts";
import { beginSpan, within } from "../trace.ts";
import { type Codec, decodeRequest } from "./decode.ts";
import { callFacts, NO_FACTS, presented, requestIdOf } from "./metadata.ts";
import { parseRequest, unreadable } from "./parse.ts";
import { toCredentialError, toStatus } from "./status.ts";
import { report, spanFacts, type UnaryDeps } from "./unary.ts";

/** Where the messages of one call go. */
export interface Outgoing<Response> {
  send(response: Response): void;
  /** Messages that were sent and have not left yet. */
  readonly queued: number;
  /** Ends the call, once. */
  end(error: CredentialError): void;
}

/** What is known of the caller of a long call. */
export interface LongCall<A extends Action> {
  readonly grant: Grant<A>;
  /** Until when the proof of the caller holds, ms since the epoch. */
  readonly provenUntilMs: number;
  /** Proves the same caller once more. Rejects where it is not proven any more. */
  readonly prove: () => Promise<number>;
}

/** One RPC that answers with a stream of messages, until somebody ends it. */
export interface StreamSpec<A extends Action, S extends z.ZodType, Request extends z.input<S>, Response> {
  readonly action: A;
  readonly method: { readonly path: string; readonly responseSerialize: (response: Response) => Buffer };
  readonly request: Codec<Request>;
  readonly input: S;
  /** Begins; what it gives is called when the call is really gone. */
  readonly run: (call: LongCall<A>, input: z.output<S>, out: Outgoing<Response>) => Promise<() => void>;
}

/** Such an RPC in the form a server takes. */
export interface StreamRpc {
  readonly definition: MethodDefinition<Buffer, Buffer>;
  readonly handler: handleServerStreamingCall<Buffer, Buffer>;
  /** Whether it can be called without an identity. */
  readonly open?: true;
}

const same = (bytes: Buffer): Buffer => bytes;

/**
 * Makes an RPC with a stream of answers. Its beginning is that of every call: authenticated, admitted, parsed, and each
 * refusal of a verified caller recorded. It has no deadline but one that its caller brings.
 */
export function serverStream<A extends Action, S extends z.ZodType, Request extends z.input<S>, Response>(deps: UnaryDeps, spec: StreamSpec<A, S, Request, Response>): StreamRpc {
  const { path } = spec.method;
  const bytes = { requestSerialize: same, requestDeserialize: same, responseSerialize: same, responseDeserialize: same };
  return {
    definition: { path, requestStream: false, responseStream: true, ...bytes },
    handler: (call) => {
      const started = performance.now();
      const requestId = requestIdOf(call.metadata);
      const span = beginSpan(path.slice(1), "server", call.metadata.get("traceparent").map(String));
      const aborter = new AbortController();
      const trace: { caller: Caller | null } = { caller: null };
      let [gone, free] = [false, () => {}];
      let outcome: CredentialError | undefined;
      const end = (error: CredentialError): void => {
        if (outcome || gone) return;
        outcome = error;
        aborter.abort(error);
        // The library sends the status of an error after what was written before it.
        call.emit("error", toStatus(error));
      };
      const out: Outgoing<Response> = {
        send: (response) => void (outcome || gone || call.write(spec.method.responseSerialize(response))),
        get queued() {
          return call.writableLength;
        },
        end,
      };
      // grpc-js says "cancelled" after every call, finished ones included: only then is nothing held for it any more.
      call.once("cancelled", () => {
        gone = true;
        aborter.abort(fail("CANCELLED"));
        free();
        const seconds = (performance.now() - started) / 1000;
        const ended = outcome ?? fail("CANCELLED");
        within(span, () => report(deps, { path, requestId, trace: { ...trace, credentialId: null }, outcome: ended, seconds }));
        span?.end(spanFacts(path, requestId, ended));
      });
      const initial = new Metadata();
      initial.set("x-request-id", requestId);
      call.sendMetadata(initial);
      within(span, () => begin(deps, spec, call, { requestId, signal: aborter.signal, trace, out })).then(
        (freeing) => (gone ? freeing() : (free = freeing)),
        (error: unknown) => end(toCredentialError(error)),
      );
    },
  };
}

interface Attempt<Response> {
  readonly requestId: string;
  readonly signal: AbortSignal;
  readonly trace: { caller: Caller | null };
  readonly out: Outgoing<Response>;
}

async function begin<A extends Action, S extends z.ZodType, Request extends z.input<S>, Response>(
  deps: UnaryDeps,
  { action, request, input: rules, run }: StreamSpec<A, S, Request, Response>,
  stream: ServerWritableStream<Buffer, Buffer>,
  { requestId, signal, trace, out }: Attempt<Response>,
): Promise<() => void> {
  const certificate = deps.clientCertificates ? stream.getAuthContext().sslPeerCertificate?.fingerprint256 : undefined;
  const shown = presented(stream.metadata, certificate);
  const { caller, untilMs } = await deps.authenticator.prove(shown);
  trace.caller = caller;
  const read = callFacts(stream.metadata);
  const facts = read instanceof CredentialError ? NO_FACTS : read;
  const proven: Call = { caller, requestId, flowId: facts.flowId, runId: facts.runId, signal };
  const prove = async (): Promise<number> => {
    const again = await deps.authenticator.prove(shown);
    if (again.caller.kind !== caller.kind || again.caller.id !== caller.id) throw fail("INVALID_TOKEN");
    return again.untilMs;
  };
  try {
    const grant = admit({ ...proven, scope: await deps.reception.receive(proven, action) }, action);
    if (read instanceof CredentialError) throw read;
    const decoded = decodeRequest(request, stream.request);
    if (!decoded) throw unreadable(facts.reported);
    const input = parseRequest(rules, decoded.message, facts.reported);
    signal.throwIfAborted();
    return await run({ grant, provenUntilMs: untilMs, prove }, input, out);
  } catch (error) {
    if (error instanceof CredentialError) await recordRefusal(deps.audit, proven, action, error, null);
    throw error;
  }
}
