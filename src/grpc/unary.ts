import { status as codes } from "@grpc/grpc-js";
import type { z } from "zod";
import type { Action, Call, Caller, CallerOf } from "../domain/access.ts";
import { isUuid } from "../domain/credential.ts";
import { CredentialError, fail, GRPC_CODE, REASONS } from "../domain/errors.ts";
import { errorFields, type Log } from "../log.ts";
import { beginSpan, type SpanFacts, within } from "../trace.ts";
import { admit, type Grant, recordRefusal } from "../vault/gate.ts";
import type { RecordedAnswer } from "../vault/use-cases.ts";
import { afterwards } from "./afterwards.ts";
import { type Codec, decodeRequest } from "./decode.ts";
import type { GrpcDeps } from "./deps.ts";
import type { CallMetadata } from "./headers.ts";
import { callFacts, NO_FACTS, presented, requestIdOf } from "./metadata.ts";
import { parseRequest, PROTOTYPE_KEY, unreadable } from "./parse.ts";
import { toCredentialError } from "./status.ts";

/** What the adapter needs. */
export type UnaryDeps = Omit<GrpcDeps, "vault"> & {
  /** Deadline of a call that brings none, and the longest one granted, ms. */
  readonly deadlineMs: number;
  /** Whether connections may carry client certificates. */
  readonly clientCertificates?: boolean;
};

/** One RPC: who may call it is decided by its action, everything else is said here. */
export interface UnarySpec<A extends Action, S extends z.ZodType, Request extends z.input<S>, Response> {
  readonly action: A;
  /** The method as it was generated. */
  readonly method: { readonly path: string; readonly responseSerialize: (response: Response) => Buffer };
  /** The generated type of its request. */
  readonly request: Codec<Request>;
  /** Rules that a request has to pass; what they give is the input of the use case. */
  readonly input: S;
  readonly run: (grant: Grant<A>, input: z.output<S>) => Promise<Response> | Response;
  /** The credential a request is about, as its caller spelt it; for the audit record and the log. */
  readonly credentialId?: (request: Request) => string;
  /** Present for a write that its caller may repeat under an idempotency key. */
  readonly repeat?: {
    /** The organization it is about, where it is not simply the caller's own. */
    readonly organizationId?: (grant: Grant<A>, input: z.output<S>) => string;
    /** The answer to a repetition, from the row that was committed with the first one. */
    readonly answer: (recorded: RecordedAnswer) => Response;
  };
}

/** A call as it came, whichever way. */
export interface Incoming {
  readonly metadata: CallMetadata;
  readonly request: Buffer;
  /** SHA-256 fingerprint of the connection's client certificate. Node makes its object anew each time. */
  readonly certificate?: () => string | undefined;
  /** Why it is refused before it is looked at. */
  readonly refused?: CredentialError;
  /** What is left of its deadline, ms; the longest one where not given. */
  readonly deadlineMs?: number;
}

/** A call that is being answered. */
export interface Running {
  /** Ends it, unless it has been answered. */
  giveUp(reason: "CANCELLED" | "DEADLINE_EXCEEDED"): void;
}

/** One RPC with one message each way, which are bytes here: they are read and written inside. */
export interface UnaryRpc {
  /** Full name of its method, with slashes. */
  readonly path: string;
  /** Answers a call, whichever way it came, once. */
  readonly begin: (call: Incoming, reply: (outcome: Buffer | CredentialError, requestId: string) => void) => Running;
  /** Whether it can be called without an identity. */
  readonly open?: true;
}

/** What is learnt about a call while it is answered. */
interface Trace {
  caller: Caller | null;
  credentialId: string | null;
}

/**
 * Makes an RPC. Every call is authenticated, admitted, parsed and run in this order, and each refusal of a verified
 * caller is recorded before it leaves. A call is answered once, at its deadline at the latest: what a use case gives
 * after that is dropped. Text of errors that are not ours stays inside.
 */
