import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { expect, test } from "vitest";
import { type EmbeddedPostgres, startEmbedded } from "../../src/store/embedded.ts";
import { connect } from "../support/postgres.ts";

function temporary(): { readonly at: string } & Disposable {
  const at = mkdtempSync(path.join(tmpdir(), "flow-embedded-"));
  return { at, [Symbol.dispose]: () => rmSync(at, { recursive: true, force: true }) };
}

const EMBEDDED = path.resolve("src/store/embedded.ts");

/** Another process that starts the server and says what it got; it stops the server when its input ends. */
async function starter(dataDir: string) {
  const program = `
    const { startEmbedded } = await import(${JSON.stringify(EMBEDDED)});
    const server = await startEmbedded(process.argv[1]);
    console.log(JSON.stringify(server));
    process.stdin.on("end", () => server.stop().then(() => process.exit(0))).resume();`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", program, dataDir], { stdio: ["pipe", "pipe", "inherit"] });
  const [line] = (await once(createInterface(child.stdout), "line")) as [string];
  return {
    server: JSON.parse(line) as EmbeddedPostgres,
    end: async (how: "in order" | "killed") => {
      if (how === "killed") child.kill("SIGKILL");
      else child.stdin.end();
      await once(child, "exit");
    },
  };
}

const serverId = (server: EmbeddedPostgres): string => readFileSync(path.join(server.dataDir, "postmaster.pid"), "utf8").split("\n")[0] ?? "";

test("the embedded server answers each of its roles, durably and without a network", async () => {
  using folder = temporary();
  const server = await startEmbedded(folder.at);
  try {
    for (const url of [server.applicationUrl, server.ownerUrl, server.superuserUrl]) {
      await using client = await connect(url);
      const { rows } = await client.query("select current_database() as database, current_setting('fsync') as fsync, current_setting('listen_addresses') as network");
      expect(rows).toEqual([{ database: "flow_credentials", fsync: "on", network: "" }]);
    }
  } finally {
    await server.stop();
  }
});

test("the embedded server's log holds no value of a row that was refused", async () => {
  using folder = temporary();
  const server = await startEmbedded(folder.at);
  await using owner = await connect(server.ownerUrl);
  await owner.query("create table refused (secret text check (secret <> 'CANARY-5d1e'))");
  await expect(owner.query("insert into refused values ('CANARY-5d1e')")).rejects.toMatchObject({ code: "23514" });
  await expect(owner.query("select $1::integer", ["CANARY-5d1e"])).rejects.toMatchObject({ code: "22P02" });
  await expect(owner.query("select 'CANARY-5d1e' from nowhere")).rejects.toMatchObject({ code: "42P01" });
  await server.stop();
  const log = readFileSync(path.join(path.dirname(server.dataDir), "postgres.log"), "utf8");
  expect(log).toContain("violates check constraint");
  expect(log.replaceAll('invalid input syntax for type integer: "CANARY-5d1e"', "")).not.toContain("CANARY");
});

test("of two processes that start at once on a fresh folder one is responsible and both work", async () => {
  using folder = temporary();
  const [one, two] = await Promise.all([starter(folder.at), starter(folder.at)]);
  expect(serverId(one.server)).toBe(serverId(two.server));
  expect([one.server.attached, two.server.attached].toSorted()).toEqual([false, true]);
  const [responsible, attached] = one.server.attached ? [two, one] : [one, two];
  await attached.end("in order");
  {
    await using client = await connect(responsible.server.applicationUrl);
    expect((await client.query("select 1 as n")).rows).toEqual([{ n: 1 }]);
  }
  await responsible.end("in order");
  expect(existsSync(path.join(responsible.server.dataDir, "postmaster.pid"))).toBe(false);
});

test("a server whose starter was killed is taken over with its data, and stopped by the one that took it over", async () => {
  using folder = temporary();
  const killed = await starter(folder.at);
  {
    await using owner = await connect(killed.server.ownerUrl);
    await owner.query("create table kept (n integer)");
  }
  await killed.end("killed");
  const server = await startEmbedded(folder.at);
  expect(server.attached).toBe(false);
  {
    await using owner = await connect(server.ownerUrl);
    expect((await owner.query("select * from kept")).rows).toEqual([]);
  }
  await server.stop();
  expect(existsSync(path.join(server.dataDir, "postmaster.pid"))).toBe(false);
});

test("a server that was killed itself is started again with its data, and its abandoned socket folder removed", async () => {
  using folder = temporary();
  const first = await startEmbedded(folder.at);
  {
    await using owner = await connect(first.ownerUrl);
    await owner.query("create table kept (n integer)");
  }
  const socketFolder = decodeURIComponent(/host=([^&]+)/.exec(first.ownerUrl)?.[1] ?? "");
  process.kill(Number(serverId(first)), "SIGKILL");
  const second = await startEmbedded(folder.at);
  expect(existsSync(socketFolder)).toBe(false);
  {
    await using owner = await connect(second.ownerUrl);
    expect((await owner.query("select * from kept")).rows).toEqual([]);
  }
  await second.stop();
});

test.runIf(process.getuid?.() === 0)("where the server's user cannot reach the folder the data lives elsewhere, and is found again", async () => {
  using folder = temporary();
  chmodSync(folder.at, 0o700);
  const asked = path.join(folder.at, "data");
  const first = await startEmbedded(asked);
  expect(first.moved).toBe(true);
  await first.stop();
  const second = await startEmbedded(asked);
  expect(second.dataDir).toBe(first.dataDir);
  await second.stop();
  rmSync(path.dirname(first.dataDir), { recursive: true, force: true });
});
