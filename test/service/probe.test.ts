import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { getPriority } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, test } from "vitest";
import { EgressSetupError } from "../../src/egress/error.ts";
import { createProber } from "../../src/egress/probe.ts";
import { findings } from "../../src/providers/index.ts";
import { descriptors } from "../support/egress.ts";
import { behave, childrenOf, refusalOf, SCRIPTED_ENTRY, testProber } from "../support/probe-tools.ts";

const ROUNDS = process.env["FLOW_TEST_LONG"] === undefined ? 20 : 1_000;
/** So large that orders which are kept show after few rounds. */
const ORDER_BYTES = 600_000;
const scripted = (options: Parameters<typeof testProber>[0] = {}) => testProber({ entry: SCRIPTED_ENTRY, ...options });
/** The children that were there before are not this test's. */
const others = new Set(childrenOf());
const children = () => childrenOf().filter((pid) => !others.has(pid));
const seenChildren = (count: number) => expect.poll(() => children().length, { interval: 20, timeout: 10_000 }).toBe(count);

describe("the bounds", () => {
  test("let two tests of an organization run and refuse the third at once, but not another organization's", async () => {
    await using it = scripted();
    const stop = new AbortController();
    const held = [1, 2].map(() => refusalOf(it.run(behave("hang"), stop)));
    expect(await refusalOf(it.run(behave("answer")))).toBe("TEST_LIMIT_REACHED");
    expect(await it.run(behave("answer"), { organizationId: "two" })).toMatchObject({ success: true });
    stop.abort();
    expect(await Promise.all(held)).toEqual(["CANCELLED", "CANCELLED"]);
    expect(await it.run(behave("answer"))).toMatchObject({ success: true });
  });

  test("hold for all organizations together", async () => {
    await using it = scripted({ maxTotal: 3 });
    const stop = new AbortController();
    const held = ["a", "b", "c"].map((organizationId) => refusalOf(it.run(behave("hang"), { organizationId, signal: stop.signal })));
    expect(await refusalOf(it.run(behave("answer"), { organizationId: "d" }))).toBe("TEST_LIMIT_REACHED");
    stop.abort();
    await Promise.all(held);
    expect(await it.run(behave("answer"), { organizationId: "d" })).toMatchObject({ success: true });
  });

  test("of a hundred tests of one organization at once let two through", async () => {
    await using it = scripted();
    const results = await Promise.allSettled(Array.from({ length: 100 }, () => it.run(behave("answer"))));
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(2);
  });

  test("that no policy can honour are refused at the start", () => {
    const log = { debug() {}, info() {}, warn() {}, error() {} };
    expect(() => createProber({ egress: { profile: "production", allow: ["127.0.0.0/8"], ports: {} }, findings, log })).toThrow(EgressSetupError);
    expect(children()).toEqual([]);
  });
});

describe("a call", () => {
  test("that is aborted ends its process, and one that comes aborted starts none", async () => {
    await using it = scripted();
    const stop = new AbortController();
    const run = refusalOf(it.run(behave("block"), stop));
    await seenChildren(2);
    stop.abort();
    expect(await run).toBe("CANCELLED");
    await seenChildren(1);
    const before = children();
    expect(await refusalOf(it.run(behave("answer"), stop))).toBe("CANCELLED");
    expect(children()).toEqual(before);
  });

  test("leaves no process when it settles, and each has a process of its own", async () => {
    await using it = scripted();
    const pids = new Set<unknown>();
    for (let round = 0; round < 3; round += 1) {
      const { details } = await it.run(behave("answer"));
      pids.add(details["pid"]);
      expect(children()).not.toContain(details["pid"]);
    }
    expect(pids.size).toBe(3);
  });
});

describe("the spare", () => {
  test("is there before the first test, which it runs", async () => {
    await using it = scripted();
    const [spare, ...more] = children();
    expect([spare, more]).toEqual([expect.any(Number), []]);
    expect(await it.run(behave("answer"))).toMatchObject({ details: { pid: spare } });
    await seenChildren(1);
    expect(children()).not.toContain(spare);
  });

  test("is the first that the kernel kills when memory is short, and would leave an empty core file", async () => {
    await using _ = scripted();
    const [spare] = children();
    expect(readFileSync(`/proc/${spare}/oom_score_adj`, "utf8").trim()).toBe("1000");
    expect(Number(readFileSync(`/proc/${spare}/coredump_filter`, "utf8").trim())).toBe(0);
  });

  test("leaves the processor to the service where both want it", async () => {
    await using _ = scripted();
    const [spare = 0] = children();
    expect([getPriority(spare), getPriority()]).toEqual([10, 0]);
  });

  test("is replaced when it is killed, and tests run meanwhile", async () => {
    await using it = scripted();
    const [spare = 0] = children();
    process.kill(spare, "SIGKILL");
    await seenChildren(0);
    expect(await it.run(behave("answer"))).toMatchObject({ success: true });
    await seenChildren(1);
    const [next = 0] = children();
    process.kill(next, "SIGKILL");
    await seenChildren(0);
    await seenChildren(1);
    expect(it.lines.map(({ message }) => message)).toEqual(Array(2).fill("the spare process for connection tests died"));
  });

  test("that cannot start costs tests, not the service", async () => {
    await using it = testProber({ entry: new URL("../schema.sql", import.meta.url) });
    expect(await it.run(behave("answer"))).toMatchObject({ success: false, reason: "test_failed" });
  });
});

