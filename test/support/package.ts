import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, symlinkSync } from "node:fs";
import { join, resolve } from "node:path";

/** The package as it is published, made in a folder of its own. */
export interface Packed {
  readonly tarball: string;
  /** What is in it. */
  readonly files: readonly string[];
  readonly unpackedBytes: number;
}

/** Compiles and packs the project as `npm run build` and `npm pack` do, without touching its folder. */
export function packProject(folder: string): Packed {
  const source = join(folder, "source");
  mkdirSync(join(source, "dist"), { recursive: true });
  const { scripts } = JSON.parse(readFileSync("package.json", "utf8")) as { scripts: Record<string, string> };
  const copied = /cp ([^&]*) dist\/gen\/$/.exec(scripts["build"] as string)?.[1]?.trim().split(" ") ?? [];
  if (copied.length === 0) throw new Error("the build no longer copies what is not compiled");
  execFileSync(join("node_modules", ".bin", "tsc"), ["-p", "tsconfig.build.json", "--outDir", join(source, "dist")]);
  for (const path of copied) cpSync(path, join(source, "dist", path));
  for (const path of ["package.json", "README.md", "LICENSE"]) cpSync(path, join(source, path));
  const [packed] = Object.values(JSON.parse(execFileSync("npm", ["pack", "--json", "--pack-destination", folder], { cwd: source, encoding: "utf8" }))) as [{ filename: string; files: { path: string }[]; unpackedSize: number }];
  return { tarball: join(folder, packed.filename), files: packed.files.map(({ path }) => path).sort(), unpackedBytes: packed.unpackedSize };
}

/** Unpacks it into an empty project whose other packages are those of this one; gives the package's folder. */
export function unpack({ tarball }: Pick<Packed, "tarball">, project: string): string {
  const installed = join(project, "node_modules", "flow-credentials");
  mkdirSync(installed, { recursive: true });
  execFileSync("tar", ["-xzf", tarball, "-C", installed, "--strip-components=1"]);
  symlinkSync(resolve("node_modules"), join(installed, "node_modules"));
  return installed;
}
