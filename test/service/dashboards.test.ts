import { readFileSync } from "node:fs";
import { beforeAll, expect, test, vi } from "vitest";
import { parse } from "yaml";
import { type Scrape, scrape } from "../support/metrics.ts";
import { startFresh } from "../support/service.ts";

interface Panel { readonly type: string; readonly title: string; readonly id: number; readonly targets?: readonly { readonly expr: string; readonly refId: string }[] }
interface Dashboard { readonly panels: readonly Panel[]; readonly templating: { readonly list: readonly { readonly definition?: string }[] } }
interface Rule { readonly alert: string; readonly expr: string; readonly labels: { readonly severity: string }; readonly annotations: { readonly summary: string } }

const dashboard = JSON.parse(readFileSync("deploy/grafana/dashboard.json", "utf8")) as Dashboard;
const rules = (parse(readFileSync("deploy/prometheus/alerts.yaml", "utf8")) as { groups: { rules: Rule[] }[] }).groups.flatMap((group) => group.rules);
const expressions = [...dashboard.panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr)), ...dashboard.templating.list.flatMap(({ definition }) => definition ?? []), ...rules.map(({ expr }) => expr)];

/** Labels of metrics that have no sample until something goes wrong, or is asked of a provider. */
const SAMPLELESS: Readonly<Record<string, readonly string[]>> = {
  credentials_refresh_total: ["provider", "outcome", "cause"],
  credentials_webhook_total: ["outcome"],
  credentials_connection_test_total: ["provider", "layer"],
  credentials_audit_failed_total: ["lane"],
  credentials_stored: ["provider", "status"],
};
/** Labels that Prometheus adds by itself, and those that it makes of histograms. */
const ADDED = ["job", "instance", "le"];

/** Every metric that an expression names, and the labels it is asked for. */
function selectors(expr: string): { name: string; labels: string[] }[] {
  return [...expr.matchAll(/\b((?:credentials|process|nodejs)_\w+)(?:\{([^}]*)\})?/g)].map(([, name = "", inner = ""]) => ({ name, labels: [...inner.matchAll(/(\w+)\s*(?:=~|!~|!=|=)/g)].map(([, label = ""]) => label) }));
}
const base = (name: string) => name.replace(/_(bucket|sum|count)$/, "");

let metrics: Scrape;
beforeAll(async () => {
  await using service = await startFresh({ CREDENTIALS_OTLP_ENDPOINT: "http://127.0.0.1:9", CREDENTIALS_TALLY_INTERVAL_MS: "100" });
  await fetch(`${service.rest}/integrations/credentials`);
  await vi.waitFor(async () => {
    metrics = await scrape(service);
    expect(metrics.value("credentials_tally_timestamp_seconds")).toBeDefined();
  }, { timeout: 15_000, interval: 100 });
}, 60_000);

const known = (name: string) => (metrics.types.get(base(name)) === "histogram" ? metrics.types.has(base(name)) && base(name) !== name : metrics.types.has(name));

test("every metric that the dashboard and the alerts name is one that the service has", () => {
  const named = [...new Set(expressions.flatMap(selectors).map(({ name }) => name))];
  expect(named.length).toBeGreaterThan(30);
  expect(named.filter((name) => !known(name))).toEqual([]);
});

test("and is asked only for labels that it has", () => {
  const faults = expressions.flatMap(selectors).flatMap(({ name, labels }) => {
    const sample = metrics.samples.find((each) => each.name === name || each.name === `${name}_bucket`);
    const has = [...ADDED, ...(sample ? Object.keys(sample.labels) : (SAMPLELESS[name] ?? []))];
    return labels.filter((label) => !has.includes(label)).map((label) => `${name} has no label ${label}`);
  });
  expect(faults).toEqual([]);
});

test("every metric of the service that tells of trouble is looked at by somebody", () => {
  const named = new Set(expressions.flatMap(selectors).map(({ name }) => base(name)));
  const ours = [...metrics.types.keys()].filter((name) => name.startsWith("credentials_"));
  expect(ours.filter((name) => !named.has(name) && !named.has(base(name)))).toEqual([]);
});

test("alerts have names, severities and sentences of their own; panels have titles and ids of their own", () => {
  expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length);
  for (const { alert, labels, annotations } of rules) {
    expect(alert).toMatch(/^Credentials[A-Z]\w+$/);
    expect(["info", "warning", "critical"]).toContain(labels.severity);
    expect(annotations.summary.length).toBeGreaterThan(10);
  }
  expect(new Set(dashboard.panels.map(({ id }) => id)).size).toBe(dashboard.panels.length);
  for (const panel of dashboard.panels) expect(panel.type === "row" || (panel.targets ?? []).length > 0, panel.title).toBe(true);
});

test("there is an alert for dying grants, failing renewals, half rotated keys, a stopped audit and limits that are near", () => {
  const alerts = rules.map(({ alert }) => alert);
  for (const alert of ["CredentialsGrantsDying", "CredentialsRefreshFailing", "CredentialsKeysHalfRotated", "CredentialsAuditStopped", "CredentialsLimitsNear", "CredentialsQueueNearLimit"]) expect(alerts).toContain(alert);
});

test("a name that does not exist, or a label, would be seen", () => {
  expect([known("credentials_made_up_total"), known("credentials_call_seconds_bucket"), known("credentials_call_seconds")]).toEqual([false, true, false]);
  expect(selectors('sum by (a) (rate(credentials_x_total{b="c", d=~"e|f"}[5m])) / credentials_y')).toEqual([{ name: "credentials_x_total", labels: ["b", "d"] }, { name: "credentials_y", labels: [] }]);
});