export function unary<A extends Action, S extends z.ZodType, Request extends z.input<S>, Response>(
  deps: UnaryDeps,
  spec: UnarySpec<A, S, Request, Response>,
): UnaryRpc {
  return answering(deps, spec.method.path, (call, attempt) => perform(deps, spec, call, attempt));
}

/** An RPC that needs no identity; what a request has to bring instead, its use case asks. */
export interface OpenSpec<S extends z.ZodType, Request extends z.input<S>, Response> extends Pick<UnarySpec<Action, S, Request, Response>, "method" | "request" | "input"> {
  readonly run: (call: Pick<Attempt, "requestId" | "signal">, input: z.output<S>) => Promise<Response>;
}

/** Makes such an RPC. Its request is parsed and run; an identity that comes with it is not looked at. */
export function open<S extends z.ZodType, Request extends z.input<S>, Response>(deps: UnaryDeps, spec: OpenSpec<S, Request, Response>): UnaryRpc {
  const rpc = answering(deps, spec.method.path, async ({ metadata, request: bytes }, { requestId, signal }) => {
    const facts = callFacts(metadata);
    if (facts instanceof CredentialError) throw facts;
    const decoded = decodeRequest(spec.request, bytes);
    if (!decoded) throw unreadable(facts.reported);
    const input = parseRequest(spec.input, decoded.message, facts.reported);
    return spec.method.responseSerialize(await spec.run({ requestId, signal }, input));
  });
  return { ...rpc, open: true };
}

type Perform = (call: Incoming, attempt: Attempt) => Promise<Buffer>;

function answering(deps: UnaryDeps, path: string, performing: Perform): UnaryRpc {
  const begin: UnaryRpc["begin"] = (call, reply) => {
    const started = performance.now();
    const requestId = requestIdOf(call.metadata);
    const span = beginSpan(path.slice(1), "server", call.metadata.get("traceparent").map(String));
    const trace: Trace = { caller: null, credentialId: null };
    const aborter = new AbortController();
    let answered = false;
    const answer = (outcome: Buffer | CredentialError) => {
      if (answered) return;
      answered = true;
      clearTimeout(timer);
      const seconds = (performance.now() - started) / 1000;
      reply(outcome, requestId);
      span?.end(spanFacts(path, requestId, outcome));
      const tell = () => within(span, () => report(deps, { path, requestId, trace, outcome, seconds }));
      // A caller does not wait for its line in the log; what has gone wrong is told at once.
      if (outcome instanceof CredentialError) tell();
      else afterwards(tell);
    };
    const giveUp: Running["giveUp"] = (reason) => {
      // A stream ends after every call, finished ones included.
      if (answered) return;
      const error = fail(reason);
      aborter.abort(error);
      answer(error);
    };
    const timer = setTimeout(giveUp, call.deadlineMs ?? deps.deadlineMs, "DEADLINE_EXCEEDED");
    const work = () => (call.refused ? Promise.reject(call.refused) : performing(call, { requestId, signal: aborter.signal, trace }));
    within(span, work).then(answer, (error: unknown) => answer(toCredentialError(error)));
    return { giveUp };
  };
  return { path, begin };
}

/** What the span of a call says. Who called, and what about, is in the log and in the audit trail, and not in a trace. */
export function spanFacts(path: string, requestId: string, outcome: Buffer | CredentialError): SpanFacts {
  const [, service, method] = path.split("/");
  const error = outcome instanceof CredentialError ? outcome.reason : undefined;
  const code = outcome instanceof CredentialError ? GRPC_CODE[REASONS[outcome.reason].grpc] : codes.OK;
  return { "rpc.system": "grpc", "rpc.service": service, "rpc.method": method, "rpc.grpc.status_code": code, "flow.request_id": requestId, "error.type": error };
}

interface Attempt {
  readonly requestId: string;
  readonly signal: AbortSignal;
  readonly trace: Trace;
}

