import type { Socket } from "node:net";
import ssh2 from "ssh2";
import type { SFTPWrapper } from "ssh2";
import { describe, expect, test } from "vitest";
import { tryFolder } from "../../src/providers/checks/sftp-files.ts";
import { checkSftp } from "../../src/providers/checks/sftp.ts";
import { Trial } from "../../src/providers/checks/trial.ts";
import { abortWhenQuiet, directIo, shows } from "../support/hostile-dialer.ts";
import { type SshScript, sshServer } from "../support/hostile-ssh.ts";
import { flood } from "../support/hostile-tcp.ts";

type Change = (sftp: SFTPWrapper, socket: Socket) => void;
type Request = "STAT" | "OPENDIR" | "READDIR" | "OPEN" | "WRITE" | "READ" | "CLOSE" | "REMOVE";

/** Answers one kind of request with a status and words of the server's. */
const status = (request: Request, code: number): Change => (sftp) => {
  sftp.removeAllListeners(request);
  sftp.on(request as "STAT", (id: number) => rawData(sftp, statusPacket(id, code, "canary-of-the-server")));
};
/** The library writes no status of a version beyond 3. */
function statusPacket(id: number, code: number, text: string): Buffer {
  const packet = Buffer.alloc(17 + text.length + 4);
  packet.writeUInt32BE(packet.length - 4, 0);
  packet.writeUInt8(101, 4);
  for (const [at, value] of [id, code, text.length].entries()) packet.writeUInt32BE(value, 5 + 4 * at);
  packet.write(text, 17, "latin1");
  return packet;
}
const instead = (request: Request, then: (socket: Socket, id: number, sftp: SFTPWrapper) => void): Change => (sftp, socket) => {
  sftp.removeAllListeners(request);
  sftp.on(request as "STAT", (id: number) => then(socket, id, sftp));
};
const both = (...changes: Change[]): Change => (sftp, socket) => {
  for (const change of changes) change(sftp, socket);
};
const cut = (socket: Socket): void => void socket.resetAndDestroy();

/** What the file server does with which request, and how the test ends. */
const CASES: readonly (readonly [what: string, change: Change, reason: string])[] = [
  ["knows no such folder", status("STAT", 2), "sftp_path_missing"],
  ["knows no such path in a later version's word", status("STAT", 10), "sftp_path_missing"],
  ["lets nobody look", status("STAT", 3), "sftp_list_not_permitted"],
  ["shows a file there", instead("STAT", (_s, id, sftp) => sftp.attrs(id, { mode: 0o100644, uid: 0, gid: 0, size: 0, atime: 0, mtime: 0 })), "sftp_path_not_a_folder"],
  ["says that it is no folder", status("OPENDIR", 19), "sftp_path_not_a_folder"],
  ["may not be listed", status("OPENDIR", 3), "sftp_list_not_permitted"],
  ["may not be read", status("READDIR", 3), "sftp_list_not_permitted"],
  ["fails to list", status("READDIR", 4), "sftp_list_failed"],
  ["cannot list", status("OPENDIR", 8), "sftp_operation_unsupported"],
  ["may not be written", status("OPEN", 3), "sftp_write_not_permitted"],
  ["cannot write", status("OPEN", 8), "sftp_operation_unsupported"],
  ["is write-protected", status("OPEN", 12), "sftp_read_only"],
  ["has no space", status("WRITE", 14), "sftp_disk_full"],
  ["has no quota left", status("WRITE", 15), "sftp_quota_exceeded"],
  ["notices the quota only at the end", status("CLOSE", 15), "sftp_quota_exceeded"],
  ["fails to write", status("WRITE", 4), "sftp_write_failed"],
  ["is invalid in some other way", status("OPEN", 5), "sftp_write_failed"],
  ["gives back something else", instead("READ", (_s, id, sftp) => sftp.data(id, Buffer.from("canary"))), "sftp_write_garbled"],
  ["gives back nothing", status("READ", 1), "sftp_write_garbled"],
  ["does not let files be removed", status("REMOVE", 3), "sftp_remove_not_permitted"],
  ["is lost while listing", instead("READDIR", cut), "sftp_transfer_closed"],
  ["is lost while writing", instead("WRITE", cut), "sftp_transfer_closed"],
  ["is lost while removing", instead("REMOVE", cut), "sftp_transfer_closed"],
  ["never answers what it is", instead("STAT", () => {}), "sftp_transfer_timed_out"],
  ["never finishes writing", instead("WRITE", () => {}), "sftp_transfer_timed_out"],
  ["never removes", instead("REMOVE", () => {}), "sftp_transfer_timed_out"],
  ["talks nonsense instead", instead("STAT", (_s, _id, sftp) => rawData(sftp, Buffer.from("Connection closed by canary\n"))), "ssh_protocol_broken"],
];

/** Writes into the channel beside the library's SFTP. */
function rawData(sftp: SFTPWrapper, bytes: Buffer): void {
  const { _protocol: protocol, outgoing } = sftp as unknown as { _protocol: { channelData(id: number, data: Buffer): void }; outgoing: { id: number } };
  protocol.channelData(outgoing.id, bytes);
}

const check = async (script: SshScript, late: boolean, maxBytes = 1024 * 1024) => {
  await using server = await sshServer(script);
  const io = directIo({ maxBytes });
  if (late) abortWhenQuiet(io, server);
  const target = { host: "127.0.0.1", port: server.port, username: "user", hostKeyFingerprint: "", credential: { kind: "password", password: "canary-password" } } as const;
  const result = await checkSftp(target, io, "/folder/");
  expect([io.open(), shows(result, "canary")]).toEqual([0, false]);
  return result;
};

