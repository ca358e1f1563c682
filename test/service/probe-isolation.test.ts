import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findings } from "../../src/providers/index.ts";
import { canary } from "../support/canary.ts";
import { behave, childrenOf, SCRIPTED_ENTRY, shownBy, testProber } from "../support/probe-tools.ts";

const FAILED = { success: false, layer: "protocol", reason: "test_failed", message: "The test could not be finished.", nextStep: expect.any(String), details: {} };
const POISON = canary("environment");
const NAMES = ["PGPASSWORD", "PGHOST", "PGUSER", "PGSSLROOTCERT", "SSH_AUTH_SOCK", "NODE_EXTRA_CA_CERTS", "AWS_SECRET_ACCESS_KEY", "CREDENTIALS_MASTER_KEYS", "HOME"];
const saved = new Map(NAMES.map((name) => [name, process.env[name]]));
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(realpathSync(tmpdir()), "flow-probe-"));
  for (const name of NAMES) process.env[name] = POISON;
});
afterAll(() => {
  rmSync(folder, { recursive: true });
  for (const [name, value] of saved) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
});

const scripted = (options: Parameters<typeof testProber>[0] = {}) => testProber({ entry: SCRIPTED_ENTRY, ...options });

describe("the process of a test", () => {
  test("has no environment, no arguments and no folder", async () => {
    await using it = scripted();
    const { details } = await it.run(behave("environment"));
    expect(details).toEqual({ names: "", arguments: "", cwd: "/" });
  });

  test("shows neither the secret nor anything of the service's environment to who lists processes", async () => {
    await using it = scripted();
    const secret = canary("secret");
    const stop = new AbortController();
    const run = it.run(behave("hang", { password: secret }), stop).catch(() => {});
    const shown = childrenOf().map(shownBy).join("");
    stop.abort();
    await run;
    expect(shown).toContain("--permission");
    expect([shown.includes(secret), shown.includes(POISON)]).toEqual([false, false]);
  });

  test("may read no file but its code, write none, and start no program and no thread", async () => {
    await using it = scripted();
    const file = join(folder, "tenant.pem");
    writeFileSync(file, "content");
    const { details } = await it.run(behave("locks", { file }));
    const no = "ERR_ACCESS_DENIED";
    expect(details).toEqual({
      passwd: no, environ: no, exists: no, read: no, write: no, append: no, program: no, thread: no, inspector: no,
      code: "failed", proto: "ERR_PROTO_ACCESS",
    });
    expect(readFileSync(file, "utf8")).toBe("content");
  });

  test("is heard by nobody when it prints", async () => {
    // The script's own output is what would show it: the children's must not be in it.
    const script = `
      import { behave, SCRIPTED_ENTRY, testProber } from ${JSON.stringify(new URL("../support/probe-tools.ts", import.meta.url).href)};
      const it = testProber({ entry: SCRIPTED_ENTRY });
      const { success } = await it.run(behave("loud"));
      const { reason } = await it.run(behave("throw"));
      console.log(success, reason);
      await it.prober.close();`;
    const { stdout, stderr } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", script], { env: {} });
    expect([stdout, stderr]).toEqual(["true test_failed\n", ""]);
  });
});

