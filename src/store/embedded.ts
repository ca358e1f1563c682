import { type ChildProcess, spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { parseDatabaseUrl } from "./connection.ts";
import { findPlaces, identity, makeSocketFolder, type Places, SOCKET_FOLDER } from "./embedded-binaries.ts";
import { initialise, isAlive, SERVER_ENV } from "./embedded-init.ts";
import { StoreSetupError } from "./errors.ts";

/** A PostgreSQL of our own, for development and tests, reachable only through a socket in a closed folder. */
export interface EmbeddedPostgres {
  /** As the service's role. */
  readonly applicationUrl: string;
  /** As the role that owns database and schema. */
  readonly ownerUrl: string;
  /** As `postgres`; only for setting up and for tests. */
  readonly superuserUrl: string;
  /** Whether another process that still lives started the server; `stop` leaves it alone then. */
  readonly attached: boolean;
  /** Where the data is. */
  readonly dataDir: string;
  /** Whether `dataDir` is outside the folder that was asked for, because the server's user cannot reach that one. */
  readonly moved: boolean;
  /** Stops the server, where this process is responsible for it. */
  stop(): Promise<void>;
}

/** What a caller may vary. */
export interface EmbeddedOptions {
  /** Further settings of the server, by name. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Folder with `bin/` of another server, in the place of the one that is installed with this package. */
  readonly programs?: string;
  /** Longest time until the server answers, ms. */
  readonly timeoutMs?: number;
}

/**
 * Settings for development: durable as in production, no network, and no values of rows in the server's log
 * (`log_error_verbosity` leaves DETAIL out, `log_min_error_statement` the statement).
 */
const SETTINGS: Readonly<Record<string, string>> = {
  listen_addresses: "",
  unix_socket_permissions: "0700",
  max_connections: "200",
  wal_level: "minimal",
  max_wal_senders: "0",
  jit: "off",
  timezone: "UTC",
  log_timezone: "UTC",
  log_error_verbosity: "terse",
  log_min_error_statement: "panic",
  log_parameter_max_length_on_error: "0",
};

/** A server that runs, by its lock file. */
interface Running {
  readonly pid: number;
  readonly socketFolder: string;
  readonly port: string;
  readonly ready: boolean;
}

/**
 * Starts the embedded server, or attaches to the one that runs on this data already. Of several processes one starts it
 * and is responsible for stopping it. Where that one was killed, the server runs on, and the next start takes it over.
 */
export async function startEmbedded(dataDir: string, options: EmbeddedOptions = {}): Promise<EmbeddedPostgres> {
  const places = findPlaces(dataDir, options.programs);
  const data = path.join(places.home, "postgres");
  const deadline = Date.now() + (options.timeoutMs ?? 30_000);
  await initialise(places, data, options.settings?.["fsync"] !== "off");
  while (Date.now() < deadline) {
    const running = readLockFile(data);
    if (running === undefined) {
      const pid = await launch(places, data, options.settings ?? {}, deadline);
      if (pid !== undefined) takeResponsibility(places.home, pid);
    } else if (running.ready && (await answers(running))) {
      if (responsible(places.home) === undefined) takeResponsibility(places.home, running.pid);
      return describe(places, data, running);
    }
    await sleep(20);
  }
  throw new StoreSetupError(`the embedded PostgreSQL did not start; see ${path.join(places.home, "postgres.log")}`);
}

/** Reads `postmaster.pid`; removes it, and its socket folder, where its process is gone or is another program by now. */
function readLockFile(data: string): Running | undefined {
  const file = path.join(data, "postmaster.pid");
  let lines: string[];
  try {
    lines = fs.readFileSync(file, "utf8").split("\n");
  } catch {
    return undefined;
  }
  const pid = Number(lines[0]);
  const socketFolder = lines[4] ?? "";
  if (!Number.isInteger(pid) || pid <= 0) return { pid: 0, socketFolder, port: "", ready: false };
  if (isAlive(pid) && isPostgres(pid)) return { pid, socketFolder, port: lines[3] ?? "5432", ready: lines[7]?.trim() === "ready" };
  if (path.basename(socketFolder).startsWith(SOCKET_FOLDER)) fs.rmSync(socketFolder, { recursive: true, force: true });
  if (isAlive(pid)) fs.rmSync(file, { force: true });
  return undefined;
}

/**
 * Whether a process is a PostgreSQL that runs, as far as the system tells: a killed server's id may have gone to another
 * program, or stay with its corpse where nobody collects it.
 */
function isPostgres(pid: number): boolean {
  try {
    return /^\d+ \(postgres\) [^ZX]/.test(fs.readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return process.platform !== "linux";
  }
}

/** Whether the server takes connections: one that was killed this moment still looks as if it ran. */
async function answers(running: Running): Promise<boolean> {
  const client = new pg.Client(parseDatabaseUrl(urlOf(running, "postgres", "postgres")));
  client.on("error", () => {});
  try {
    await client.connect();
    return true;
  } catch {
    return false;
  } finally {
    await client.end().catch(() => {});
  }
}

const urlOf = (running: Running, role: string, database: string): string =>
  `postgresql://${role}@/${database}?host=${encodeURIComponent(running.socketFolder)}&port=${running.port}`;

/** Starts a server; its id once it is ready, or undefined where it ended, as it does when another one was faster. */
async function launch(places: Places, data: string, settings: Readonly<Record<string, string>>, deadline: number): Promise<number | undefined> {
  const socketFolder = makeSocketFolder();
  const log = openLog(path.join(places.home, "postgres.log"));
  const parameters = Object.entries({ ...SETTINGS, ...settings, unix_socket_directories: socketFolder }).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  const child = spawn(path.join(places.native, "bin", "postgres"), ["-D", data, ...parameters], {
    cwd: "/",
    env: SERVER_ENV,
    stdio: ["ignore", log, log],
    // Its own process group: an interrupt from the terminal reaches this process only, which then stops the server in order.
    detached: true,
    ...identity,
  });
  fs.closeSync(log);
  child.unref();
  const ended = once(child);
  while (Date.now() < deadline && !ended.done) {
    const running = readLockFile(data);
    if (running?.ready === true && running.pid === child.pid) return child.pid;
    await sleep(10);
  }
  if (!ended.done) child.kill("SIGINT");
  fs.rmSync(socketFolder, { recursive: true, force: true });
  return undefined;
}

/** Opens the server's log at its end; begins anew where it has grown large. */
function openLog(file: string): number {
  const large = (fs.statSync(file, { throwIfNoEntry: false })?.size ?? 0) > 1_000_000;
  return fs.openSync(file, large ? "w" : "a", 0o600);
}

function once(child: ChildProcess): { readonly done: boolean } {
  const state = { done: false };
  child.once("exit", () => (state.done = true));
  child.once("error", () => (state.done = true));
  return state;
}

const ownerFile = (home: string): string => path.join(home, "postgres.owner");

/** The living process that is responsible for the server, by its id. */
function responsible(home: string): number | undefined {
  try {
    const pid = Number(fs.readFileSync(ownerFile(home), "utf8").split(" ")[0]);
    return Number.isInteger(pid) && pid > 0 && isAlive(pid) ? pid : undefined;
  } catch {
    return undefined;
  }
}

/** Notes this process as responsible; whoever notes last is. */
function takeResponsibility(home: string, server: number): void {
  const draft = `${ownerFile(home)}.${process.pid}`;
  fs.writeFileSync(draft, `${process.pid} ${server}`, { mode: 0o600 });
  fs.renameSync(draft, ownerFile(home));
}

function describe(places: Places, data: string, running: Running): EmbeddedPostgres {
  return {
    applicationUrl: urlOf(running, "credentials_app", "flow_credentials"),
    ownerUrl: urlOf(running, "credentials_owner", "flow_credentials"),
    superuserUrl: urlOf(running, "postgres", "flow_credentials"),
    attached: responsible(places.home) !== process.pid,
    dataDir: data,
    moved: places.moved,
    stop: () => stop(places.home, data, running),
  };
}

async function stop(home: string, data: string, running: Running): Promise<void> {
  if (responsible(home) !== process.pid) return;
  signal(running.pid, "SIGINT");
  for (let waited = 0; readLockFile(data)?.pid === running.pid; waited += 10) {
    if (waited === 10_000) signal(running.pid, "SIGQUIT");
    if (waited > 15_000) throw new StoreSetupError("the embedded PostgreSQL did not stop");
    await sleep(10);
  }
  fs.rmSync(running.socketFolder, { recursive: true, force: true });
  fs.rmSync(ownerFile(home), { force: true });
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended by itself.
  }
}
