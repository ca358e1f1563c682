import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { SETTINGS } from "../src/settings.ts";
import { arrowFaults, cipherFaults, docFaults, forbiddenFaults, importsOf, lengthFaults, MAX_LINES, type Source, wordFaults } from "./support/house.ts";
import { envExample, withSettingsTable } from "./support/settings-text.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const listed = execFileSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], { cwd: root, encoding: "utf8", maxBuffer: 1 << 26 });
const paths = listed.split("\0").filter((path) => path !== "" && existsSync(root + path));
const read = (path: string): Source => ({ path, text: readFileSync(root + path, "utf8") });
const source = (path: string, text: string): Source => ({ path, text });

/** The lockfile's hashes are random text, and descriptor set and package are binary. */
const files = paths.filter((path) => path !== "package-lock.json" && !/\.(binpb|tgz)$/.test(path)).map(read);
const under = (...folders: string[]) => files.filter(({ path }) => folders.some((folder) => path.startsWith(folder)) && path.endsWith(".ts"));

describe("the house", () => {
  test("has all its folders in view", () => {
    expect(under("src/").length).toBeGreaterThan(40);
    expect(under("test/", "bench/", "examples/").length).toBeGreaterThan(20);
  });
  test("imports only along its arrows", () => {
    expect(under("src/").flatMap(arrowFaults)).toEqual([]);
  });
  test("keeps the environment, SQL, ciphers, consoles, sockets and grants where they belong", () => {
    expect(under("src/").flatMap(wordFaults)).toEqual([]);
  });
  test("gives every cipher its tag length", () => {
    expect(under("src/").flatMap(cipherFaults)).toEqual([]);
  });
  test(`has no file over ${MAX_LINES} lines`, () => {
    expect(under("src/", "test/", "bench/", "examples/").flatMap(lengthFaults)).toEqual([]);
  });
  test("documents what it exports", () => {
    expect(under("src/").flatMap(docFaults)).toEqual([]);
  });
  test("commits no private key, no unfinished business and no path of somebody's machine", () => {
    expect(files.filter(({ path }) => !path.startsWith("gen/")).flatMap(forbiddenFaults)).toEqual([]);
  });
});

describe("the settings", () => {
  test("are all in the README's table, which is current", () => {
    const { text } = read("README.md");
    expect(text).toBe(withSettingsTable(text));
  });
  test("the README names no setting that does not exist", () => {
    const named = [...read("README.md").text.matchAll(/\bCREDENTIALS_([A-Z0-9_]*[A-Z0-9])\b/g)].map(([, name = ""]) => name.replace(/_FILE$/, ""));
    const known = new Set(Object.keys(SETTINGS).map((name) => name.replace(/_FILE$/, "")));
    expect([...new Set(named)].filter((name) => !known.has(name))).toEqual([]);
  });
  test("are all in .env.example, which is current", () => {
    expect(read(".env.example").text).toBe(envExample());
  });
});

