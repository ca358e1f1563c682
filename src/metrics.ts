import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from "prom-client";

/** What the gRPC adapter reports of each call. */
export interface CallObservation {
  /** Full method name, from the service definition; never from the request. */
  readonly method: string;
  /** Name of the gRPC status code. */
  readonly code: string;
  readonly seconds: number;
  /** Why it was refused, a word of the error table; undefined where it was not. */
  readonly reason?: string | undefined;
}

/** A metric that is read when it is asked for. */
export interface Watched {
  readonly name: string;
  readonly help: string;
  /** A gauge unless said otherwise. */
  readonly type?: "gauge" | "counter";
  readonly labelNames: readonly string[];
  readonly read: () => readonly Sample[] | Promise<readonly Sample[]>;
}

/** One value of such a metric, with its labels. */
export type Sample = readonly [labels: Readonly<Record<string, string>>, value: number];

/** The service's metrics, in the Prometheus text format. */
export interface Metrics {
  observe(call: CallObservation): void;
  /** Adds a metric that is read at each scrape. */
  watch(metric: Watched): void;
  /** Counts a renewal of an access token; the cause is a word of ours. */
  renewed(provider: string, outcome: string, cause: string | undefined): void;
  /** Counts a delivery of a webhook. */
  delivered(outcome: string): void;
  /** Counts a connection test; the layer where it ended, undefined for one that passed. */
  tested(provider: string, layer: string | undefined): void;
  /** Notes a transaction that recorded events: how many, how long the first of them had waited, and whether they stand. */
  recorded(lane: string, batch: { readonly events: number; readonly seconds: number; readonly stands: boolean }): void;
  render(): Promise<{ contentType: string; body: string }>;
}

/** Upper bounds of the latency buckets, s. */
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15];

/** Most words that one label may have; what comes beyond is `other`. */
const MAX_WORDS = 64;

/** Keeps a label to few words, whatever is handed in. */
function bounded(): (word: string) => string {
  const words = new Set<string>();
  return (word) => {
    if (words.size < MAX_WORDS) words.add(word);
    return words.has(word) ? word : "other";
  };
}

/**
 * Metrics of one process, in a registry of their own. Labels are names and codes, never ids.
 *
 * @param reasons every word of the error table, so that a first refusal is seen as an increase
 */
export function createMetrics(reasons: readonly string[] = []): Metrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  // It would tell whoever can reach the metrics which faults of Node.js to try.
  registry.removeSingleMetric("nodejs_version_info");
  const counter = (name: string, help: string, labelNames: string[]) => new Counter({ name, help, labelNames, registers });
  const histogram = (name: string, help: string, labelNames: string[]) => new Histogram({ name, help, labelNames, buckets: BUCKETS, registers });
  const calls = histogram("credentials_call_seconds", "Duration of gRPC calls, REST's included.", ["method", "code"]);
  const refusals = counter("credentials_refusals_total", "Calls that were refused or failed, by the word of the error table.", ["reason"]);
  const renewals = counter("credentials_refresh_total", "Renewals of access tokens, by how they ended and why; our_client_rejected needs an operator.", ["provider", "outcome", "cause"]);
  const deliveries = counter("credentials_webhook_total", "Deliveries of webhooks, by how they ended.", ["outcome"]);
  const tests = counter("credentials_connection_test_total", "Connection tests, by the layer where they ended; none for those that passed.", ["provider", "layer"]);
  const commits = histogram("credentials_audit_commit_seconds", "From the moment when an event is to be recorded until it is, of the one that waited longest in each transaction.", ["lane"]);
  const unrecorded = counter("credentials_audit_failed_total", "Events that could not be recorded; their calls were refused.", ["lane"]);
  for (const reason of reasons) refusals.inc({ reason }, 0);
  const [cause, layer] = [bounded(), bounded()];
  return {
    observe({ method, code, seconds, reason }) {
      calls.observe({ method, code }, seconds);
      if (reason !== undefined) refusals.inc({ reason });
    },
    watch({ name, help, type, labelNames, read }) {
      const options = { name, help, labelNames: [...labelNames], registers };
      if (type === "counter") {
        new Counter({ ...options, async collect() {
          const samples = await read();
          this.reset();
          for (const [labels, value] of samples) this.inc(labels, value);
        } });
      } else {
        new Gauge({ ...options, async collect() {
          const samples = await read();
          this.reset();
          for (const [labels, value] of samples) this.set(labels, value);
        } });
      }
    },
    renewed: (provider, outcome, why) => renewals.inc({ provider, outcome, cause: cause(why ?? "none") }),
    delivered: (outcome) => deliveries.inc({ outcome }),
    tested: (provider, ended) => tests.inc({ provider, layer: layer(ended ?? "none") }),
    recorded(lane, { events, seconds, stands }) {
      if (stands) commits.observe({ lane }, seconds);
      else unrecorded.inc({ lane }, events);
    },
    render: async () => ({ contentType: registry.contentType, body: await registry.metrics() }),
  };
}
