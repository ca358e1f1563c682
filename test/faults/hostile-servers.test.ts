import { readdirSync } from "node:fs";
import type { Socket } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { CheckResult } from "../../src/domain/check.ts";
import { CredentialError } from "../../src/domain/errors.ts";
import { canary } from "../support/canary.ts";
import { answerOf, lengthLie, login, message, OK, postgresServer, READY, rowOf, SCRAM } from "../support/hostile-postgres.ts";
import { acceptAll, BANNER, kexInit, sshServer } from "../support/hostile-ssh.ts";
import { drip, flood, listen, type Scripted } from "../support/hostile-tcp.ts";
import { childrenOf, testProber } from "../support/probe-tools.ts";

// Servers that want the better of who connects, each met as a tenant's test meets it: in a process of its own, behind the guarded dialer.

const LONG = process.env["FLOW_TEST_LONG"] !== undefined;
/** Rounds over all servers after the first; 200 tests and more in the long form. */
const ROUNDS = LONG ? 10 : 0;
/** Servers that only waste time are granted what tenants are in the long form. The others end by themselves, however busy the machine is. */
const DEADLINE_MS = { wasted: LONG ? 10_000 : 6_000, patient: 60_000 };
const AT_A_TIME = LONG ? 8 : 4;

const MEBIBYTE = 1_048_576;
/** What a connection's two ends and their kernel buffers hold beyond what was read. */
const IN_FLIGHT = 12 * MEBIBYTE;
const PASSWORD = canary("password");

const scram = (iterations: string) => (socket: Socket, heard: Buffer): void => {
  const sent = /r=([^,]+)$/.exec(heard.toString("latin1"))?.[1] ?? "";
  socket.write(login(11, `r=${sent}more,s=c2FsdHNhbHQ=,i=${iterations}`));
};
const silence = (): void => {};
const READY_TO_ASK = Buffer.concat([OK, READY]);
const notice = message("N", `SNOTICE\0C00000\0M${"notice ".repeat(20)}\0\0`);
/** So many notices that a client without a cap would hold 200 MB of them. */
const millionNotices = (socket: Socket): void => {
  let left = 1_000_000;
  const more = (): void => {
    while (left > 0 && !socket.destroyed) {
      left -= 1;
      if (!socket.write(notice)) return;
    }
  };
  socket.on("drain", more);
  more();
};

/** A row whose only column is this long, and the bytes to go with it until the client has had enough. */
const endlessRow = (socket: Socket): void => {
  socket.write(rowOf("1"));
  const head = Buffer.alloc(11);
  head.write("D");
  head.writeUInt32BE(0x7fffffff, 1);
  head.writeUInt16BE(1, 5);
  head.writeUInt32BE(0x7ffffff0, 7);
  socket.write(head);
  flood(socket, Buffer.alloc(65_536, 0x31));
};

type Start = () => Promise<Scripted>;
type Step = Buffer | string | ((socket: Socket, heard: Buffer) => void);
const sql = (...steps: readonly Step[]): Start => () => postgresServer(...steps);
const ssh = (script: (socket: Socket) => void): Start => () => listen(script);
const silentAt = (phase: "login" | "session" | "sftp"): Start => () =>
  sshServer({
    login: phase === "login" ? silence : acceptAll,
    ...(phase === "session" ? { session: silence } : {}),
    ...(phase === "sftp" ? { sftp: (sftp) => sftp.removeAllListeners("STAT").on("STAT", silence) } : {}),
  });

/** What a server does, which test meets it, and how that may end. */
const SERVERS: readonly (readonly [what: string, provider: "sftp" | "postgresql", start: Start, reason: string])[] = [
  ["greets for ever", "sftp", ssh((socket) => flood(socket, `${"welcome ".repeat(20)}\r\n`)), "not_an_ssh_server"],
  ["introduces itself with one endless line", "sftp", ssh((socket) => flood(socket, `SSH-2.0-${"x".repeat(300)}`)), "not_an_ssh_server"],
  ["greets one byte at a time", "sftp", ssh((socket) => drip(socket, "welcome")), "ssh_banner_timed_out"],
  ["is silent from the start", "sftp", ssh(silence), "ssh_banner_timed_out"],
  ["is silent after its introduction", "sftp", ssh((socket) => void socket.write(BANNER)), "ssh_key_exchange_timed_out"],
  ["is silent after its offer", "sftp", ssh((socket) => (socket.write(BANNER), void socket.write(kexInit()))), "ssh_key_exchange_timed_out"],
  ["is silent at the login", "sftp", silentAt("login"), "ssh_authentication_timed_out"],
  ["is silent at the session", "sftp", silentAt("session"), "sftp_start_timed_out"],
  ["is silent at the folder", "sftp", silentAt("sftp"), "sftp_transfer_timed_out"],
  ["announces a packet of 2 GiB", "sftp", ssh((socket) => (socket.write(BANNER), socket.write(Buffer.from([0x7f, 255, 255, 255, 4, 20])), flood(socket, Buffer.alloc(65_536)))), "ssh_protocol_broken"],
  ["floods the session", "sftp", () => sshServer({ session: (accept, _reject, socket) => void accept().on("sftp", () => flood(socket, Buffer.alloc(32_768, 7))) }), "ssh_protocol_broken"],
  ["is silent to the start", "postgresql", sql(silence), "pg_startup_timed_out"],
  ["answers one byte at a time", "postgresql", sql((socket) => drip(socket, "N\0\0\x7f\x7f")), "pg_startup_timed_out"],
  ["is silent in the middle of SCRAM", "postgresql", sql(SCRAM, silence), "pg_authentication_timed_out"],
  ["is silent at the query", "postgresql", sql(READY_TO_ASK, silence), "pg_query_timed_out"],
  ["announces a message of 2 GiB", "postgresql", sql((socket) => (socket.write(lengthLie("R", 0x7fffffff)), flood(socket, Buffer.alloc(65_536)))), "not_a_postgresql_server"],
  ["announces a parameter of 2 GiB", "postgresql", sql((socket) => (socket.write(Buffer.concat([OK, lengthLie("S", 0x7fffffff)])), flood(socket, Buffer.alloc(65_536)))), "pg_protocol_broken"],
  ["sends a million notices", "postgresql", sql(millionNotices), "too_much_data"],
  ["asks for absurdly much SCRAM", "postgresql", sql(SCRAM, scram("2147483647")), "pg_scram_too_costly"],
  ["asks for the password in clear text after all", "postgresql", sql(SCRAM, login(3)), "pg_cleartext_refused"],
  ["answers with a row of 2 GiB", "postgresql", sql(READY_TO_ASK, endlessRow), "pg_protocol_broken"],
  ["answers with rows for ever, 4 GB and more", "postgresql", sql(READY_TO_ASK, (socket) => (socket.write(rowOf("1")), flood(socket, rowOf("1").subarray(-12)))), "too_much_data"],
  ["answers well, and then floods", "postgresql", sql(READY_TO_ASK, (socket) => (socket.write(answerOf("1")), flood(socket, notice))), "too_much_data"],
];