describe("the checks themselves", () => {
  test.each([
    ["an arrow upwards", "src/store/x.ts", 'import { gate } from "../vault/gate.ts";', "store may not import vault"],
    ["an arrow sideways", "src/auth/x.ts", 'export * from "../crypto/sealed.ts";', "auth may not import crypto"],
    ["an arrow over several lines", "src/rest/x.ts", 'import {\n  a,\n  type B,\n} from "../domain/errors.ts";', "rest may not import domain"],
    ["an import for types only", "src/crypto/x.ts", 'import type { Row } from "../store/store.ts";', "crypto may not import store"],
    ["a dynamic import", "src/domain/x.ts", 'const m = await import("../log.ts");', "domain may not import log"],
    ["generated code", "src/vault/x.ts", 'import { A } from "../../gen/flow/a.ts";', "vault may not import gen"],
    ["a value of config", "src/grpc/x.ts", 'import { type Config, loadConfig } from "../config.ts";', "grpc may not import values of config"],
    ["tests from the source", "src/app.ts", 'import { x } from "../test/support/x.ts";', "app may not import test"],
    ["ssh2 outside providers", "src/vault/x.ts", 'import ssh2 from "ssh2";', "vault may not import ssh2"],
    ["a package nobody listed", "src/auth/x.ts", 'import x from "@left/pad/deep";', "auth may not import @left/pad"],
    ["an outgoing socket", "src/providers/x.ts", 'import { connect, isIP } from "node:net";', "providers may not use connect of node:net"],
    ["a network module as a whole", "src/providers/x.ts", 'import * as net from "node:net";', "providers may not use * of node:net"],
    ["a folder nobody knows", "src/misc/x.ts", "", "misc is not a folder of the house"],
  ])("see %s", (_, path, text, fault) => {
    expect(arrowFaults(source(path, text)).map((line) => line.replace(`${path}: `, ""))).toEqual([fault]);
  });

  test.each([
    ["src/vault/x.ts", 'const key = process.env["KEY"];'],
    ["src/vault/x.ts", "console.error(secret);"],
    ["src/vault/x.ts", 'createHmac("sha256", key)'],
    ["src/vault/x.ts", "await db.raw(`\n  select * from credentials`);"],
    ["src/vault/x.ts", 'db.raw("insert into audit values (1)")'],
    ["src/providers/x.ts", 'await fetch("https://example.com");'],
    ["src/providers/x.ts", "const go = (url: string) => globalThis.fetch(url);"],
    ["src/providers/x.ts", "const answers = urls.map((url) =>\n  fetch(url));"],
    ["src/grpc/x.ts", "const grant = {} as Grant;"],
    ["src/grpc/x.ts", "const grant = {} as unknown as Grant<'x'>;"],
    ["src/rest/x.ts", `/* oxlint-${"disable"} */ // @ts-${"ignore"}\nconst a = 1; /* @ts-${"nocheck"} */`],
    ["src/rest/x.ts", "export const enum A { B }"],
  ])("see a word out of place in %s: %s", (path, text) => {
    expect(wordFaults(source(path, text))).toHaveLength(1);
  });

  test("let words be where they belong, and in comments", () => {
    expect(wordFaults(source("src/store/x.ts", "db.raw(`select id from credentials`)"))).toEqual([]);
    expect(wordFaults(source("src/vault/x.ts", "/** Never `console.log` or process.env. */\nconst a = 1; // fetch(url)\n"))).toEqual([]);
    expect(wordFaults(source("src/domain/x.ts", "export interface Guarded {\n  fetch(request: Request): Promise<Response>;\n}"))).toEqual([]);
    expect(arrowFaults(source("src/egress/x.ts", 'import { connect } from "node:net";\nimport { Resolver } from "node:dns/promises";'))).toEqual([]);
    expect(arrowFaults(source("src/grpc/x.ts", 'import type { Config } from "../config.ts";\nimport { errorFields } from "../log.ts";\nimport { isIPv6 } from "node:net";'))).toEqual([]);
  });

  test("see a cipher without a tag length, a long file, an export without a comment", () => {
    expect(cipherFaults(source("src/crypto/x.ts", 'const c = createDecipheriv("aes-256-gcm",\n  key, iv);'))).toHaveLength(1);
    expect(cipherFaults(source("src/crypto/x.ts", 'const c = createCipheriv("aes-256-gcm", key, iv, { authTagLength: 16 });'))).toEqual([]);
    expect([lengthFaults(source("src/x.ts", "a\n".repeat(MAX_LINES + 1))), lengthFaults(source("src/x.ts", "a\n".repeat(MAX_LINES)))]).toEqual([[expect.stringContaining("301 lines")], []]);
    const text = "/** Said. */\nexport const a = 1;\nexport const b = 2;\n\nexport async function c() {}\n// not enough\nexport interface D {}\n";
    expect(docFaults(source("src/x.ts", text))).toEqual(["src/x.ts:5: c has no doc comment", "src/x.ts:7: D has no doc comment"]);
  });

  test.each([
    ["src/x.ts", `see ${["..", "shared", "x"].join("/")}`],
    ["README.md", `cd ${["", "work", "main"].join("/")}`],
    ["src/x.ts", `// TO${"DO"}: later`],
    ["proto/x.proto", `// FIX${"ME"}`],
    ["src/x.ts", `as security.${"md"} says`],
    ["deploy/key.pem", `-----BEGIN EC PRIVATE KEY-----\n${"A".repeat(64)}\n`],
  ])("see what may not be committed in %s: %s", (path, text) => {
    expect(forbiddenFaults(source(path, text))).toHaveLength(1);
  });

  test("read every form of import", () => {
    const text = 'import "./a.ts";\nimport b, { c as d, type E } from "./b.ts";\nimport type { F } from "./f.ts";\nexport { type G } from "./g.ts";\nexport * from "./h.ts";\nlet i: typeof import("./i.ts");\n';
    expect(importsOf(text).map(({ specifier, typesOnly }) => [specifier, typesOnly])).toEqual([
      ["./b.ts", false], ["./f.ts", true], ["./g.ts", true], ["./h.ts", false], ["./a.ts", false], ["./i.ts", false],
    ]);
  });
});
