import type { Certificates } from "./certificates.ts";
import type { EnvelopeCounters } from "./crypto/envelope.ts";
import type { Metrics, Sample } from "./metrics.ts";
import type { StoreLoad } from "./store/load.ts";
import type { Tally } from "./vault/tally.ts";

// What is read at each scrape. Labels are names of ours: pools, lanes, providers and states, and never an id.

const gauge = (metrics: Pick<Metrics, "watch">, name: string, help: string, labelNames: readonly string[], read: () => readonly Sample[]) => metrics.watch({ name, help, labelNames, read });

/** Secrets sealed and opened, and what did not open. */
export function watchSealing(metrics: Pick<Metrics, "watch">, counters: () => EnvelopeCounters): void {
  metrics.watch({
    name: "credentials_sealing_total",
    help: "Secrets sealed and opened.",
    type: "counter",
    labelNames: ["operation"],
    read: () => [[{ operation: "opened" }, counters().opened], [{ operation: "sealed" }, counters().sealed]],
  });
  metrics.watch({
    name: "credentials_unreadable_total",
    help: "Sealed secrets that did not open, by what was wrong.",
    type: "counter",
    labelNames: ["kind"],
    read: () => Object.entries(counters().failed).map(([kind, count]) => [{ kind }, count]),
  });
}

/** How busy the ways to the database are. */
export function watchStore(metrics: Pick<Metrics, "watch">, load: () => StoreLoad): void {
  const pools = (value: (pool: StoreLoad["pools"][number]) => number) => () => load().pools.map((pool): Sample => [{ pool: pool.name }, value(pool)]);
  const lanes = (value: (lane: StoreLoad["lanes"][number]) => number) => () => load().lanes.map((lane): Sample => [{ lane: lane.name }, value(lane)]);
  gauge(metrics, "credentials_pool_connections", "Open database connections of a pool.", ["pool"], pools(({ open }) => open));
  gauge(metrics, "credentials_pool_busy", "Database connections of a pool that are in use.", ["pool"], pools(({ busy }) => busy));
  gauge(metrics, "credentials_pool_waiting", "Calls that wait for a connection of a pool.", ["pool"], pools(({ waiting }) => waiting));
  gauge(metrics, "credentials_pool_limit", "Most connections of a pool.", ["pool"], pools(({ most }) => most));
  gauge(metrics, "credentials_queue_waiting", "Calls that wait for their event to be recorded.", ["lane"], lanes(({ waiting }) => waiting));
  gauge(metrics, "credentials_queue_limit", "Most calls that may wait for their event to be recorded.", ["lane"], lanes(({ most }) => most));
  gauge(metrics, "credentials_audit_lag_seconds", "How long the oldest event has waited that is not recorded yet.", ["lane"], lanes(({ oldestMs }) => oldestMs / 1000));
  gauge(metrics, "credentials_lane_up", "Whether events can be sent to the database.", ["lane"], lanes(({ up }) => (up ? 1 : 0)));
}

/** Connections of clients, and what is allowed. */
export function watchConnections(metrics: Pick<Metrics, "watch">, listeners: () => readonly { readonly name: string; readonly open: number; readonly most: number }[]): void {
  const of = (value: (listener: ReturnType<typeof listeners>[number]) => number) => () => listeners().map((listener): Sample => [{ listener: listener.name }, value(listener)]);
  gauge(metrics, "credentials_connections", "Open connections of clients.", ["listener"], of(({ open }) => open));
  gauge(metrics, "credentials_connections_limit", "Most connections of clients.", ["listener"], of(({ most }) => most));
}

/** How many watch. */
export function watchWatches(metrics: Pick<Metrics, "watch">, open: () => number): void {
  gauge(metrics, "credentials_watches", "Watches of credentials that are open.", [], () => [[{}, open()]]);
}

/** Connection tests that run. */
export function watchTests(metrics: Pick<Metrics, "watch">, tests: () => { readonly running: number; readonly most: number }): void {
  gauge(metrics, "credentials_connection_tests_running", "Connection tests that run now.", [], () => [[{}, tests().running]]);
  gauge(metrics, "credentials_connection_tests_limit", "Most connection tests at a time.", [], () => [[{}, tests().most]]);
}

/** When the certificate of the listeners ends. */
export function watchCertificate(metrics: Pick<Metrics, "watch">, certificates: Certificates): void {
  gauge(metrics, "credentials_tls_certificate_end_timestamp_seconds", "When the certificate of the listeners ends; nothing where they have none.", [], () => (certificates.endsAt === undefined ? [] : [[{}, certificates.endsAt]]));
}

/** When audit heads were last looked at and signed by this process. */
export function watchSigning(metrics: Pick<Metrics, "watch">, signedAtMs: () => number): void {
  gauge(metrics, "credentials_audit_signed_timestamp_seconds", "When this process last signed the audit heads that had moved; the time of its start before that.", [], () => [[{}, signedAtMs() / 1000]]);
}

/** What is counted in the database now and then; the same on every replica, so that dashboards take the largest. */
export function watchTally(metrics: Pick<Metrics, "watch">, latest: () => Tally | undefined): void {
  const of = (read: (tally: Tally) => readonly Sample[]) => () => {
    const tally = latest();
    return tally === undefined ? [] : read(tally);
  };
  gauge(metrics, "credentials_stored", "Credentials by provider and state, without deleted ones.", ["provider", "status"], of(({ states }) => states.map(({ provider, status, count }) => [{ provider, status }, count])));
  gauge(metrics, "credentials_limits_near", "Limits on credentials that are used up to four fifths or more: of an organization for a provider, or of a user.", ["limit"], of(({ near }) => [[{ limit: "provider" }, near.providers], [{ limit: "user" }, near.users]]));
  gauge(metrics, "credentials_refresh_overdue", "Renewals that are due and not begun.", [], of(({ overdue }) => [[{}, overdue.count]]));
  gauge(metrics, "credentials_refresh_lag_seconds", "How long the oldest renewal has been due.", [], of(({ overdue }) => [[{}, overdue.seconds]]));
  gauge(metrics, "credentials_webhook_backlog", "Organizations with events that are not delivered; they wait for nobody where no endpoint is configured.", [], of(({ undelivered }) => [[{}, undelivered.organizations]]));
  gauge(metrics, "credentials_tally_timestamp_seconds", "When these were last counted.", [], of(({ at }) => [[{}, at.getTime() / 1000]]));
}
