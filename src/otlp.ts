import type { ReadableSpan, SpanExporter } from "@opentelemetry/sdk-trace";

/** Sends one request to the collector; rejects where it does not take it. */
export type Post = (body: Buffer) => Promise<void>;

/** How many spans left, and how many did not. */
export interface SpanCounts {
  sent: number;
  lost: number;
}

/** Kinds of spans as OTLP numbers them: one above those of the API. */
const KIND_OFFSET = 1;

const attributes = (facts: Readonly<Record<string, unknown>>) =>
  Object.entries(facts).map(([key, value]) => ({ key, value: typeof value === "number" ? (Number.isInteger(value) ? { intValue: String(value) } : { doubleValue: value }) : { stringValue: String(value) } }));

const nanoseconds = ([seconds, nanos]: readonly [number, number]): string => String(BigInt(seconds) * 1_000_000_000n + BigInt(nanos));

/** Spans of one process as a request of OTLP/HTTP in JSON (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding). */
export function exportRequest(spans: readonly ReadableSpan[]): Buffer {
  const [first] = spans;
  const request = {
    resourceSpans: [{
      resource: { attributes: attributes(first?.resource.attributes ?? {}) },
      scopeSpans: [{
        scope: { name: first?.instrumentationScope.name ?? "" },
        spans: spans.map((span) => ({
          traceId: span.spanContext().traceId,
          spanId: span.spanContext().spanId,
          ...(span.parentSpanContext === undefined ? {} : { parentSpanId: span.parentSpanContext.spanId }),
          flags: span.spanContext().traceFlags,
          name: span.name,
          kind: span.kind + KIND_OFFSET,
          startTimeUnixNano: nanoseconds(span.startTime),
          endTimeUnixNano: nanoseconds(span.endTime),
          attributes: attributes(span.attributes),
          status: span.status.code === 0 ? {} : { code: span.status.code },
        })),
      }],
    }],
  };
  return Buffer.from(JSON.stringify(request));
}

/** Exports spans to a collector. What it does not take is lost, and counted. */
export function otlpExporter(post: Post, counts: SpanCounts): SpanExporter {
  return {
    export(spans, done) {
      void (async () => {
        const error = await post(exportRequest(spans)).then(() => undefined, (cause: unknown) => cause as Error);
        counts[error === undefined ? "sent" : "lost"] += spans.length;
        done(error === undefined ? { code: 0 } : { code: 1, error });
      })();
    },
    forceFlush: async () => {},
    shutdown: async () => {},
  };
}
