import { type ChildProcess, execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { accessSync, appendFileSync, chmodSync, chownSync, constants, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { freePort } from "./wire.ts";

const run = promisify(execFile);
const SSHD = "/usr/sbin/sshd";
/** Tools that the server and its user are made with. */
const TOOLS = [SSHD, "/usr/bin/ssh-keygen", "/usr/sbin/useradd", "/usr/sbin/userdel", "/usr/sbin/chpasswd"];

/** A running OpenSSH server with one system user, who may do nothing but SFTP. */
export interface Sshd {
  readonly host: string;
  readonly port: number;
  readonly username: string;
  readonly password: string;
  /** `SHA256:` and unpadded base64, as OpenSSH prints it. */
  readonly hostKeyFingerprint: string;
  /** Remote path of one of the files. */
  path(name: string): string;
  /** Starts another server for the same user with other settings, lines of `sshd_config` that come before the usual ones; gives its port. `stop` ends it too. */
  with(lines: readonly string[]): Promise<number>;
  /** Makes a host key of another kind for such a server; gives its file. */
  makeHostKey(kind: HostKeyKind): Promise<{ readonly file: string; readonly fingerprint: string }>;
  /** Lets the holder of a key in; the key as a line of `authorized_keys`. */
  addAuthorizedKey(publicKey: string): Promise<void>;
  /** Ends the server and removes the user and the files. */
  stop(): Promise<void>;
}

/** Kinds of host keys that ssh-keygen makes. */
export type HostKeyKind = "ed25519" | "ecdsa" | "rsa";

/** The user may do nothing but SFTP. */
export const CONFINED = ["Subsystem sftp internal-sftp", "ForceCommand internal-sftp"] as const;

/** Whether a server can be started here: Debian's openssh-server is installed, and this process may make users. */
export async function sshdAvailable(): Promise<boolean> {
  if (process.getuid?.() !== 0) return false;
  try {
    for (const tool of TOOLS) accessSync(tool, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** A fresh key pair from ssh-keygen: OpenSSH armour, and the line for `authorized_keys`. */
export async function generateKey(kind: "ed25519" | "rsa", passphrase = ""): Promise<{ privateKey: string; publicKey: string }> {
  const folder = mkdtempSync(join(tmpdir(), "flow-key-"));
  try {
    const file = join(folder, "key");
    await run("ssh-keygen", ["-q", "-t", kind, ...(kind === "rsa" ? ["-b", "2048"] : []), "-N", passphrase, "-C", "test", "-f", file]);
    return { privateKey: readFileSync(file, "utf8"), publicKey: readFileSync(`${file}.pub`, "utf8") };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Starts a server on a loopback port that serves these files, by name, to a user of its own. */
export async function startSshd({ files }: { files: Readonly<Record<string, string | Buffer>> }): Promise<Sshd> {
  const folder = mkdtempSync(join(tmpdir(), "flow-sshd-"));
  const [username, password] = [`flow${randomBytes(5).toString("hex")}`, randomBytes(18).toString("base64url")];
  const servers: ChildProcess[] = [];
  const stop = async () => {
    await Promise.all(servers.map(ended));
    await retried(() => run("userdel", ["--force", username]));
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const uid = await addUser(username, password, folder);
    const data = join(folder, "data");
    mkdirSync(data);
    for (const [name, content] of Object.entries(files)) writeFileSync(join(data, name), content);
    for (const path of [folder, data, ...Object.keys(files).map((name) => join(data, name))]) chownSync(path, uid, -1);
    const hostKey = await makeHostKey(folder, "ed25519");
    const hostKeyFingerprint = await fingerprintOf(hostKey);
    const serve = async (lines: readonly string[]) => {
      const port = await freePort();
      servers.push(await listening(writeConfig(folder, port, username, hostKey, lines)));
      return port;
    };
    const port = await serve(CONFINED);
    const addAuthorizedKey = async (publicKey: string) => appendFileSync(join(folder, "authorized_keys"), `${publicKey.trim()}\n`);
    return { host: "127.0.0.1", port, username, password, hostKeyFingerprint, path: (name) => join(data, name), with: serve, makeHostKey: async (kind) => {
      const file = await makeHostKey(folder, kind);
      return { file, fingerprint: await fingerprintOf(file) };
    }, addAuthorizedKey, stop };
  } catch (error) {
    await stop().catch(() => undefined);
    throw error;
  }
}

/** The user database is locked while anybody writes it, so a busy moment is tried again. */
async function retried<T>(action: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await action();
    } catch (error) {
      if (attempt === 20) throw error;
      await sleep(100);
    }
  }
}

async function addUser(username: string, password: string, home: string): Promise<number> {
  await retried(() => run("useradd", ["--no-create-home", "--home-dir", home, "--shell", "/usr/sbin/nologin", "--no-user-group", "--gid", "nogroup", username]));
  await retried(() => {
    const changed = run("chpasswd");
    changed.child.stdin?.end(`${username}:${password}\n`);
    return changed;
  });
  const { stdout } = await run("id", ["-u", username]);
  return Number(stdout);
}

/** Gives the file of a new host key. */
async function makeHostKey(folder: string, kind: HostKeyKind): Promise<string> {
  const file = join(folder, `host_key_${kind}_${randomBytes(3).toString("hex")}`);
  await run("ssh-keygen", ["-q", "-t", kind, "-N", "", "-f", file]);
  return file;
}

async function fingerprintOf(file: string): Promise<string> {
  const { stdout } = await run("ssh-keygen", ["-l", "-E", "sha256", "-f", `${file}.pub`]);
  return stdout.split(" ")[1] ?? "";
}

function writeConfig(folder: string, port: number, username: string, hostKey: string, first: readonly string[]): string {
  const [file, keys] = [join(folder, `sshd_config_${port}`), join(folder, "authorized_keys")];
  appendFileSync(keys, "");
  chmodSync(keys, 0o644);
  // StrictModes would refuse a home below the world-writable temporary folder. Without PAM sshd reads the shadow file itself.
  const lines = [
    ...first,
    `ListenAddress 127.0.0.1:${port}`, ...(first.some((line) => line.startsWith("HostKey ")) ? [] : [`HostKey ${hostKey}`]), "PidFile none", `AuthorizedKeysFile ${keys}`,
    `AllowUsers ${username}`, "StrictModes no", "UsePAM no", "PasswordAuthentication yes", "PubkeyAuthentication yes", "KbdInteractiveAuthentication no",
    "MaxAuthTries 10", "DisableForwarding yes", "PermitTTY no", "UseDNS no",
  ];
  writeFileSync(file, `${lines.join("\n")}\n`);
  return file;
}

/** Runs sshd until it says that it listens. */
async function listening(config: string): Promise<ChildProcess> {
  mkdirSync("/run/sshd", { recursive: true, mode: 0o755 });
  const server = spawn(SSHD, ["-D", "-e", "-f", config], { stdio: ["ignore", "ignore", "pipe"] });
  let output = "";
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.once("exit", () => reject(new Error(`sshd ended:\n${output}`)));
    server.stderr?.setEncoding("utf8").on("data", (text: string) => {
      output += text;
      if (output.includes("Server listening on")) resolve();
    });
  });
  return server;
}

async function ended(server: ChildProcess): Promise<void> {
  if (server.exitCode !== null || server.signalCode !== null) return;
  const over = new Promise((resolve) => server.once("exit", resolve));
  server.kill("SIGTERM");
  await over;
}
