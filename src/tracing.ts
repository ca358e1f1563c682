import type { Context, SpanContext, TimeInput } from "@opentelemetry/api";
import { readPem } from "./certificates.ts";
import { type Config, ConfigError, isLoopback } from "./config.ts";
import { createOperatorHttp } from "./egress/operator-http.ts";
import { errorFields, identified, type Log } from "./log.ts";
import type { Metrics } from "./metrics.ts";
import { otlpExporter, type Post, type SpanCounts } from "./otlp.ts";
import { type Span, startTracing, type Tracing } from "./trace.ts";

/** The name of what makes the spans. */
const NAME = "flow-credentials";

/** Longest time of one export, ms; spans that wait beside it are bounded, and those beyond are lost. */
const EXPORT_MS = 10_000;
const WAITING = 4_096;

/** Most facts of a span, and the longest of them, in characters. */
const LIMITS = { attributeCountLimit: 16, attributeValueLengthLimit: 128 };

/**
 * Exports traces, where a collector is configured; until then no module is loaded for it. Disposing of it sends what is left.
 * Throws ConfigError.
 */
export async function traceTo(config: Config, log: Log, metrics: Pick<Metrics, "watch">): Promise<AsyncDisposable | undefined> {
  const endpoint = config.settings.otlpEndpoint;
  if (endpoint === undefined) return undefined;
  const post = postTo(config, endpoint, log);
  const [api, sdk, resources] = await Promise.all([import("@opentelemetry/api"), import("@opentelemetry/sdk-trace"), import("@opentelemetry/resources")]);
  const counts: SpanCounts = { sent: 0, lost: 0 };
  metrics.watch({ name: "credentials_spans_total", help: "Spans of traces, by whether the collector took them.", type: "counter", labelNames: ["outcome"], read: () => [[{ outcome: "sent" }, counts.sent], [{ outcome: "lost" }, counts.lost]] });
  const exporter = otlpExporter(post, counts);
  const provider = new sdk.TracerProvider({
    resource: resources.resourceFromAttributes({ "service.name": NAME }),
    sampler: new sdk.ParentBasedSampler({ root: new sdk.TraceIdRatioBasedSampler(config.settings.traceSamplePercent / 100) }),
    spanProcessors: [new sdk.BatchSpanProcessor({ exporter, scheduledDelayMillis: config.settings.otlpIntervalMs, exportTimeoutMillis: EXPORT_MS, maxQueueSize: WAITING })],
    spanLimits: LIMITS,
  });
  const tracer = provider.getTracer(NAME);
  const kinds = { server: api.SpanKind.SERVER, client: api.SpanKind.CLIENT, internal: api.SpanKind.INTERNAL };
  const contexts = new WeakMap<Span, Context>();
  const below = (parent: Span | string | undefined): Context => {
    if (parent === undefined) return api.ROOT_CONTEXT;
    return typeof parent === "string" ? api.trace.setSpanContext(api.ROOT_CONTEXT, remote(parent)) : (contexts.get(parent) ?? api.ROOT_CONTEXT);
  };
  const tracing: Tracing = {
    begin(name, kind, parent) {
      const opened = tracer.startSpan(name, { kind: kinds[kind], startTime: now() }, below(parent));
      const { traceId, spanId, traceFlags } = opened.spanContext();
      const span: Span = {
        traceId,
        traceparent: `00-${traceId}-${spanId}-${traceFlags.toString(16).padStart(2, "0")}`,
        end(facts = {}) {
          for (const [key, value] of Object.entries(facts)) if (value !== undefined) opened.setAttribute(key, value);
          if (facts["error.type"] !== undefined) opened.setStatus({ code: api.SpanStatusCode.ERROR });
          if (opened.isRecording()) opened.end(now());
        },
      };
      contexts.set(span, api.trace.setSpan(api.ROOT_CONTEXT, opened));
      return span;
    },
  };
  const started = startTracing(tracing);
  return {
    async [Symbol.asyncDispose]() {
      started[Symbol.dispose]();
      await provider.shutdown().catch(() => {});
    },
  };
}

/** Spans of one process are measured by its monotonic clock. */
const now = (): TimeInput => performance.timeOrigin + performance.now();

/** What a `traceparent` that was found valid says. */
function remote(traceparent: string): SpanContext {
  const [, traceId = "", spanId = "", flags = ""] = traceparent.split("-");
  return { traceId, spanId, traceFlags: Number.parseInt(flags, 16) & 1, isRemote: true };
}

/** The way to the collector. That it is out of reach is said once, until it is within reach again. */
function postTo(config: Config, endpoint: string, log: Log): Post {
  const { settings, secrets } = config;
  const url = new URL(`${endpoint.replace(/\/+$/, "")}/v1/traces`);
  if (url.username !== "" || url.search !== "" || url.hash !== "") throw new ConfigError("CREDENTIALS_OTLP_ENDPOINT must not have a user, a query or a fragment");
  const given = secrets.otlpHeaders?.reveal();
  if (given !== undefined && url.protocol !== "https:" && !isLoopback(url.hostname)) throw new ConfigError("CREDENTIALS_OTLP_HEADERS needs an endpoint that is https, or on this machine");
  const headers = { "content-type": "application/json", ...(given === undefined ? {} : readHeaders(given)) };
  const http = createOperatorHttp(settings.otlpCaFile === undefined ? undefined : readPem("CREDENTIALS_OTLP_CA_FILE", settings.otlpCaFile));
  let failing = false;
  return async (body) => {
    try {
      const { status } = await http({ method: "POST", url, headers, body, signal: AbortSignal.timeout(EXPORT_MS) });
      if (status < 200 || status > 299) throw Object.assign(new Error("refused"), { code: status });
      failing = false;
    } catch (error) {
      if (!failing) identified(log).warn(errorFields(error), "the collector of traces does not take them");
      failing = true;
      throw error;
    }
  };
}

/** `name=value` pairs, comma-separated. */
function readHeaders(text: string): Record<string, string> {
  const pairs = text.split(",").map((pair) => /^\s*([A-Za-z0-9-]{1,64})=([\x21-\x7e][\x20-\x7e]*?)\s*$/.exec(pair));
  if (pairs.some((pair) => pair === null)) throw new ConfigError("CREDENTIALS_OTLP_HEADERS must be name=value pairs, comma-separated");
  return Object.fromEntries(pairs.map((pair) => [pair?.[1]?.toLowerCase() ?? "", pair?.[2] ?? ""]));
}
