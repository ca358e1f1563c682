import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from "prom-client";

/** What the gRPC adapter reports of each call. */
export interface CallObservation {
  /** Full method name, from the service definition; never from the request. */
  readonly method: string;
  /** Name of the gRPC status code. */
  readonly code: string;
  readonly seconds: number;
}

/** Counters of sealing, read when they are asked for. */
export interface SealingCounters {
  readonly opened: number;
  readonly sealed: number;
  /** Failures to open, by kind; outside they are all one failure. */
  readonly failed: Readonly<Record<string, number>>;
}

/** The service's metrics, in the Prometheus text format. */
export interface Metrics {
  observe(call: CallObservation): void;
  /** Reads these counters at each scrape. */
  watchSealing(counters: () => SealingCounters): void;
  /** Reads how many watch at each scrape. */
  watchWatchers(watchers: () => number): void;
  /** Counts a renewal of an access token. */
  renewed(provider: string, outcome: string): void;
  /** Counts a delivery of a webhook. */
  delivered(outcome: string): void;
  render(): Promise<{ contentType: string; body: string }>;
}

/** Upper bounds of the latency buckets, s. */
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15];

/** Metrics of one process, in a registry of their own. Labels are names and codes, never ids. */
export function createMetrics(): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  // It would tell whoever can reach the metrics which faults of Node.js to try.
  registry.removeSingleMetric("nodejs_version_info");
  const calls = new Histogram({
    name: "credentials_call_seconds",
    help: "Duration of gRPC calls, REST's included.",
    labelNames: ["method", "code"],
    buckets: BUCKETS,
    registers: [registry],
  });
  const renewals = new Counter({
    name: "credentials_refresh_total",
    help: "Renewals of access tokens, by how they ended; our_client_rejected needs an operator.",
    labelNames: ["provider", "outcome"],
    registers: [registry],
  });
  const deliveries = new Counter({ name: "credentials_webhook_total", help: "Deliveries of webhooks, by how they ended.", labelNames: ["outcome"], registers: [registry] });
  return {
    renewed: (provider, outcome) => renewals.inc({ provider, outcome }),
    delivered: (outcome) => deliveries.inc({ outcome }),
    observe: ({ method, code, seconds }) => calls.observe({ method, code }, seconds),
    watchWatchers(watchers) {
      new Gauge({
        name: "credentials_watches",
        help: "Watches of credentials that are open.",
        registers: [registry],
        collect() {
          this.set(watchers());
        },
      });
    },
    watchSealing(counters) {
      new Counter({
        name: "credentials_sealing_total",
        help: "Secrets sealed and opened.",
        labelNames: ["operation"],
        registers: [registry],
        collect() {
          const { opened, sealed } = counters();
          this.reset();
          this.inc({ operation: "opened" }, opened);
          this.inc({ operation: "sealed" }, sealed);
        },
      });
      new Counter({
        name: "credentials_unreadable_total",
        help: "Sealed secrets that did not open, by what was wrong.",
        labelNames: ["kind"],
        registers: [registry],
        collect() {
          this.reset();
          for (const [kind, count] of Object.entries(counters().failed)) this.inc({ kind }, count);
        },
      });
    },
    render: async () => ({ contentType: registry.contentType, body: await registry.metrics() }),
  };
}