describe("a folder that", () => {
  test.each(CASES)("%s is told apart", async (_, sftp, reason) => {
    expect(await check({ sftp }, reason.endsWith("_timed_out"))).toMatchObject({ success: false, reason });
  });

  test("may be written but not read passes, and says so", async () => {
    let opened = 0;
    const write = instead("OPEN", (_s, id, sftp) => (opened++ === 0 ? sftp.handle(id, Buffer.from("file")) : sftp.status(id, 3)));
    expect(await check({ sftp: write }, false)).toMatchObject({ success: true, details: { can_list: true, can_write: true, can_read: false } });
  });

  test("fails a step after the file was made has it removed all the same; where that fails too, its name is told", async () => {
    const removed: string[] = [];
    const remember: Change = (sftp) => sftp.prependListener("REMOVE", (_id, path) => removed.push(path));
    const first = await check({ sftp: both(remember, status("WRITE", 4)) }, false);
    expect(first.details).not.toHaveProperty("test_file_left");
    expect(removed).toEqual([expect.stringMatching(/^\/folder\/flow-credentials-test-[0-9a-f]{16}\.txt$/)]);
    const second = await check({ sftp: both(status("WRITE", 4), status("REMOVE", 4)) }, false);
    expect(second).toMatchObject({ reason: "sftp_write_failed", details: { test_file_left: expect.stringMatching(/^flow-credentials-test-/) } });
  });

  test("holds more names than a test may read is read in part only", async () => {
    let listed = 0;
    const endless = instead("READDIR", (_s, id, sftp) => {
      listed += 1;
      sftp.name(id, Array.from({ length: 100 }, (_, at) => ({ filename: `f${at}`, longname: "", attrs: {} as never })));
    });
    expect(await check({ sftp: endless }, false)).toMatchObject({ success: true });
    expect(listed).toBe(1);
  });
});

describe("a failure without a word", () => {
  test.each<readonly [string, object | null, string]>([
    ["a read-only file system", { f_flag: 1, f_bavail: 5, f_favail: 5 }, "sftp_read_only"],
    ["a full one", { f_flag: 0, f_bavail: 0, f_favail: 5 }, "sftp_disk_full"],
    ["one without room for a name", { f_flag: 0, f_bavail: 5, f_favail: 0 }, "sftp_disk_full"],
    ["one with room", { f_flag: 0, f_bavail: 5, f_favail: 5 }, "sftp_write_failed"],
    ["one that says nothing", null, "sftp_write_failed"],
  ])("on %s is told as what it is", async (_, system, reason) => {
    const folder = { isDirectory: () => true };
    const failure = Object.assign(new Error("canary"), { code: 4 });
    const sftp = {
      stat: (_path: string, done: (error: null, stats: object) => void) => done(null, folder),
      opendir: (_path: string, done: (error: null, handle: Buffer) => void) => done(null, Buffer.alloc(1)),
      readdir: (_handle: Buffer, done: (error: null, names: string[]) => void) => done(null, []),
      close: (_handle: Buffer, done: () => void) => done(),
      open: (_path: string, _flags: string, _mode: number, done: (error: Error) => void) => done(failure),
      ext_openssh_statvfs: (_path: string, done: (error: Error | null, found: object | null) => void) => done(system === null ? failure : null, system),
    };
    await expect(tryFolder(sftp as unknown as SFTPWrapper, "/folder", new Trial("sftp_transfer"))).rejects.toMatchObject({ reason });
  });
});

const { STATUS_CODE } = ssh2.utils.sftp;

describe("a session that", () => {
  test.each<readonly [string, NonNullable<SshScript["session"]>, string]>([
    ["is refused", (_a, reject) => reject(), "ssh_session_refused"],
    ["has no SFTP", (accept) => void accept().on("subsystem" as never, ((_a: unknown, reject: () => void) => reject()) as never), "sftp_subsystem_missing"],
    ["is lost at the start", (_a, _r, socket) => socket.resetAndDestroy(), "sftp_start_closed"],
    ["never starts", () => {}, "sftp_start_timed_out"],
    ["prints a greeting where SFTP should begin", (accept) => void accept().on("sftp", (take) => rawData(take(), Buffer.from("Welcome to canary\n"))), "sftp_start_garbled"],
    ["announces 2 GiB", (accept) => void accept().on("sftp", (take) => rawData(take(), Buffer.from([0x7f, 255, 255, 255]))), "sftp_start_garbled"],
    ["floods us", (accept, _r, socket) => void accept().on("sftp", () => flood(socket, Buffer.alloc(32_768, 7))), "ssh_protocol_broken"],
  ])("%s is told apart", async (_, session, reason) => {
    expect(await check({ session }, reason.endsWith("_timed_out"))).toMatchObject({ success: false, reason });
  });

  test("sends more than the cap is stopped by the guard", async () => {
    const sftp: Change = (it) => {
      it.removeAllListeners("READDIR");
      it.on("READDIR", (id) => {
        for (let at = 0; at < 40; at += 1) it.status(id + 1_000, STATUS_CODE.OK, "x".repeat(30_000));
      });
    };
    expect(await check({ sftp }, false, 256 * 1024)).toMatchObject({ success: false, reason: "too_much_data", layer: "protocol" });
  });
});
