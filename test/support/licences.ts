/**
 * What the service is made of, by licence: `npm run -s licences` prints it in Markdown, from the lockfile and the installed packages.
 * A package whose licence is not on the list is a fault.
 */
import { existsSync, readFileSync } from "node:fs";

/** Licences under which a package may be shipped with the service, by their SPDX ids: none of them asks for our own source. */
export const ALLOWED: ReadonlySet<string> = new Set(["0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BlueOak-1.0.0", "CC0-1.0", "ISC", "MIT", "PostgreSQL", "Python-2.0", "Unlicense"]);

/** A package that is shipped. */
export interface Shipped {
  readonly name: string;
  readonly version: string;
  /** An SPDX expression; undefined where the package names none. */
  readonly licence: string | undefined;
}

interface Locked { readonly version: string; readonly license?: string; readonly dev?: boolean; readonly link?: boolean }

/** Everything that is installed without the development dependencies, in the order of its name. */
export function shipped(): Shipped[] {
  const { packages } = JSON.parse(readFileSync("package-lock.json", "utf8")) as { packages: Record<string, Locked> };
  return Object.entries(packages)
    .filter(([path, { dev, link }]) => path !== "" && dev !== true && link !== true)
    .map(([path, { version, license }]) => ({ name: path.replace(/^.*node_modules\//, ""), version, licence: license ?? legacyLicence(path) }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Old packages name their licences in a list, which the lockfile does not repeat; others have the text alone. */
function legacyLicence(path: string): string | undefined {
  if (!existsSync(`${path}/package.json`)) return undefined;
  const { licenses } = JSON.parse(readFileSync(`${path}/package.json`, "utf8")) as { licenses?: readonly { readonly type: string }[] };
  return licenses?.map(({ type }) => type).join(" OR ");
}

/** Whether an SPDX expression of ids, AND, OR and brackets can be met with allowed licences alone. */
export function isAllowed(expression: string): boolean {
  const words = expression.replaceAll("(", " ( ").replaceAll(")", " ) ").split(/\s+/).filter((word) => word !== "");
  const any = (): boolean => {
    let met = both();
    while (words[0] === "OR") {
      words.shift();
      met = both() || met;
    }
    return met;
  };
  const both = (): boolean => {
    let met = one();
    while (words[0] === "AND") {
      words.shift();
      met = one() && met;
    }
    return met;
  };
  const one = (): boolean => {
    const word = words.shift() ?? "";
    if (word !== "(") return ALLOWED.has(word);
    const met = any();
    return words.shift() === ")" && met;
  };
  const met = any();
  return met && words.length === 0;
}

/** The packages whose licence is not allowed, or not told. */
export const faults = (packages: readonly Shipped[]): string[] => packages.filter(({ licence }) => licence === undefined || !isAllowed(licence)).map(({ name, version, licence }) => `${name}@${version}: ${licence ?? "no licence is named"}`);

/** The report, in Markdown. */
export function report(packages: readonly Shipped[]): string {
  const byLicence = Map.groupBy(packages, ({ licence }) => licence ?? "none");
  const parts = [...byLicence].sort(([a], [b]) => (a < b ? -1 : 1)).map(([licence, members]) => `## ${licence}\n\n${members.map(({ name, version }) => `- ${name} ${version}`).join("\n")}\n`);
  return `# Licences\n\n${packages.length} packages are shipped with the service.\n\n${parts.join("\n")}`;
}

if (import.meta.main) {
  const packages = shipped();
  process.stdout.write(report(packages));
  const wrong = faults(packages);
  for (const fault of wrong) process.stderr.write(`not allowed: ${fault}\n`);
  if (wrong.length > 0) process.exitCode = 1;
}
