import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** Whether a file system can be made here, which takes more rights than many a container has. */
export function mountable(): boolean {
  const folder = mkdtempSync(join(tmpdir(), "flow-mount-"));
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=16k", "tmpfs", folder], { stdio: "ignore" });
    execFileSync("umount", [folder], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  } finally {
    rmdirSync(folder);
  }
}

/** A small file system of its own. */
export interface Disk extends AsyncDisposable {
  readonly folder: string;
  /** Leaves no space on it. */
  fill(): void;
  /** Lets nobody write to it any more. */
  protect(): Promise<void>;
}

/** Mounts a disk on a new folder. */
export function mountDisk(folder: string): Disk {
  mkdirSync(folder);
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=16k,mode=0777", "tmpfs", folder]);
  return {
    folder,
    fill() {
      try {
        writeFileSync(join(folder, "filler"), Buffer.alloc(64 * 1024));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "ENOSPC") return;
        throw error;
      }
      throw new Error("the disk is larger than it should be");
    },
    protect: () => whenFree(["mount", "-o", "remount,ro", folder]),
    async [Symbol.asyncDispose]() {
      await whenFree(["umount", folder]);
      rmdirSync(folder);
    },
  };
}

/** A server may still be closing the files of a session that is over. */
async function whenFree([command = "", ...words]: readonly string[]): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      execFileSync(command, words, { stdio: "ignore" });
      return;
    } catch (error) {
      if (attempt === 50) throw error;
      await sleep(100);
    }
  }
}
