import { randomBytes } from "node:crypto";
import type { Client, SFTPWrapper } from "ssh2";
import type { Reason } from "./doctor.ts";
import { CheckFailure, type Trial } from "./trial.ts";

/** Status codes of SFTP: version 3, which is what servers speak, and the later ones that some send nevertheless. */
const STATUS = { eof: 1, noSuchFile: 2, permissionDenied: 3, failure: 4, unsupported: 8, noSuchPath: 10, writeProtected: 12, noSpace: 14, quotaExceeded: 15, notAFolder: 19 };

const CONTENT = Buffer.from("Test of a connection; this file may be deleted.\n");

/** Calls a function that answers through a callback. */
const answer = <T>(ask: (done: (error: Error | null | undefined, value: T) => void) => unknown): Promise<T> =>
  new Promise((resolve, reject) => {
    ask((error, value) => (error ? reject(error) : resolve(value)));
  });

const codeOf = (error: unknown): unknown => (error instanceof Error && "code" in error ? error.code : undefined);

/** Starts SFTP in a session of its own. A failure ends the trial. */
export async function openSftp(client: Client, trial: Trial): Promise<SFTPWrapper> {
  trial.phase = "sftp_start";
  try {
    const sftp = await answer<SFTPWrapper>((done) => client.sftp(done));
    sftp.on("error", () => trial.fail("ssh_protocol_broken"));
    sftp.on("close", () => trial.closed());
    trial.phase = "sftp_transfer";
    return sftp;
  } catch (error) {
    throw new CheckFailure(startReason(error));
  }
}

/** What an error of the library means. Its words are compared with known ones and never repeated. */
function startReason(error: unknown): Reason {
  const message = error instanceof Error ? error.message : "";
  if (error instanceof Error && "level" in error && error.level === "sftp-protocol") return "sftp_start_garbled";
  if (/Unable to start subsystem/.test(message)) return "sftp_subsystem_missing";
  return /Channel open failure/.test(message) ? "ssh_session_refused" : "sftp_start_closed";
}

/** Lists a folder and writes, reads and removes a file of its own there; what works is told in the trial's details. */
export async function tryFolder(sftp: SFTPWrapper, folder: string, trial: Trial): Promise<void> {
  await list(sftp, folder);
  trial.details["can_list"] = true;
  const name = `flow-credentials-test-${randomBytes(8).toString("hex")}.txt`;
  const path = `${folder.replace(/\/+$/, "")}/${name}`;
  trial.details["can_write"] = false;
  const handle = await step(trial, answer<Buffer>((done) => sftp.open(path, "wx", 0o600, done)), (error) => writeReason(sftp, folder, error));
  // Whatever ends the test from here on may leave the file behind.
  trial.details["test_file_left"] = name;
  let failure: unknown = null;
  try {
    await step(trial, write(sftp, handle), (error) => writeReason(sftp, folder, error));
    trial.details["can_write"] = true;
    await readBack(sftp, path, trial);
  } catch (error) {
    failure = error;
  }
  const removed = await answer<void>((done) => sftp.unlink(path, done)).then(() => true, () => false);
  if (removed) delete trial.details["test_file_left"];
  if (failure !== null) throw failure;
  if (!removed) throw new CheckFailure("sftp_remove_not_permitted");
}

/** Waits for a step; its error becomes a finding unless the connection is already lost. */
async function step<T>(trial: Trial, taken: Promise<T>, reason: (error: unknown) => Reason | Promise<Reason>): Promise<T> {
  try {
    return await taken;
  } catch (error) {
    if (trial.failure !== null) throw trial.failure;
    throw new CheckFailure(await reason(error));
  }
}

