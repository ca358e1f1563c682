import { chmodSync, cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type EmbeddedPostgres, startEmbedded } from "../../src/store/embedded.ts";
import { handOver } from "../../src/store/embedded-binaries.ts";
import { isAlive } from "../../src/store/embedded-init.ts";
import { connect } from "./postgres.ts";
import { startProxy, type TcpProxy } from "./tcp-proxy.ts";
import { lastingPort } from "./wire.ts";

/** A PostgreSQL server of a test's own that listens on a port, and may be killed and started again there. */
export interface Node extends AsyncDisposable {
  /** `host:port`. */
  readonly target: string;
  readonly urls: Pick<EmbeddedPostgres, "applicationUrl" | "ownerUrl" | "superuserUrl">;
  /** Runs statements as the superuser; gives the rows of the last one. */
  run(sql: string, values?: readonly unknown[]): Promise<any[]>;
  /** Ends every process of the server at once, as a loss of power does, and waits until they are gone. */
  kill(): Promise<void>;
  /** Ends the server as an operator does who is in a hurry. */
  stop(): Promise<void>;
  start(): Promise<void>;
}

/** Who may connect: whoever is on this machine. */
const ACCESS = "local all all trust\nhost all all 127.0.0.1/32 trust\nhost replication postgres 127.0.0.1/32 trust\n";

/** Settings by which a server can have a standby and be one. The machine does not lose power, so nobody waits for its disk. */
const SETTINGS = { fsync: "off", wal_level: "replica", max_wal_senders: "5", hot_standby: "on", listen_addresses: "127.0.0.1", wal_receiver_status_interval: "100ms", wal_retrieve_retry_interval: "100ms" };

/** The processes that a process has started. */
function childrenOf(pid: number): number[] {
  const parents = readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map((name): readonly [number, number] => {
    try {
      return [Number(name), Number(/\) \S (\d+)/.exec(readFileSync(`/proc/${name}/stat`, "utf8"))?.[1])];
    } catch {
      return [Number(name), 0];
    }
  });
  return parents.filter(([, parent]) => parent === pid).map(([child]) => child);
}

/** State of a process as one letter; undefined where it is gone. */
function stateOf(pid: number): string | undefined {
  try {
    return /\) (\S)/.exec(readFileSync(`/proc/${pid}/stat`, "utf8"))?.[1];
  } catch {
    return undefined;
  }
}

/** Starts one in a folder, with further settings. */
export async function startNode(folder: string, more: Readonly<Record<string, string>> = {}): Promise<Node> {
  const port = await lastingPort();
  mkdirSync(folder, { recursive: true, mode: 0o711 });
  writeFileSync(join(folder, "access.conf"), ACCESS, { mode: 0o644 });
  const settings = { ...SETTINGS, hba_file: join(folder, "access.conf"), port: String(port), ...more };
  let server = await startEmbedded(folder, { settings });
  const postmaster = () => Number(readFileSync(join(server.dataDir, "postmaster.pid"), "utf8").split("\n")[0]);
  return {
    target: `127.0.0.1:${port}`,
    get urls() {
      return server;
    },
    async run(sql, values = []) {
      await using superuser = await connect(server.superuserUrl);
      return (await superuser.query(sql, [...values])).rows;
    },
    async kill() {
      const pid = postmaster();
      // Whoever starts the others stands still while they are counted: once it is dead, they are no children of its any more.
      process.kill(pid, "SIGSTOP");
      while (stateOf(pid) !== "T") await sleep(1);
      const all = [pid, ...childrenOf(pid)];
      for (const each of all) if (isAlive(each)) process.kill(each, "SIGKILL");
      while (all.some((each) => ![undefined, "Z", "X"].includes(stateOf(each)))) await sleep(10);
    },
    stop: () => server.stop(),
    async start() {
      server = await startEmbedded(folder, { settings });
    },
    [Symbol.asyncDispose]: () => server.stop(),
  };
}

/** A primary and its streaming standby. */
export interface Pair extends AsyncDisposable {
  readonly primary: Node;
  readonly standby: Node;
  /** The way from the primary to the standby. */
  readonly link: TcpProxy;
  /** Makes the standby the primary, and waits until it takes writes. */
  promote(): Promise<void>;
}

/**
 * Starts both. A copy of the primary while it is stopped is the base backup: the embedded engine ships no pg_basebackup. `prepare`
 * may migrate the primary before. A commit is acknowledged when the standby has it on its disk, where they are synchronous.
 */
export async function startPair(replication: "synchronous" | "asynchronous", prepare: (primary: Node) => Promise<unknown>): Promise<Pair> {
  const root = mkdtempSync(join(tmpdir(), "flow-pair-"));
  // The server's user has to walk through it.
  chmodSync(root, 0o711);
  const folders = { primary: join(root, "primary"), standby: join(root, "standby") };
  const primary = await startNode(folders.primary);
  await prepare(primary);
  await primary.stop();
  const data = join(folders.standby, "postgres");
  cpSync(join(folders.primary, "postgres"), `${data}-draft`, { recursive: true, preserveTimestamps: true });
  writeFileSync(join(`${data}-draft`, "standby.signal"), "");
  for (const entry of ["", ...(readdirSync(`${data}-draft`, { recursive: true }) as string[])]) handOver(join(`${data}-draft`, entry));
  chmodSync(`${data}-draft`, 0o700);
  renameSync(`${data}-draft`, data);
  await primary.start();
  const link = await startProxy(primary.target);
  const [host, port] = link.target.split(":");
  const standby = await startNode(folders.standby, { primary_conninfo: `host=${host} port=${port} user=postgres application_name=standby` });
  if (replication === "synchronous") {
    await primary.run("alter system set synchronous_standby_names = 'standby'");
    await primary.run("select pg_reload_conf()");
  }
  const state = replication === "synchronous" ? "sync" : "async";
  while ((await primary.run("select from pg_stat_replication where state = 'streaming' and sync_state = $1", [state])).length === 0) await sleep(20);
  return {
    primary,
    standby,
    link,
    async promote() {
      const [row] = await standby.run("select pg_promote(true, 30) as done");
      if (row?.done !== true) throw new Error("the standby was not promoted");
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([primary.stop(), standby.stop()]);
      await link[Symbol.asyncDispose]();
      rmSync(root, { recursive: true, force: true });
    },
  };
}
