import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { loadConfig } from "../../src/config.ts";
import { SETTINGS } from "../../src/settings.ts";
import { makeCertificate } from "../support/certificate.ts";
import { type Manifest, manifests, typeFaults } from "../support/manifests.ts";
import { temporaryFolder } from "../support/service.ts";

interface Container { readonly name: string; readonly image: string; readonly env?: { name: string; value: string }[]; readonly envFrom?: { configMapRef: { name: string } }[]; readonly ports?: { name: string; containerPort: number }[]; readonly volumeMounts: { name: string; mountPath: string; readOnly?: boolean }[]; readonly [key: string]: any }

const all = manifests();
const of = (kind: string): Manifest[] => all.filter((object) => object.kind === kind);
const pods = [...of("Deployment"), ...of("Job")].map(({ kind, spec }) => ({ kind, template: spec.template, container: spec.template.spec.containers[0] as Container }));
const deployment = of("Deployment")[0] as Manifest;

describe("the manifests", () => {
  test("are what the types of the Kubernetes API say", () => {
    expect(typeFaults(all)).toBe("");
  });

  test("and the types would see a field that does not exist, and a value of another type", () => {
    const broken = structuredClone(deployment);
    broken.spec.template.spec.containers[0].readynessProbe = {};
    broken.spec.replicas = "3";
    const faults = typeFaults([broken]);
    expect(faults).toContain("readynessProbe");
    expect(faults).toContain("'string' is not assignable to type 'number'");
  });

  test("let pods do as little as can be", () => {
    expect(pods.map(({ kind }) => kind)).toEqual(["Deployment", "Job"]);
    for (const { kind, template, container } of pods) {
      expect(template.spec, kind).toMatchObject({ automountServiceAccountToken: false, enableServiceLinks: false, securityContext: { runAsNonRoot: true, runAsUser: 65532, seccompProfile: { type: "RuntimeDefault" } } });
      expect(container["securityContext"]).toEqual({ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } });
      expect(container["resources"].limits.memory).toBeDefined();
      expect(container.volumeMounts.filter(({ mountPath }) => mountPath !== "/tmp").every(({ readOnly }) => readOnly)).toBe(true);
      const volumes = new Set((template.spec.volumes as { name: string }[]).map(({ name }) => name));
      expect(container.volumeMounts.filter(({ name }) => !volumes.has(name))).toEqual([]);
      expect(container.image).toMatch(/:\d+\.\d+\.\d+$/);
    }
  });

  test("give secrets as files and never as values", () => {
    const written = [...of("ConfigMap").flatMap(({ data = {} }) => Object.keys(data)), ...pods.flatMap(({ container }) => (container.env ?? []).map(({ name }) => name))];
    const secret = Object.entries(SETTINGS).flatMap(([name, setting]) => ("secret" in setting ? [`CREDENTIALS_${name}`] : []));
    expect(written.filter((name) => secret.includes(name))).toEqual([]);
    expect(of("Secret")).toEqual([]);
  });

  test("ask for readiness and life where they are told, and stop no replica before its calls have ended", () => {
    const { container, template } = pods[0] as (typeof pods)[0];
    const ops = container.ports?.find(({ name }) => name === "ops")?.containerPort;
    expect(of("ConfigMap")[0]?.data?.["CREDENTIALS_OPS_LISTEN"]).toBe(`0.0.0.0:${ops}`);
    expect([container["startupProbe"].httpGet, container["readinessProbe"].httpGet, container["livenessProbe"].httpGet]).toEqual([{ path: "/readyz", port: "ops" }, { path: "/readyz", port: "ops" }, { path: "/healthz", port: "ops" }]);
    expect(template.spec.terminationGracePeriodSeconds * 1000).toBeGreaterThan(Number(of("ConfigMap")[0]?.data?.["CREDENTIALS_SHUTDOWN_GRACE_MS"]));
    expect(deployment.spec.strategy.rollingUpdate.maxUnavailable).toBe(0);
  });

  test("choose the pods that there are, and ports that they have", () => {
    const labels = deployment.spec.template.metadata.labels as Record<string, string>;
    const chosen = (selector: Record<string, string>) => Object.entries(selector).every(([key, value]) => labels[key] === value);
    const selectors = [deployment.spec.selector.matchLabels, ...of("Service").map(({ spec }) => spec.selector), ...of("PodDisruptionBudget").map(({ spec }) => spec.selector.matchLabels), ...of("NetworkPolicy").map(({ spec }) => spec.podSelector.matchLabels)];
    expect(selectors.length).toBe(5);
    expect(selectors.filter((selector) => !chosen(selector))).toEqual([]);
    const ports = new Set(pods[0]?.container.ports?.map(({ name }) => name));
    const asked = [...of("Service").flatMap(({ spec }) => spec.ports.map((port: { targetPort: string }) => port.targetPort)), ...of("NetworkPolicy").flatMap(({ spec }) => spec.ingress.flatMap((rule: { ports: { port: string }[] }) => rule.ports.map(({ port }) => port)))];
    expect(asked.filter((port) => !ports.has(port))).toEqual([]);
    expect(of("PodDisruptionBudget")[0]?.spec.maxUnavailable).toBeLessThan(deployment.spec.replicas);
  });

  test("hold settings that a production service takes", async () => {
    using folder = temporaryFolder();
    const { cert, key, ca } = await makeCertificate();
    const files: Record<string, string> = { "tls.crt": cert, "tls.key": key, "database-ca": ca };
    for (const { kind, container } of pods) {
      const env = Object.fromEntries([...(container.envFrom ?? []).flatMap(({ configMapRef }) => Object.entries(of("ConfigMap").find(({ metadata }) => metadata.name === configMapRef.name)?.data ?? {})), ...(container.env ?? []).map(({ name, value }) => [name, value] as const)]);
      mkdirSync(join(folder.path, kind));
      for (const [name, value] of Object.entries(env)) {
        if (!name.endsWith("_FILE")) continue;
        const file = value.split("/").at(-1) as string;
        env[name] = join(folder.path, kind, file);
        writeFileSync(env[name], files[file] ?? `text of ${file}`);
      }
      expect(loadConfig(env).settings.profile, kind).toBe("production");
    }
  });
});
