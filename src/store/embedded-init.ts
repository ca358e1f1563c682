import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { handOver, identity, type Places } from "./embedded-binaries.ts";
import { StoreSetupError } from "./errors.ts";

/** Environment of the server's programs: nothing of ours. */
export const SERVER_ENV = { LC_ALL: "C", TZ: "UTC", PATH: "/usr/bin:/bin" };

/** Roles and database. The owner migrates; the application role is the service's and may do only what it is granted. */
const SETUP = [
  "create role credentials_owner login nosuperuser nocreatedb nocreaterole nobypassrls;",
  "create role credentials_app login nosuperuser nocreatedb nocreaterole nobypassrls;",
  "create database flow_credentials owner credentials_owner;",
  "revoke temporary on database flow_credentials from public;",
];

/** Settings of the cluster: only the socket, whose folder is closed, lets anyone in. */
const INITDB = ["-U", "postgres", "--auth-local=trust", "--auth-host=reject", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"];

/** Whether a process is there, whoever it belongs to. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/**
 * Creates the data folder, unless it is there. It is made under another name and appears complete, by a rename: of two
 * processes that do this at once one wins and the other throws its own away, and a killed one leaves nothing half done.
 * Where it need not be durable it is not waited for the disk.
 */
export async function initialise(places: Places, data: string, durable: boolean): Promise<void> {
  if (fs.existsSync(data)) return;
  removeAbandoned(places.home);
  const draft = path.join(places.home, `postgres-draft-${process.pid}-${Date.now().toString(36)}`);
  fs.mkdirSync(draft, { mode: 0o700 });
  handOver(draft);
  try {
    await run(places, "initdb", ["-D", draft, ...INITDB, ...(durable ? [] : ["--no-sync"])]);
    await run(places, "postgres", ["--single", "-D", draft, "-j", "postgres"], SETUP.map((sql) => `${sql}\n\n`).join(""));
    fs.renameSync(draft, data);
  } catch (error) {
    fs.rmSync(draft, { recursive: true, force: true });
    if (!fs.existsSync(data)) throw error;
  }
}

/** Removes what processes left behind that died while they initialised. */
function removeAbandoned(home: string): void {
  for (const entry of fs.readdirSync(home)) {
    const pid = /^postgres-draft-(\d+)-/.exec(entry)?.[1];
    if (pid !== undefined && !isAlive(Number(pid))) fs.rmSync(path.join(home, entry), { recursive: true, force: true });
  }
}

function run(places: Places, program: string, args: readonly string[], input = ""): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(path.join(places.native, "bin", program), args, { cwd: "/", env: SERVER_ENV, stdio: ["pipe", "ignore", "pipe"], ...identity });
    let said = "";
    child.stderr.on("data", (chunk: Buffer) => (said = (said + chunk.toString()).slice(-1_000)));
    const failed = (what: string) => reject(new StoreSetupError(`${program} of the embedded PostgreSQL ${what}`));
    child.on("error", (error: NodeJS.ErrnoException) => failed(`could not be started (${error.code})`));
    child.on("close", (code) => (code === 0 ? resolve() : failed(`failed: ${said.trim()}`)));
    child.stdin.on("error", () => {});
    child.stdin.end(input);
  });
}