let tools: Readonly<Record<keyof typeof DEADLINE_MS, ReturnType<typeof testProber>>>;
let served = 0;
/** What this process holds before the first server is met. */
let quiet: { readonly descriptors: number; readonly children: number; readonly bytes: number };
beforeAll(() => {
  const [wasted, patient] = [DEADLINE_MS.wasted, DEADLINE_MS.patient].map((deadlineMs) => testProber({ deadlineMs, maxPerOrganization: AT_A_TIME })) as [ReturnType<typeof testProber>, ReturnType<typeof testProber>];
  tools = { wasted, patient };
  globalThis.gc?.();
  quiet = { descriptors: descriptors(), children: childrenOf().length, bytes: process.memoryUsage().rss };
});
afterAll(() => Promise.all(Object.values(tools).map((each) => each[Symbol.asyncDispose]())));

/** Asks again where the machine was too busy for a test's process to be ready before its deadline, as callers are told to. */
async function patiently<T>(ask: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof CredentialError && error.reason === "OVERLOADED")) throw error;
    }
  }
}

const wastesTime = (reason: string): boolean => reason.endsWith("_timed_out");

async function met([, provider, start, reason]: (typeof SERVERS)[number]): Promise<{ result: CheckResult; heard: Buffer; sent: number }> {
  await using server = await start();
  const document = { host: "127.0.0.1", port: server.port, username: "user", password: PASSWORD, ...(provider === "postgresql" ? { database: "data", sslmode: "disable" } : {}) };
  const result = await patiently(() => tools[wastesTime(reason) ? "wasted" : "patient"].run({ provider, document, options: { testPath: "/" } }));
  served += 1;
  return { result, heard: server.heard(), sent: server.sent() };
}

/**
 * Whether a server that only wastes time was left in an earlier phase, or without the phase being named: where many are met at a time,
 * the test's process, which yields to everybody else, may not come that far before its deadline.
 */
const cutOff = ({ reason }: CheckResult, expected: string): boolean => wastesTime(expected) && (reason === "deadline_exceeded" || wastesTime(reason));

/** How much a test holds unread at least, bytes. */
const HELD = 64 * 1_024;

/** Whether a server was left for how much it sent: where many are met at a time, that may have come before the test's process reads any of it. */
const flooded = ({ reason }: CheckResult, sent: number): boolean => reason === "too_much_data" && sent > HELD;

/** Runs over everything, some at a time. */
async function all<T, R>(items: readonly T[], run: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  const waiting = [...items];
  await Promise.all(
    Array.from({ length: AT_A_TIME }, async () => {
      for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) results.push(await run(item));
    }),
  );
  return results;
}

const descriptors = (): number => readdirSync("/proc/self/fd").length;

describe("hostile servers", () => {
  test("end as what they are, read little, and learn no password they may not have", async () => {
    await all(SERVERS, async (server) => {
      const { result, heard, sent } = await met(server);
      expect([server[0], result.success, result.reason]).toEqual([server[0], false, cutOff(result, server[3]) || flooded(result, sent) ? result.reason : server[3]]);
      expect([server[0], sent <= MEBIBYTE + IN_FLIGHT]).toEqual([server[0], true]);
      if (server[1] === "postgresql") expect([server[0], heard.includes(PASSWORD)]).toEqual([server[0], false]);
      expect(JSON.stringify(result)).not.toContain(PASSWORD);
    });
  }, 120_000);

  test("leave neither processes nor descriptors nor memory behind", async () => {
    for (let round = 0; round < ROUNDS; round += 1) await all(SERVERS, met);
    await expect.poll(descriptors, { timeout: 10_000 }).toBeLessThanOrEqual(quiet.descriptors + 2);
    await expect.poll(() => childrenOf().length, { timeout: 10_000 }).toBeLessThanOrEqual(quiet.children);
    globalThis.gc?.();
    expect(process.memoryUsage().rss - quiet.bytes).toBeLessThan(128 * MEBIBYTE);
    expect(served).toBe((ROUNDS + 1) * SERVERS.length);
  }, LONG ? 600_000 : 60_000);

  const wasters = SERVERS.filter(([, , , reason]) => wastesTime(reason));
  test.each(LONG ? wasters : wasters.slice(0, 2))("met alone: one that %s is told by the phase in which it wastes time", async (...server) => {
    expect((await met(server)).result.reason).toBe(server[3]);
  }, 60_000);
});
