/**
 * The bill of materials of what is shipped, CycloneDX: `npm run -s sbom`. npm writes one of everything that is installed; with `--omit dev`
 * it leaves out what development needs as well, so that it is asked for all, and the rest is taken away here.
 */
import { execFileSync } from "node:child_process";
import { shipped } from "./licences.ts";

interface Bill {
  readonly bomFormat: string;
  readonly metadata: { readonly component: { readonly "bom-ref": string } };
  readonly components: readonly { readonly "bom-ref": string; readonly purl: string; readonly name: string; readonly version: string }[];
  readonly dependencies: readonly { readonly ref: string; readonly dependsOn?: readonly string[] }[];
}

/** `name@version` of a component, from its package URL. */
export const identityOf = (purl: string): string => decodeURIComponent(purl.replace(/\?.*$/, "").replace("pkg:npm/", ""));

/** The bill, with what is shipped and nothing else. */
export function bill(): Bill {
  const all = JSON.parse(execFileSync("npm", ["sbom", "--sbom-format", "cyclonedx", "--sbom-type", "application", "--package-lock-only"], { encoding: "utf8", maxBuffer: 1 << 27 })) as Bill;
  const wanted = new Set(shipped().map(({ name, version }) => `${name}@${version}`));
  const components = all.components.filter(({ purl }) => wanted.has(identityOf(purl)));
  const kept = new Set([all.metadata.component["bom-ref"], ...components.map((component) => component["bom-ref"])]);
  const dependencies = all.dependencies.filter(({ ref }) => kept.has(ref)).map((entry) => ({ ...entry, dependsOn: (entry.dependsOn ?? []).filter((ref) => kept.has(ref)) }));
  return { ...all, components, dependencies };
}

if (import.meta.main) process.stdout.write(`${JSON.stringify(bill(), null, 2)}\n`);
