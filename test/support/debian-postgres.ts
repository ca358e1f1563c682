import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { handOver, identity } from "../../src/store/embedded-binaries.ts";
import { freePort } from "./wire.ts";

const VERSIONS = "/usr/lib/postgresql";

/** Where the newest of Debian's PostgreSQL servers has its programs; undefined where none is installed. */
export function debianPostgres(): string | undefined {
  const versions = existsSync(VERSIONS) ? readdirSync(VERSIONS).map(Number).filter(Number.isInteger) : [];
  const newest = join(VERSIONS, String(Math.max(0, ...versions)), "bin");
  return existsSync(join(newest, "postgres")) && existsSync(join(newest, "pg_dump")) ? newest : undefined;
}

/** A server as an operator gets it from the distribution: over TCP, with passwords, and nothing in it but its superuser. */
export interface DebianServer extends Disposable {
  readonly port: number;
  /** Folder of `psql`, `pg_dump` and their like, of the server's own version. */
  readonly bin: string;
  /** As `postgres`. */
  readonly superuserUrl: string;
}

/** Makes and starts one. Its log may show statements, as an operator's does. */
export async function startDebianPostgres(): Promise<DebianServer> {
  const bin = debianPostgres();
  if (bin === undefined) throw new Error("Debian's postgresql is not installed");
  const folder = mkdtempSync(join(tmpdir(), "flow-debian-pg-"));
  const [data, password, log] = [join(folder, "data"), randomBytes(12).toString("hex"), join(folder, "log")];
  chmodSync(folder, 0o711);
  writeFileSync(join(folder, "password"), password);
  for (const path of [folder, join(folder, "password")]) handOver(path);
  const run = (program: string, ...args: string[]) => execFileSync(join(bin, program), args, { cwd: "/", env: { LC_ALL: "C", PATH: bin }, stdio: ["ignore", "ignore", "pipe"], ...identity });
  run("initdb", "-D", data, "-U", "postgres", `--pwfile=${join(folder, "password")}`, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync");
  const port = await freePort();
  run("pg_ctl", "start", "-w", "-s", "-D", data, "-l", log, "-o", `-c listen_addresses=127.0.0.1 -c port=${port} -c unix_socket_directories='' -c fsync=off`);
  return {
    port,
    bin,
    superuserUrl: `postgresql://postgres:${password}@127.0.0.1:${port}/postgres`,
    [Symbol.dispose]() {
      run("pg_ctl", "stop", "-w", "-s", "-m", "immediate", "-D", data);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
