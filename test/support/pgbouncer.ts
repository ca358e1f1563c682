import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { accessSync, chmodSync, chownSync, constants, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseDatabaseUrl } from "../../src/store/connection.ts";
import { identity } from "../../src/store/embedded-binaries.ts";
import { freePort } from "./wire.ts";

const PGBOUNCER = "/usr/sbin/pgbouncer";

/** Whether Debian's pgbouncer is installed. */
export function pgbouncerAvailable(): boolean {
  try {
    accessSync(PGBOUNCER, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** A running pgbouncer. */
export interface Pgbouncer extends AsyncDisposable {
  /** URL of the same database through it. */
  readonly url: string;
}

/** Longest time until it listens, ms; generous, for a loaded machine. */
const START_MS = 15_000;

async function listening(port: number, child: ChildProcess, said: () => string): Promise<void> {
  for (const until = Date.now() + START_MS; Date.now() < until; ) {
    if (child.exitCode !== null) break;
    const open = await new Promise<boolean>((resolve) => {
      const socket = connect(port, "127.0.0.1", () => resolve(true)).on("error", () => resolve(false));
      socket.unref();
      setTimeout(() => socket.destroy(), 100);
    });
    if (open) return;
    await sleep(50);
  }
  throw new Error(`pgbouncer does not listen:\n${said()}`);
}

/**
 * Puts a pgbouncer in transaction mode, with few server connections, before a database. It refuses to run as root, so it runs as the
 * user that owns the database's socket. It tries a server that is away again each second, and not only each quarter of a minute, and
 * holds what waits for one back for five seconds, and not for two minutes.
 */
export async function startPgbouncer(url: string, serverConnections: number): Promise<Pgbouncer> {
  const { host, port: databasePort, user, database } = parseDatabaseUrl(url);
  const folder = mkdtempSync(join(tmpdir(), "flow-pgbouncer-"));
  const port = await freePort();
  const owner = host.startsWith("/") && process.getuid?.() === 0 ? ownerOf(host) : identity;
  writeFileSync(
    join(folder, "pgbouncer.ini"),
    `[databases]\n${database} = host=${host} port=${databasePort} user=${user}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = ${port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n` +
      `default_pool_size = ${serverConnections}\nmax_client_conn = 500\nserver_reset_query_always = 0\nserver_login_retry = 1\nquery_wait_timeout = 5\nignore_startup_parameters = extra_float_digits\n`,
  );
  chmodSync(folder, 0o755);
  if (owner.uid !== undefined && owner.gid !== undefined) chownSync(folder, owner.uid, owner.gid);
  let output = "";
  const child = spawn(PGBOUNCER, [join(folder, "pgbouncer.ini")], { stdio: ["ignore", "pipe", "pipe"], ...owner });
  for (const stream of [child.stdout, child.stderr]) stream?.setEncoding("utf8").on("data", (text: string) => (output += text));
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  await listening(port, child, () => output);
  return {
    url: `postgresql://${user}@127.0.0.1:${port}/${database}`,
    async [Symbol.asyncDispose]() {
      child.kill("SIGINT");
      await Promise.race([ended, sleep(2_000).then(() => child.kill("SIGKILL"))]);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function ownerOf(folder: string): { uid: number; gid: number } {
  const [uid = "", gid = ""] = execFileSync("stat", ["-c", "%u %g", folder], { encoding: "utf8" }).trim().split(" ");
  return { uid: Number(uid), gid: Number(gid) };
}