describe("a test that goes wrong", () => {
  test.each(["crash", "exit", "throw"])("by %s costs that test only", async (behaviour) => {
    await using it = scripted();
    expect(await it.run(behave(behaviour))).toEqual(FAILED);
    expect(it.lines.map(({ fields }) => fields.reason)).toEqual(["crashed"]);
    expect(await it.run(behave("answer"))).toMatchObject({ success: true });
  });

  test("by native memory is killed and costs that test only", async () => {
    await using it = scripted({ deadlineMs: 20_000 });
    expect(await it.run(behave("hog"))).toEqual(FAILED);
    expect(it.lines.map(({ fields }) => fields.reason)).toEqual(["memory"]);
  });

  test("by V8's heap ends by itself and costs that test only", async () => {
    await using it = scripted({ deadlineMs: 20_000 });
    expect(await it.run(behave("heap"))).toEqual(FAILED);
  });

  test("by flooding the channel is killed", async () => {
    await using it = scripted();
    expect(await it.run(behave("flood"))).toEqual(FAILED);
    expect(it.lines.map(({ fields }) => fields.reason)).toEqual(["garbage"]);
  });

  test("by answering twice is not believed", async () => {
    await using it = scripted();
    expect(await it.run(behave("twice"))).toEqual(FAILED);
  });

  test.each(["hang", "block"])("by %s ends at the deadline", async (behaviour) => {
    await using it = scripted({ deadlineMs: 1_500 });
    expect(await it.run(behave(behaviour))).toMatchObject({ success: false, layer: "timeout", reason: "deadline_exceeded", message: "The test took too long and was ended." });
    expect(it.lines.map(({ fields }) => fields.reason)).toEqual(["deadline"]);
  });
});

const good = { success: false, layer: "auth", reason: "pg_password_refused", message: "It failed.", nextStep: "Try.", details: { version: 3 } };
const works = { ...good, success: true, layer: null, reason: "ok", message: "Done.", nextStep: "" };
test.each<readonly [string, string]>([
  ["no JSON", "canary\n"],
  ["null", "null\n"],
  ["a list", "[]\n"],
  ["neither success nor failure", JSON.stringify({ ...good, success: 1 })],
  ["a failure that is ok", JSON.stringify({ ...good, reason: "ok" })],
  ["a reason that is no word", JSON.stringify({ ...good, reason: "password=canary" })],
  ["a reason that does not exist", JSON.stringify({ ...good, reason: "some_reason" })],
  ["a reason of every object", JSON.stringify({ ...good, reason: "constructor" })],
  ["a success with another reason", JSON.stringify({ ...works, reason: "pg_password_refused" })],
  ["a success that says something of its own", JSON.stringify({ ...works, message: "canary" })],
  ["a success without a message", JSON.stringify({ ...works, message: undefined })],
  ["a detail of two lines", JSON.stringify({ ...good, details: { version: "canary\r\nHTTP/1.1" } })],
  ["a detail with escapes of a terminal", JSON.stringify({ ...good, details: { version: "\u001b[31mcanary" } })],
  ["a detail that is turned around", JSON.stringify({ ...good, details: { version: "\u202ecanary" } })],
  ["a detail of two lines for some", JSON.stringify({ ...good, details: { version: "canary\u2028more" } })],
  ["half a character", JSON.stringify({ ...good, details: { version: "canary\ud800" } })],
  ["a detail that nobody sees", JSON.stringify({ ...good, details: { version: "\u200b" } })],
  ["a detail without end", JSON.stringify({ ...good, details: { version: "x".repeat(2_000) } })],
  ["details that are a list", JSON.stringify({ ...good, details: [1] })],
  ["details of details", JSON.stringify({ ...good, details: { a: {} } })],
  ["a detail named like a prototype", JSON.stringify(good).replace('"version"', '"__proto__"')],
  ["too many details", JSON.stringify({ ...good, details: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`n${i}`, i])) })],
])("an answer with %s is none", async (_, text) => {
  await using it = scripted();
  expect(await it.run(behave("garbage", { text: text.endsWith("\n") ? text : `${text}\n` }))).toEqual(FAILED);
});

test("of a failure only the word and the details are the process's, and everything said of it is the service's", async () => {
  await using it = scripted();
  const said = { ...good, layer: "connect", message: "canary", nextStep: "Call canary.", extra: "canary" };
  const { pg_password_refused: finding } = findings.failures;
  expect(await it.run(behave("garbage", { text: `${JSON.stringify(said)}\n` }))).toEqual({ success: false, reason: "pg_password_refused", ...finding, details: { version: 3 } });
});

test("a success arrives without what does not belong to it", async () => {
  await using it = scripted();
  expect(await it.run(behave("garbage", { text: `${JSON.stringify({ ...works, layer: "auth", nextStep: "Call canary.", extra: "canary" })}\n` }))).toEqual(works);
});
