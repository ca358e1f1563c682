import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { openSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { createLog, errorFields, isRequestId, newRequestId } from "../../src/log.ts";

/** Collects the lines a log writes. */
function collected(level: "debug" | "info" = "debug") {
  const lines: string[] = [];
  return { log: createLog(level, { write: (line: string) => void lines.push(line) }), lines };
}

test("request ids are well-formed ULIDs, all different, and sort by time", () => {
  const ids = Array.from({ length: 10_000 }, () => newRequestId());
  expect(ids.every(isRequestId)).toBe(true);
  expect(new Set(ids).size).toBe(ids.length);
  const times = ids.map((id) => id.slice(0, 10));
  expect(times).toEqual([...times].sort());
});

test("every character of a request id's random part takes every value", () => {
  const ids = Array.from({ length: 2_000 }, () => newRequestId().slice(10));
  for (let at = 0; at < 16; at++) expect(new Set(ids.map((id) => id[at])).size).toBe(32);
});

test.each(["", "01K8KABR6S16YETA2SZPVBS9S", "01K8KABR6S16YETA2SZPVBS9SPX", "81K8KABR6S16YETA2SZPVBS9SP", "01k8kabr6s16yeta2szpvbs9sp", "01L8KABR6S16YETA2SZPVBS9SP"])(
  "%j is no request id",
  (text) => expect(isRequestId(text)).toBe(false),
);

test("a field that is not on the list never reaches the line", () => {
  const { log, lines } = collected();
  log.info({ request_id: "r", password: "canary-value", credentials: { password: "canary-value" } } as never, "hello");
  expect(JSON.parse(lines[0] as string)).toEqual({ level: "info", time: expect.any(String), request_id: "r", message: "hello" });
});

test("line breaks, control characters and long texts stay inside one JSON line", () => {
  const { log, lines } = collected();
  log.warn({ caller_id: `a\r\nb\u001b[31m\u2028${"x".repeat(1_000_000)}` }, "call");
  expect(lines).toHaveLength(1);
  expect((lines[0] as string).trimEnd()).not.toMatch(/[\r\n]/);
  expect((JSON.parse(lines[0] as string) as { caller_id: string }).caller_id).toHaveLength(256);
});

test("lines below the level are not written", () => {
  const { log, lines } = collected("info");
  log.debug({}, "quiet");
  expect(lines).toEqual([]);
});

test("of an unknown error only its type and code are told", () => {
  const error = Object.assign(new TypeError("canary-value"), { code: "E_CODE", input: "canary-value" });
  expect(errorFields(error)).toEqual({ error_name: "TypeError", error_code: "E_CODE" });
  expect(errorFields("canary-value")).toEqual({ error_name: "string" });
});

/** A process that logs to standard error as the service does. */
const logging = (program: string) => ["--input-type=module", "-e", `import { createLog } from ${JSON.stringify(fileURLToPath(new URL("../../src/log.ts", import.meta.url)))}; const [log, other] = [createLog("info"), createLog("info")]; ${program}`];
const messages = (text: string) => text.trim().split("\n").map((line) => (JSON.parse(line) as { message: string }).message);

test("lines that wait are written when the process ends, by itself or by a fault, in the order in which they came", () => {
  for (const end of ["process.exit(3)", "throw new Error('fault')", ""]) {
    const { stderr } = spawnSync(process.execPath, logging(`log.info({}, "one"); other.info({}, "two"); log.info({}, "three"); ${end}`), { encoding: "utf8" });
    expect(messages(stderr.split("\n").filter((line) => line.startsWith("{")).join("\n"))).toEqual(["one", "two", "three"]);
  }
});

test("what waits at the end is written by the process itself, and not left to a thread that nobody waits for", () => {
  const program = `import fs, { writeSync } from "node:fs"; import { syncBuiltinESMExports } from "node:module"; log.info({}, "one"); await new Promise((resolve) => setTimeout(resolve, 200)); fs.write = () => {}; syncBuiltinESMExports(); log.info({}, "two");`;
  expect(messages(spawnSync(process.execPath, logging(program), { encoding: "utf8" }).stderr)).toEqual(["one", "two"]);
});

test("a log that has no room, or that nobody reads any more, ends nothing and keeps nothing from ending", async () => {
  const program = `log.warn({}, "one"); log.info({}, "two"); setTimeout(() => { log.warn({}, "three"); process.stdout.write("went on"); process.exitCode = 3; }, 200);`;
  const full = openSync("/dev/full", "w");
  const outcome = spawnSync(process.execPath, logging(program), { encoding: "utf8", stdio: ["ignore", "pipe", full], timeout: 20_000 });
  expect([outcome.stdout, outcome.status]).toEqual(["went on", 3]);
  for (const end of ["", "process.exit(3);"]) {
    const unread = spawn(process.execPath, logging(`await new Promise((resolve) => process.stdin.once("end", resolve).resume()); ${program.replace("process.exitCode = 3;", `process.exitCode = 3; ${end}`)}`), { stdio: "pipe" });
    unread.stderr.destroy();
    unread.stdin.end();
    const [status] = await once(unread, "close");
    expect(status).toBe(3);
  }
});

test("a reader who takes nothing keeps nobody from ending", async () => {
  const child = spawn(process.execPath, logging(`for (let line = 0; line < 3_000; line++) log.info({ path: "p".repeat(200) }, "line"); log.warn({}, "last");`), { stdio: ["ignore", "ignore", "pipe"] });
  const [status] = await once(child, "exit");
  expect(status).toBe(0);
  child.stderr.destroy();
});

test("a fault that nobody caught is told behind the lines that led to it", () => {
  const guarded = `const { guardProcess } = await import(${JSON.stringify(fileURLToPath(new URL("../../src/process.ts", import.meta.url)))}); guardProcess(); log.info({}, "one"); throw new TypeError("canary");`;
  const { stderr, status } = spawnSync(process.execPath, logging(guarded), { encoding: "utf8" });
  expect([messages(stderr), status, stderr.includes("canary")]).toEqual([["one", expect.stringMatching(/^un/)], 1, false]);
});

test("lines of a moment are one write, also where a write takes longer than it takes until the next line", () => {
  const program = `import fs from "node:fs"; import { syncBuiltinESMExports } from "node:module"; const real = fs.write; let writes = 0;
    fs.write = (...args) => { writes += 1; const done = args.pop(); return real(...args, (...outcome) => setTimeout(done, 5, ...outcome)); }; syncBuiltinESMExports();
    const { createLog: fresh } = await import(${JSON.stringify(fileURLToPath(new URL("../../src/log.ts", import.meta.url)))});
    const log2 = fresh("info"); for (let n = 0; n < 4_000; n += 1) { log2.info({ count: n }, "line"); if (n % 8 === 0) await new Promise((resolve) => setTimeout(resolve, 1)); }
    await new Promise((resolve) => setTimeout(resolve, 200)); process.stdout.write(String(writes));`;
  const began = Date.now();
  const { stdout, stderr } = spawnSync(process.execPath, logging(program), { encoding: "utf8", maxBuffer: 1 << 25 });
  const counts = stderr.trim().split("\n").map((line) => (JSON.parse(line) as { count: number }).count);
  expect(counts).toEqual(Array.from({ length: 4_000 }, (_, index) => index));
  // A write for 256 lines, or for 50 ms.
  expect(Number(stdout)).toBeGreaterThan(0);
  expect(Number(stdout)).toBeLessThan(2 + 4_000 / 256 + (Date.now() - began) / 50);
});

test("a warning is written at once, and takes along what waits", async () => {
  const child = spawn(process.execPath, logging(`log.info({}, "one"); log.warn({}, "two"); log.info({}, "three"); process.on("SIGTERM", () => process.exit()); const until = Date.now() + 300; while (Date.now() < until); process.kill(process.pid, "SIGKILL");`), { stdio: ["ignore", "ignore", "pipe"] });
  let text = "";
  child.stderr.setEncoding("utf8").on("data", (part: string) => void (text += part));
  await once(child, "close");
  expect(messages(text)).toEqual(["one", "two"]);
});