/** A program that runs a script with the tools of these tests, and may be given fewer descriptors. */
const script = (then: string, descriptorLimit = "1024"): ChildProcess => {
  const tools = JSON.stringify(new URL("../support/probe-tools.ts", import.meta.url).href);
  const text = `import { testProber, behave, SCRIPTED_ENTRY, childrenOf } from ${tools};\n${then}`;
  return spawn("/bin/sh", ["-c", 'ulimit -n "$1"; shift; exec "$@"', "sh", descriptorLimit, process.execPath, "--input-type=module", "-e", text], {
    stdio: ["ignore", "pipe", "inherit"],
  });
};

test("a service without descriptors left loses a test, and nothing else", async () => {
  const service = script(
    `import { openSync, closeSync } from "node:fs";
     const it = testProber({ entry: SCRIPTED_ENTRY });
     await it.run(behave("answer"));
     await new Promise((resolve) => setTimeout(resolve, 100));
     process.kill(childrenOf()[0], "SIGKILL");
     await new Promise((resolve) => setTimeout(resolve, 100));
     const held = [];
     try { for (;;) held.push(openSync("/dev/null")); } catch {}
     const failed = await it.run(behave("answer"));
     held.forEach((fd) => closeSync(fd));
     const passed = await it.run(behave("answer"));
     console.log(failed.reason, passed.reason);
     await it.prober.close();`,
    "64",
  );
  const text: Buffer[] = await (service.stdout as NodeJS.ReadableStream & { toArray(): Promise<Buffer[]> }).toArray();
  expect(Buffer.concat(text).toString()).toBe("test_failed ok\n");
});

describe("the end", () => {
  test("comes with no process left, whatever was running, and no test begins after it", async () => {
    const it = scripted();
    const runs = ["hang", "block", "hog"].map((behaviour, index) => refusalOf(it.run(behave(behaviour), { organizationId: `${index}` })));
    await seenChildren(4);
    await it.prober.close();
    expect(children()).toEqual([]);
    expect(await Promise.all(runs)).toEqual(["SHUTTING_DOWN", "SHUTTING_DOWN", "SHUTTING_DOWN"]);
    expect(await refusalOf(it.run(behave("answer")))).toBe("SHUTTING_DOWN");
    await it.prober.close();
    await sleep(50);
    expect(children()).toEqual([]);
  });

  const alive = (pid: number): boolean => {
    try {
      return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "latin1"));
    } catch {
      return false;
    }
  };
  const gone = (pid: number) => expect.poll(() => alive(pid), { interval: 20, timeout: 10_000 }).toBe(false);

  test("of a service is not held up by the spare, which ends itself", async () => {
    const service = script("testProber(); console.log(childrenOf()[0]);");
    const [line] = (await once(service.stdout as NodeJS.ReadableStream, "data")) as [Buffer];
    const [code] = service.exitCode === null ? await once(service, "exit") : [service.exitCode];
    expect(code).toBe(0);
    await gone(Number(line.toString()));
  });

  test("of a service that is killed in the middle of a test ends the test too", async () => {
    const service = script('void testProber({ entry: SCRIPTED_ENTRY }).run(behave("hang")); console.log(childrenOf()[0]);');
    const [line] = (await once(service.stdout as NodeJS.ReadableStream, "data")) as [Buffer];
    const pid = Number(line.toString());
    expect(alive(pid)).toBe(true);
    service.kill("SIGKILL");
    await gone(pid);
  });
});

/** Bytes of the heap that something still refers to. */
function heapInUse(): number {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
  return process.memoryUsage().heapUsed;
}

test(`${ROUNDS} tests leave neither descriptors nor memory behind`, { timeout: 300_000 }, async () => {
  await using it = scripted();
  const behaviours = ["answer", "crash", "twice", "exit"];
  const rounds = async (count: number) => {
    for (let round = 0; round < count; round += 1) await it.run(behave(behaviours[round % behaviours.length] as string, { filler: "x".repeat(ORDER_BYTES) }));
    await seenChildren(1);
  };
  await rounds(8);
  const before = { open: descriptors(), heap: heapInUse() };
  await rounds(ROUNDS);
  expect(descriptors()).toBeLessThanOrEqual(before.open);
  // If the orders were kept, they alone would be more than this.
  expect(heapInUse() - before.heap).toBeLessThan((ROUNDS * ORDER_BYTES) / 2);
});