async function perform<A extends Action, S extends z.ZodType, Request extends z.input<S>, Response>(
  deps: UnaryDeps,
  spec: UnarySpec<A, S, Request, Response>,
  { metadata, request: bytes, certificate }: Incoming,
  { requestId, signal, trace }: Attempt,
): Promise<Buffer> {
  // Asked for only where there can be one.
  const identity = presented(metadata, deps.clientCertificates ? certificate?.() : undefined);
  const caller = deps.authenticator.known(identity) ?? (await deps.authenticator.authenticate(identity));
  trace.caller = caller;
  const read = callFacts(metadata);
  const facts = read instanceof CredentialError ? NO_FACTS : read;
  const proven: Call = { caller, requestId, flowId: facts.flowId, runId: facts.runId, signal };
  const decoded = decodeRequest(spec.request, bytes);
  trace.credentialId = knownId(decoded && spec.credentialId?.(decoded.message));
  try {
    const asked = deps.reception.receive(proven, spec.action);
    const grant = admit(asked === null ? proven : { ...proven, scope: await asked }, spec.action);
    if (read instanceof CredentialError) throw read;
    if (!decoded) throw unreadable(facts.reported);
    const faults = decoded.prototypeKey ? [...facts.reported, PROTOTYPE_KEY] : facts.reported;
    const input = parseRequest(spec.input, decoded.message, faults);
    signal.throwIfAborted();
    return spec.method.responseSerialize(await run(deps, spec, grant, { input, request: decoded.message, key: facts.idempotencyKey }));
  } catch (error) {
    if (error instanceof CredentialError) await recordRefusal(deps.audit, proven, spec.action, error, trace.credentialId);
    throw error;
  }
}

/** Runs a call: once under its key, where it is a write that came with one. */
async function run<A extends Action, S extends z.ZodType, Request extends z.input<S>, Response>(
  { repeats }: UnaryDeps,
  { action, repeat, run: perform }: UnarySpec<A, S, Request, Response>,
  grant: Grant<A>,
  { input, request, key }: { readonly input: z.output<S>; readonly request: Request; readonly key: string | null },
): Promise<Response> {
  if (key === null || !repeat) return perform(grant, input);
  const caller: Caller = grant.caller satisfies CallerOf<A>;
  const organizationId = repeat.organizationId?.(grant, input) ?? (caller.kind === "operator" ? undefined : caller.organizationId);
  if (organizationId === undefined) return perform(grant, input);
  const { call } = grant;
  return repeats.once({ call, action, organizationId, key, request }, async (idempotency) => perform(admit({ ...call, idempotency }, action), input), repeat.answer);
}

/** The id a caller gave, where it is one: anything else may be a secret in the wrong place. */
function knownId(text: string | undefined): string | null {
  return text !== undefined && isUuid(text) ? text.toLowerCase() : null;
}

/** Reasons that an operator has to look at. */
const ALARMS: ReadonlySet<string> = new Set(["INTERNAL", "DATA_LOSS"]);

/** How a call went. */
export interface Report {
  readonly path: string;
  readonly requestId: string;
  readonly trace: Trace;
  readonly outcome: Buffer | CredentialError;
  readonly seconds: number;
}

/** Writes the line of a call that has ended, and counts it. */
export function report(deps: { log: Log; metrics: UnaryDeps["metrics"] }, { path, requestId, trace, outcome, seconds }: Report): void {
  const error = outcome instanceof CredentialError ? outcome : undefined;
  const code = error ? REASONS[error.reason].grpc : (codes[codes.OK] as string);
  const { caller, credentialId } = trace;
  const fields = {
    request_id: requestId,
    method: path,
    code,
    reason: error?.reason,
    duration_ms: Math.round(seconds * 1_000_000) / 1000,
    caller_kind: caller?.kind,
    caller_id: caller?.id,
    organization_id: caller && caller.kind !== "operator" ? caller.organizationId : undefined,
    credential_id: credentialId ?? undefined,
    incident: error?.incident,
    ...(error?.cause === undefined ? {} : errorFields(error.cause)),
  };
  deps.log[ALARMS.has(code) ? "error" : code === "UNAVAILABLE" ? "warn" : "info"](fields, "call");
  deps.metrics.observe({ method: path, code, seconds, reason: error?.reason });
}
