import { execFileSync, spawn, spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { freshDatabase } from "../support/postgres.ts";
import { rest, serviceEnv, temporaryFolder, token } from "../support/service.ts";

/** The system calls of a set of systemd's, those of the sets in it included. */
function callsOf(set: string): string[] {
  const lines = execFileSync("systemd-analyze", ["syscall-filter", set], { encoding: "utf8" }).split("\n").slice(1).map((line) => line.trim());
  return lines.filter((line) => line !== "" && !line.startsWith("#")).flatMap((line) => (line.startsWith("@") ? callsOf(line) : [line]));
}

/** What the unit allows, as systemd reads its lines one after the other. */
function allowed(): Set<string> {
  const unit = readFileSync("deploy/systemd/flow-credentials.service", "utf8");
  const names = new Set<string>();
  for (const [, not, words = ""] of unit.matchAll(/^SystemCallFilter=(~?)(.*)$/gm)) {
    for (const call of words.split(" ").flatMap((word) => (word.startsWith("@") ? callsOf(word) : [word]))) {
      if (not === "~") names.delete(call);
      else names.add(call);
    }
  }
  return names;
}

const READY = [["strace", "-V"], ["systemd-analyze", "--version"]].every(([program = "", option = ""]) => spawnSync(program, [option]).status === 0);

test.skipIf(!READY)("the unit allows every system call that the service makes, from its start to its end (needs the Debian packages strace and systemd)", async () => {
  using folder = temporaryFolder();
  const record = join(folder.path, "calls");
  await using database = await freshDatabase();
  const tracer = spawn("strace", ["-f", "-qq", "-o", record, process.execPath, "--disable-sigusr1", "src/main.ts"], { env: serviceEnv(database), stdio: ["ignore", "pipe", "ignore"] });
  let said = "";
  tracer.stdout.setEncoding("utf8").on("data", (text: string) => (said += text));
  const url = () => /^ready .*rest=(\S+)/m.exec(said)?.[1];
  await expect.poll(url, { timeout: 60_000 }).toBeDefined();
  const service = { rest: `http://${url()}` };
  const user = await token("user", randomUUID());
  const credentials = { host: "sftp.example", username: "u", password: "p" };
  expect((await rest(service, "POST", "/integrations/credentials", { token: user, body: { provider: "sftp", credential_type: "user_password", credentials } })).status).toBe(201);
  expect((await rest(service, "POST", "/integrations/sftp/test-connection", { token: user, body: { ...credentials, auth_type: "password" } })).json).toMatchObject({ layer: "address" });
  for (const path of ["/metrics", "/docs/swagger-ui-bundle.js", "/readyz"]) expect((await rest(service, "GET", path)).status).toBe(200);
  const ended = once(tracer, "close");
  process.kill(Number(readFileSync(`/proc/${tracer.pid}/task/${tracer.pid}/children`, "utf8").split(" ")[0]), "SIGTERM");
  expect((await ended)[0]).toBe(0);
  const made = new Set([...readFileSync(record, "utf8").matchAll(/^\d+ +([a-z_0-9]+)\(/gm)].map(([, name]) => name as string));
  const may = allowed();
  expect(made.size).toBeGreaterThan(40);
  expect([...made].filter((name) => !may.has(name))).toEqual([]);
  for (const name of ["mount", "ptrace", "setuid", "kexec_load", "bpf"]) expect(may.has(name), name).toBe(false);
}, 120_000);
