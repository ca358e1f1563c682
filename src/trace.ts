import { AsyncLocalStorage } from "node:async_hooks";

/** Whether a span serves somebody, asks somebody else, or is work in between. */
export type SpanKind = "server" | "client" | "internal";

/** What may be said of a span: names, codes and ids of ours; never a parameter, a secret or a tenant's value. */
export type SpanFacts = Readonly<Record<string, string | number | undefined>>;

/** A piece of work that has begun. */
export interface Span {
  /** Identity of the trace, 32 hexadecimal digits. */
  readonly traceId: string;
  /** The header by which another process takes the trace up (https://www.w3.org/TR/trace-context/#traceparent-header). */
  readonly traceparent: string;
  /** Ends it. Later calls do nothing. */
  end(facts?: SpanFacts): void;
}

/** What makes spans. */
export interface Tracing {
  /** Begins a span below another one: one of this process, or the one that a valid `traceparent` names. */
  begin(name: string, kind: SpanKind, parent: Span | string | undefined): Span;
}

/** One process has one tracing, as it has one log: off until it is started, and then nothing is kept or loaded for it. */
let tracing: { readonly by: Tracing; readonly current: AsyncLocalStorage<Span> } | undefined;

/** Traces from now on, until it is disposed of. */
export function startTracing(by: Tracing): Disposable {
  const started = { by, current: new AsyncLocalStorage<Span>() };
  tracing = started;
  return {
    [Symbol.dispose]() {
      if (tracing === started) tracing = undefined;
    },
  };
}

const VALID = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;

/** Whether a text is a `traceparent` of the one version there is. */
export const isTraceparent = (text: string): boolean => VALID.test(text) && text.startsWith("00");

/**
 * Begins a span below the current one, or below what the caller's `traceparent` names. Undefined where nothing is traced.
 *
 * @param given every `traceparent` that came with a request; anything but one valid one counts as none
 */
export function beginSpan(name: string, kind: SpanKind, given?: readonly string[]): Span | undefined {
  if (tracing === undefined) return undefined;
  const [traceparent, ...more] = given ?? [];
  const remote = traceparent !== undefined && more.length === 0 && isTraceparent(traceparent) ? traceparent : undefined;
  return tracing.by.begin(name, kind, remote ?? tracing.current.getStore());
}

/** Does work as part of a span: what it begins is below it. */
export const within = <T>(span: Span | undefined, work: () => T): T => (span === undefined || tracing === undefined ? work() : tracing.current.run(span, work));

/** Begins work that is part of no span. */
export const outside = <T>(work: () => T): T => (tracing === undefined ? work() : tracing.current.exit(work));

/** Does work in a span of its own. A failure is told by its word or its type, never by its message. */
export function traced<T>(name: string, kind: SpanKind, work: () => Promise<T>, facts?: (result: T) => SpanFacts): Promise<T> {
  const span = beginSpan(name, kind);
  return span === undefined ? work() : spanned(span, work, facts);
}

async function spanned<T>(span: Span, work: () => Promise<T>, facts: ((result: T) => SpanFacts) | undefined): Promise<T> {
  try {
    const result = await within(span, work);
    span.end(facts?.(result));
    return result;
  } catch (error) {
    span.end({ "error.type": errorType(error) });
    throw error;
  }
}

/** What is said of a failure: the word of an error of ours, the code of SQL, or else the type. */
export function errorType(error: unknown): string {
  const { reason, code, name } = (error ?? {}) as { reason?: unknown; code?: unknown; name?: unknown };
  const word = [reason, code, name].find((text) => typeof text === "string" && /^\w{1,64}$/.test(text));
  return typeof word === "string" ? word : "error";
}

/** The current span; undefined where nothing is traced. */
export const currentSpan = (): Span | undefined => tracing?.current.getStore();
