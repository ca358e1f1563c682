import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { DIAL_REASONS, DialError, LAYERS } from "../../src/domain/check.ts";
import { failed, FINDINGS, passed, type Reason } from "../../src/providers/checks/doctor.ts";
import { checkPostgresql } from "../../src/providers/checks/postgresql.ts";
import { NO_DEMANDS } from "../../src/providers/connection-string.ts";
import { checkSftp } from "../../src/providers/checks/sftp.ts";
import { directIo } from "../support/hostile-dialer.ts";

const reasons = Object.keys(FINDINGS) as Reason[];
const here = new URL("./", import.meta.url);
/** The tables of the tests that run servers, which name the reason that each case ends with. */
const tables = readdirSync(here)
  .filter((name) => /^check-(sftp|postgresql|smtp|ses|google|microsoft)/.test(name) && !name.includes("doctor"))
  .map((name) => readFileSync(new URL(name, here), "utf8"))
  .join("\n");

describe("the doctor", () => {
  test("has two sentences for every finding, a layer, and no sentence twice", () => {
    expect(reasons.length).toBeGreaterThanOrEqual(160);
    for (const reason of reasons) {
      const { layer, message, nextStep } = FINDINGS[reason];
      expect(reason).toMatch(/^[a-z][a-z0-9_]+$/);
      expect(LAYERS).toContain(layer);
      for (const sentence of [message, nextStep]) expect(sentence).toMatch(/^[A-Z][^\n]{15,160}\.$/);
    }
    const said = reasons.map((reason) => FINDINGS[reason].message);
    expect(said.filter((message, at) => said.indexOf(message) !== at)).toEqual([]);
  });

  test("knows every word of the guard", () => {
    for (const reason of DIAL_REASONS) expect(reasons).toContain(reason);
  });

  test("gives a timeout its layer, and nothing else", () => {
    const late = reasons.filter((reason) => FINDINGS[reason].layer === "timeout");
    const named = reasons.filter((reason) => reason === "deadline_exceeded" || (reason.endsWith("_timed_out") && reason !== "connection_timed_out"));
    expect(late).toEqual(named);
  });

  test("is heard on every finding: a server ends a test with it, but for those of the guard", () => {
    const guard: readonly string[] = [...DIAL_REASONS, "check_failed"];
    const unheard = reasons.filter((reason) => !guard.includes(reason) && !tables.includes(`"${reason}"`));
    expect(unheard).toEqual([]);
    expect(reasons.length - guard.length).toBeGreaterThanOrEqual(40);
  });

  test("keeps results apart from the details they were made of", () => {
    const details = { a: 1 };
    const [bad, good] = [failed("check_failed", details), passed("sftp_works", details)];
    details.a = 2;
    expect([bad.details, good.details]).toEqual([{ a: 1 }, { a: 1 }]);
  });
});

describe("a check", () => {
  const sftp = { host: "h", port: 22, username: "u", hostKeyFingerprint: "", credential: { kind: "password", password: "p" } } as const;
  const postgresql = { host: "h", port: 5432, username: "u", password: "p", database: "d", sslmode: "prefer", caCertificate: "", demands: NO_DEMANDS } as const;

  test.each(DIAL_REASONS)("tells that the guard ended it before there was a connection: %s", async (reason) => {
    const io = { ...directIo(), dial: () => Promise.reject(new DialError(reason)) };
    expect(await checkSftp(sftp, io, "/")).toEqual(failed(reason));
    expect(await checkPostgresql(postgresql, io)).toEqual(failed(reason));
  });

  test("gives a result whatever is thrown at it", async () => {
    for (const thrown of [new Error("canary"), "canary", null, undefined]) {
      const io = { ...directIo(), dial: () => Promise.reject(thrown as Error) };
      expect(await checkSftp(sftp, io, "/")).toEqual(failed("check_failed"));
      expect(await checkPostgresql(postgresql, io)).toEqual(failed("check_failed"));
    }
  });

  test("waits for no connection beyond its time, and closes one that comes too late", async () => {
    const io = directIo();
    let closed = false;
    const stream = { on: () => stream, destroy: () => ((closed = true), stream) };
    const dial = () => new Promise<never>((resolve) => setTimeout(() => resolve({ stream, authenticated: () => {} } as never), 50));
    setTimeout(() => io.abort(), 10);
    expect(await checkPostgresql(postgresql, { ...io, dial, signal: io.signal })).toEqual(failed("deadline_exceeded"));
    await new Promise((resolve) => setTimeout(resolve, 80));
    expect(closed).toBe(true);
  });
});
