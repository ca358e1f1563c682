import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseAllDocuments } from "yaml";

/** One Kubernetes object as it is written. */
export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly labels?: Readonly<Record<string, string>> };
  readonly spec?: any;
  readonly data?: Readonly<Record<string, string>>;
}

/** The documents of a YAML file; throws for what is not plain YAML 1.2 with keys of their own. */
export function readYaml<T>(path: string): T[] {
  return parseAllDocuments(readFileSync(path, "utf8"), { merge: true, strict: true, uniqueKeys: true }).map((document) => {
    if (document.errors.length > 0 || document.warnings.length > 0) throw new Error(`${path}: ${[...document.errors, ...document.warnings].join("; ")}`);
    return document.toJS() as T;
  });
}

/** Every Kubernetes object of the project. */
export const manifests = (): Manifest[] => readdirSync("deploy/kubernetes").sort().flatMap((file) => readYaml<Manifest>(join("deploy/kubernetes", file)));

/** Where the types of an API are, by its version as a manifest writes it. */
const MODULES: Readonly<Record<string, string>> = { v1: "core/v1", "apps/v1": "apps/v1", "batch/v1": "batch/v1", "policy/v1": "policy/v1", "networking.k8s.io/v1": "networking/v1" };

/** What the types of the Kubernetes API say of objects: fields that do not exist, and values of another type. Empty where all is well. */
export function typeFaults(objects: readonly object[]): string {
  mkdirSync("node_modules/.cache", { recursive: true });
  const folder = mkdtempSync("node_modules/.cache/manifests-");
  try {
    const lines = objects.flatMap((object, index) => {
      const { apiVersion, kind } = object as Manifest;
      const from = MODULES[apiVersion];
      if (from === undefined) throw new Error(`${apiVersion} is not known`);
      return [`import type { ${kind} as Kind${index} } from "kubernetes-types/${from}.d.ts";`, `export const object${index}: Kind${index} = ${JSON.stringify(object)};`];
    });
    writeFileSync(join(folder, "objects.ts"), lines.join("\n"));
    execFileSync(join("node_modules", ".bin", "tsc"), ["--noEmit", "--strict", "--skipLibCheck", "--ignoreConfig", "--allowImportingTsExtensions", "--module", "nodenext", "--target", "es2024", join(folder, "objects.ts")], { encoding: "utf8" });
    return "";
  } catch (error) {
    return String((error as { stdout?: string }).stdout ?? error);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
