import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));
const json = (path: string) => JSON.parse(readFileSync(root + path, "utf8"));
const manifest: { scripts: Record<string, string>; dependencies: Record<string, string>; devDependencies: Record<string, string>; optionalDependencies: Record<string, string> } = json("package.json");
interface Locked { version: string; license?: string; dev?: boolean; devOptional?: boolean; optional?: boolean; resolved?: string; integrity?: string; link?: boolean }
const lock: { packages: Record<string, Locked> } = json("package-lock.json");
const installed = Object.entries(lock.packages).filter(([path]) => path !== "");

const BUF = [join(root, "node_modules/@bufbuild/buf/bin/buf")];
const buf = (...args: string[]) => spawnSync(process.execPath, [...BUF, ...args], { cwd: root, encoding: "utf8" });

describe("the protocol", () => {
  test("passes buf lint, and every element has its comment", () => {
    const { status, stdout, stderr } = buf("lint");
    expect(stdout + stderr).toBe("");
    expect(status).toBe(0);
  });

  test("is formatted", () => {
    expect(buf("format", "-d", "--exit-code", "proto")).toMatchObject({ status: 0, stdout: "" });
  });

  test("lints without exceptions of its own", () => {
    const config = readFileSync(`${root}buf.yaml`, "utf8");
    expect(config).toMatch(/\nlint:\n {2}use: \[STANDARD, COMMENTS\]\nbreaking:\n/);
    expect(config).not.toMatch(/except|ignore_only|disallow_comment_ignores: false/);
    const ignored = [...config.matchAll(/ignore: \[([^\]]*)\]/g)].flatMap(([, list = ""]) => list.split(","));
    expect(ignored.filter((path) => !path.trim().startsWith("node_modules/"))).toEqual([]);
  });

  test("is what the committed descriptor set says", () => {
    const folder = mkdtempSync(join(tmpdir(), "flow-descriptors-"));
    try {
      const fresh = join(folder, "descriptors.binpb");
      const command = / buf (build [^&]* -o gen\/descriptors\.binpb[^&]*) &&/.exec(manifest.scripts["gen"] ?? "")?.[1] ?? "";
      const { status, stderr } = buf(...command.replace("gen/descriptors.binpb", fresh).split(" "));
      expect(status, stderr).toBe(0);
      expect(readFileSync(fresh).equals(readFileSync(`${root}gen/descriptors.binpb`))).toBe(true);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

describe("the packages", () => {
  test("have exact versions", () => {
    const ranges = Object.entries({ ...manifest.dependencies, ...manifest.devDependencies, ...manifest.optionalDependencies });
    expect(ranges.filter(([, version]) => !/^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$/.test(version))).toEqual([]);
  });

  test("are locked as the manifest says, by hash, and to no host but the public registry", () => {
    const direct = Object.entries({ ...manifest.dependencies, ...manifest.devDependencies, ...manifest.optionalDependencies });
    expect(direct.filter(([name, version]) => lock.packages[`node_modules/${name}`]?.version !== version)).toEqual([]);
    expect(installed.filter(([, { integrity }]) => !integrity?.startsWith("sha512-")).map(([path]) => path)).toEqual([]);
    expect(installed.filter(([, { resolved }]) => resolved !== undefined && !resolved.startsWith("https://registry.npmjs.org/")).map(([path]) => path)).toEqual([]);
  });

  test("run no code when they are installed", () => {
    expect(readFileSync(`${root}.npmrc`, "utf8")).toMatch(/^ignore-scripts=true$/m);
    expect(Object.keys(manifest.scripts).filter((name) => /^(pre|post)|^(install|prepare)$/.test(name))).toEqual([]);
  });

  test("that reach production have a permissive licence", () => {
    const PERMISSIVE = new Set(["MIT", "ISC", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "Apache-2.0", "Unlicense", "BlueOak-1.0.0", "CC0-1.0", "PostgreSQL", "Python-2.0"]);
    const licences = installed
      .filter(([path, { dev }]) => !dev && existsSync(`${root}${path}/package.json`))
      .map(([path]) => [path, licenceOf(json(`${path}/package.json`))] as const);
    expect(licences.length).toBeGreaterThan(50);
    expect(licences.filter(([, words]) => words.length === 0 || !words.every((word) => PERMISSIVE.has(word)))).toEqual([]);
  });
});

/** The licences a package names (SPDX, or npm's two older forms); for alternatives the first. */
function licenceOf({ license, licenses }: { license?: string | { type: string }; licenses?: { type: string }[] }): string[] {
  const text = typeof license === "string" ? license : (license?.type ?? licenses?.[0]?.type ?? "");
  const alternatives = text.replace(/[()]/g, "").split(/\s+OR\s+/);
  return (alternatives[0] ?? "").split(/\s+AND\s+/).filter((word) => word !== "");
}

test("everything runs on the Node.js that the lockfile pins", () => {
  const pinned = manifest.optionalDependencies[`node-${process.platform}-${process.arch}`];
  expect(process.version).toBe(pinned === undefined ? process.version : `v${pinned}`);
  expect(execFileSync(process.execPath, ["-p", "typeof process.features.typescript"], { encoding: "utf8" }).trim()).toBe("string");
});