/** Reads the beginning of a folder: a folder may hold more files than a test may read. */
async function list(sftp: SFTPWrapper, folder: string): Promise<void> {
  if (folder.includes("\0")) throw new CheckFailure("sftp_path_missing");
  try {
    const stats = await answer<{ isDirectory(): boolean }>((done) => sftp.stat(folder, done));
    if (!stats.isDirectory()) throw new CheckFailure("sftp_path_not_a_folder");
    const handle = await answer<Buffer>((done) => sftp.opendir(folder, done));
    await answer<unknown>((done) => sftp.readdir(handle, done)).catch((error: unknown) => {
      if (codeOf(error) !== STATUS.eof) throw error;
    });
    sftp.close(handle, () => {});
  } catch (error) {
    throw error instanceof CheckFailure ? error : new CheckFailure(listReason(codeOf(error)));
  }
}

function listReason(code: unknown): Reason {
  if (code === STATUS.noSuchFile || code === STATUS.noSuchPath) return "sftp_path_missing";
  if (code === STATUS.permissionDenied) return "sftp_list_not_permitted";
  if (code === STATUS.notAFolder) return "sftp_path_not_a_folder";
  return code === STATUS.unsupported ? "sftp_operation_unsupported" : code === undefined ? "sftp_transfer_closed" : "sftp_list_failed";
}

async function write(sftp: SFTPWrapper, handle: Buffer): Promise<void> {
  await answer<void>((done) => sftp.write(handle, CONTENT, 0, CONTENT.length, 0, (error) => done(error, undefined)));
  // A quota may be told of only now.
  await answer<void>((done) => sftp.close(handle, done));
}

/** Servers of version 3 call a full disk, a quota and a read-only file system all "failure"; their file system tells which. */
async function writeReason(sftp: SFTPWrapper, folder: string, error: unknown): Promise<Reason> {
  const code = codeOf(error);
  if (code === STATUS.permissionDenied) return "sftp_write_not_permitted";
  if (code === STATUS.writeProtected) return "sftp_read_only";
  if (code === STATUS.noSpace) return "sftp_disk_full";
  if (code === STATUS.quotaExceeded) return "sftp_quota_exceeded";
  if (code === STATUS.unsupported) return "sftp_operation_unsupported";
  if (code === undefined) return "sftp_transfer_closed";
  return code === STATUS.failure ? await fileSystemReason(sftp, folder) : "sftp_write_failed";
}

/** Bit of a file system that is mounted read-only, in OpenSSH's extension of SFTP (section 4.4 of its PROTOCOL). */
const READ_ONLY = 1;

/** What the library gives of a file system; its type declarations say nothing of it. */
interface FileSystem {
  readonly f_flag?: number;
  readonly f_bavail?: number;
  readonly f_favail?: number;
}

async function fileSystemReason(sftp: SFTPWrapper, folder: string): Promise<Reason> {
  try {
    const system = (await answer<unknown>((done) => sftp.ext_openssh_statvfs(folder, done))) as FileSystem;
    if (((system.f_flag ?? 0) & READ_ONLY) !== 0) return "sftp_read_only";
    return system.f_bavail === 0 || system.f_favail === 0 ? "sftp_disk_full" : "sftp_write_failed";
  } catch {
    return "sftp_write_failed";
  }
}

/** Reads the file again, where the user may: folders for delivery often cannot be read by who delivers. */
async function readBack(sftp: SFTPWrapper, path: string, trial: Trial): Promise<void> {
  trial.details["can_read"] = false;
  let content: Buffer;
  try {
    const handle = await answer<Buffer>((done) => sftp.open(path, "r", done));
    const space = Buffer.alloc(CONTENT.length + 1);
    const length = await answer<number>((done) => sftp.read(handle, space, 0, space.length, 0, done)).finally(() => sftp.close(handle, () => {}));
    content = space.subarray(0, length);
  } catch (error) {
    if (codeOf(error) === STATUS.permissionDenied) return;
    throw trial.failure ?? new CheckFailure(codeOf(error) === undefined ? "sftp_transfer_closed" : "sftp_write_garbled");
  }
  if (!content.equals(CONTENT)) throw new CheckFailure("sftp_write_garbled");
  trial.details["can_read"] = true;
}
