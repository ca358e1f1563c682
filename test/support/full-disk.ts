import { execFileSync } from "node:child_process";
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type EmbeddedPostgres, startEmbedded } from "../../src/store/embedded.ts";
import { identity } from "../../src/store/embedded-binaries.ts";
import { isAlive } from "../../src/store/embedded-init.ts";
import { migrate } from "../../src/store/migrate.ts";
import { connect } from "./postgres.ts";

/** A server of a test's own, whose disk may be full without anybody else noticing. */
export interface OwnServer extends AsyncDisposable {
  readonly server: EmbeddedPostgres;
  readonly folder: string;
  /** Runs statements as the superuser; gives the rows of the last one. */
  run(sql: string, values?: readonly unknown[]): Promise<any[]>;
}

/** Starts and migrates one. */
export async function startOwnServer(): Promise<OwnServer> {
  const folder = mkdtempSync(join(tmpdir(), "flow-full-disk-"));
  const server = await startEmbedded(folder, { settings: { fsync: "off" } });
  await migrate({ url: server.ownerUrl, applicationRole: "credentials_app" });
  return {
    server,
    folder,
    async run(sql, values = []) {
      await using superuser = await connect(server.superuserUrl);
      return (await superuser.query(sql, [...values])).rows;
    },
    async [Symbol.asyncDispose]() {
      await server.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/**
 * Sets how far files may grow that a process writes, bytes; null for as far as they like. The kernel refuses the write that
 * would go further, which PostgreSQL takes as it takes a full disk; the server's user may set it without any privilege.
 * A process that has ended meanwhile needs no limit.
 */
export function limitFiles(pids: readonly number[], bytes: number | null): void {
  for (const pid of pids) {
    try {
      execFileSync("prlimit", ["--pid", String(pid), `--fsize=${bytes ?? "unlimited"}:`], { stdio: "ignore", ...identity });
    } catch (error) {
      if (isAlive(pid)) throw error;
    }
  }
}

/** The processes that serve the application role, and the one that starts more of them. */
export async function servingProcesses({ run, server }: OwnServer): Promise<{ backends: number[]; postmaster: number }> {
  const rows = await run("select pid from pg_stat_activity where usename = 'credentials_app'");
  return { backends: rows.map(({ pid }) => pid as number), postmaster: Number(readFileSync(join(server.dataDir, "postmaster.pid"), "utf8").split("\n")[0]) };
}

/** A small file system of the server's own. */
export interface SmallDisk extends Disposable {
  readonly folder: string;
  /** Leaves no space on it. */
  fill(): void;
  /** Gives the space back. */
  empty(): void;
}

/** Mounts one that the server may write to. */
export function mountSmallDisk(folder: string): SmallDisk {
  mkdirSync(folder);
  const owner = identity.uid === undefined ? "" : `,uid=${identity.uid},gid=${identity.gid}`;
  execFileSync("mount", ["-t", "tmpfs", "-o", `size=8m,mode=0700${owner}`, "tmpfs", folder]);
  const filler = join(folder, "filler");
  return {
    folder,
    fill() {
      const file = openSync(filler, "w");
      try {
        for (;;) writeSync(file, Buffer.alloc(4_096));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
      } finally {
        closeSync(file);
      }
    },
    empty: () => rmSync(filler),
    [Symbol.dispose]: () => void execFileSync("umount", [folder]),
  };
}
