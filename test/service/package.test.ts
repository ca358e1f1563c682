import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Packed, packProject, unpack } from "../support/package.ts";
import { freshDatabase } from "../support/postgres.ts";
import { rest, serviceEnv, startService, temporaryFolder, token } from "../support/service.ts";
import { importsOf } from "../support/house.ts";

const LONG = process.env["FLOW_TEST_LONG"] !== undefined;

let folder: ReturnType<typeof temporaryFolder>;
let packed: Packed;
let installed: string;
beforeAll(() => {
  folder = temporaryFolder();
  packed = packProject(folder.path);
  installed = unpack(packed, folder.path);
}, 120_000);
afterAll(() => folder[Symbol.dispose]());

/** A service that runs from what is installed, and what it does first. */
async function runs(from: string): Promise<void> {
  await using database = await freshDatabase("empty");
  const env = serviceEnv(database);
  const migrated = execFileSync(process.execPath, [join(from, "dist/src/cli/main.js"), "migrate"], { env, encoding: "utf8" });
  expect(migrated).toContain("0001");
  await using service = await startService(env, join(from, "dist/src/main.js"));
  const user = await token("user", randomUUID());
  const body = { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example", username: "u", password: "p" } };
  expect((await rest(service, "POST", "/integrations/credentials", { token: user, body })).status).toBe(201);
  // The tests run in processes of their own, from a file of their own; the reference is read from files, too.
  const tested = await rest(service, "POST", "/integrations/sftp/test-connection", { token: user, body: { host: "169.254.1.1", username: "u", auth_type: "password", password: "p" } });
  expect(tested.json).toMatchObject({ success: false, layer: "address" });
  for (const path of ["/openapi.json", "/docs", "/docs/swagger-ui-bundle.js", "/metrics"]) expect((await rest(service, "GET", path)).status, path).toBe(200);
  expect(await service.stop()).toBe(0);
}

describe("the package", () => {
  test("holds what runs, its types for clients, and nothing else", () => {
    const strangers = packed.files.filter((path) => !/^(package\.json|README\.md|LICENSE|dist\/gen\/(descriptors\.binpb|openapi\.json|.*\.(js|d\.ts))|dist\/src\/.*\.js|dist\/src\/client\/.*\.d\.ts)$/.test(path));
    expect(strangers).toEqual([]);
    expect(packed.files.filter((path) => /(^|\/)(openapi|test|bench|deploy|examples)\/|\.map$|\.env/.test(path))).toEqual([]);
    for (const path of ["dist/src/main.js", "dist/src/cli/main.js", "dist/src/client/index.js", "dist/src/client/index.d.ts", "dist/src/egress/probe-child.js", "dist/gen/descriptors.binpb"]) expect(packed.files).toContain(path);
    expect(packed.unpackedBytes).toBeLessThan(4_000_000);
  });

  test("imports only what it depends on, and files that are in it", () => {
    const { dependencies } = JSON.parse(readFileSync(join(installed, "package.json"), "utf8")) as { dependencies: Record<string, string> };
    const faults = packed.files.filter((path) => path.endsWith(".js")).flatMap((path) =>
      importsOf(readFileSync(join(installed, path), "utf8")).flatMap(({ specifier }) => {
        if (specifier.startsWith(".")) return packed.files.includes(join(path, "..", specifier)) ? [] : [`${path}: ${specifier} is not packed`];
        const name = specifier.split("/").slice(0, specifier.startsWith("@") ? 2 : 1).join("/");
        return isBuiltin(specifier) || Object.hasOwn(dependencies, name) ? [] : [`${path}: ${name} is no dependency`];
      }),
    );
    expect(faults).toEqual([]);
  });

  test("migrates, starts, tests a connection and shows its reference", () => runs(installed), 90_000);

  test("is taken by a program that uses the client, and by its types", () => {
    writeFileSync(join(folder.path, "use.ts"), 'import { createCredentialClient } from "flow-credentials/client";\nconst client = createCredentialClient({ target: "127.0.0.1:1", token: "t" });\nconst id: string = (await client.getCredential({ credentialId: "x" }).catch(() => ({ credential: { id: "none" } }))).credential?.id ?? "";\nconsole.log(id);\nclient.close();\n');
    writeFileSync(join(folder.path, "package.json"), '{"type":"module"}');
    execFileSync(resolve("node_modules/.bin/tsc"), ["--noEmit", "--ignoreConfig", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2024", "--lib", "es2024,esnext.disposable", "--types", "node", "--typeRoots", resolve("node_modules/@types"), "use.ts"], { cwd: folder.path });
    expect(execFileSync(process.execPath, ["use.ts"], { cwd: folder.path, encoding: "utf8" })).toBe("none\n");
  });

  // A minute of the registry's time, and so not each time.
  if (LONG) test("installs into an empty project from the registry, without what only development needs, and starts there", async () => {
    using empty = temporaryFolder();
    writeFileSync(join(empty.path, "package.json"), '{"name":"empty","private":true}');
    execFileSync("npm", ["install", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", packed.tarball], { cwd: empty.path });
    const there = join(empty.path, "node_modules");
    expect(execFileSync("npm", ["ls", "--all", "--omit=optional"], { cwd: empty.path, encoding: "utf8" })).toContain("flow-credentials@");
    for (const name of ["vitest", "typescript", "@bufbuild/buf", "ts-proto", "oidc-provider"]) expect(() => readFileSync(join(there, name, "package.json"))).toThrow();
    expect(execFileSync(process.execPath, [join(there, ".bin/flow-credentials"), "--help"], { encoding: "utf8" })).toContain("serve");
    await runs(join(there, "flow-credentials"));
  }, 600_000);
});
