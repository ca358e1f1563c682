import { spawn } from "node:child_process";
import { once } from "node:events";
import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { expect, test, vi } from "vitest";
import { canary, leaks, leaksBelow } from "../support/canary.ts";
import { freshDatabase } from "../support/postgres.ts";
import { rest, serviceEnv, startFresh, temporaryFolder, token } from "../support/service.ts";

vi.setConfig({ testTimeout: 60_000 });

/** What a container runs, with the program in its place here. */
const [program = "", ...image] = JSON.parse(/^ENTRYPOINT (.*)$/m.exec(readFileSync("deploy/Dockerfile", "utf8"))?.[1] ?? "[]") as string[];
const MAIN = resolve("src/main.ts");
const UNLIMITED = ["prlimit", "--core=unlimited"] as const;

/** Stores a planted password and has it resolved, so that it is in the memory of the process in every form it ever has. */
async function plant(at: { readonly rest: string }): Promise<string> {
  const [password, organization] = [canary("password"), randomUUID()];
  const body = { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password } };
  const created = await rest(at, "POST", "/integrations/credentials", { token: await token("user", organization), body });
  const resolved = await rest(at, "GET", `/integrations/credentials/${created.json.id}/credentials`, { token: await token("service_account", organization) });
  expect(resolved.json).toMatchObject({ password });
  return password;
}

/** Runs a command on a machine that would keep every core file, in a folder of its own. */
async function run(folder: string, env: Readonly<Record<string, string>>, command: readonly string[]) {
  const child = spawn(UNLIMITED[0], [UNLIMITED[1], ...command], { cwd: folder, env: { ...env, PATH: `${dirname(process.execPath)}:${env["PATH"]}` }, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text: string) => (output += text));
  const ended = once(child, "close") as Promise<[number | null, string | null]>;
  await Promise.race([ended, vi.waitFor(() => expect(output).toMatch(/^ready /m), { timeout: 25_000 })]);
  return { child, output: () => output, ended, rest: `http://${/ rest=(\S+)/.exec(output)?.[1]}`, [Symbol.dispose]: () => void child.kill("SIGKILL") };
}

test("started as the image starts it, a service that crashes leaves no core file and says nothing of what it held", async () => {
  for (const signal of ["SIGABRT", "SIGSEGV"] as const) {
    using folder = temporaryFolder();
    using data = temporaryFolder();
    await using database = await freshDatabase();
    const env = serviceEnv(database, { CREDENTIALS_REST_RESOLVE: "on", CREDENTIALS_DATA_DIR: data.path });
    using service = await run(folder.path, env, [program, ...image, MAIN]);
    expect(readFileSync(`/proc/${service.child.pid}/limits`, "utf8")).toMatch(/^Max core file size +1 /m);
    const planted = [await plant(service), env["CREDENTIALS_MASTER_KEYS"]?.split(":")[1] as string, env["CREDENTIALS_JWT_SECRET"] as string];
    service.child.kill(signal);
    expect(await service.ended).toEqual([null, signal]);
    expect(readdirSync(folder.path)).toEqual([]);
    expect(leaks(planted, "what it printed", Buffer.from(service.output()))).toEqual([]);
  }
});

test("the machine of these tests would have kept one, wherever it is written to a file", async () => {
  using folder = temporaryFolder();
  using machine = await run(folder.path, { PATH: process.env["PATH"] ?? "" }, ["sh", "-c", "echo 'ready '; exec sleep 60"]);
  const { child } = machine;
  expect(readFileSync(`/proc/${child.pid}/limits`, "utf8")).toMatch(/^Max core file size +unlimited /m);
  child.kill("SIGSEGV");
  await machine.ended;
  if (readFileSync("/proc/sys/kernel/core_pattern", "utf8").trim() === "core") expect(readdirSync(folder.path)).toEqual([expect.stringMatching(/^core/)]);
});

test("production does not start where it would leave one", async () => {
  using folder = temporaryFolder();
  const env = { PATH: process.env["PATH"] ?? "", CREDENTIALS_PROFILE: "production", CREDENTIALS_DATABASE_URL: "postgresql://u@localhost/d", CREDENTIALS_MASTER_KEYS: serviceEnv(undefined)["CREDENTIALS_MASTER_KEYS"] as string, CREDENTIALS_PRIMARY_KEY_ID: "test-1" };
  using refused = await run(folder.path, env, [process.execPath, MAIN]);
  expect([await refused.ended, refused.output()]).toEqual([[1, null], expect.stringMatching(/^flow-credentials: production refuses to run where a crash may leave a core file/)]);
});

test("a diagnostic report that development asks for holds no secret of the settings and none that was handed out", async () => {
  using folder = temporaryFolder();
  await using service = await startFresh({ CREDENTIALS_REST_RESOLVE: "on", NODE_OPTIONS: `--report-on-signal --report-directory=${folder.path}` });
  const planted = [await plant(service), service.env["CREDENTIALS_MASTER_KEYS"]?.split(":")[1] as string, service.env["CREDENTIALS_JWT_SECRET"] as string];
  service.process.kill("SIGUSR2");
  const report = () => readdirSync(folder.path).map((name) => readFileSync(join(folder.path, name), "utf8")).find((text) => text.trimEnd().endsWith("}"));
  await expect.poll(report, { timeout: 20_000 }).toContain('"event": "SIGUSR2"');
  expect(JSON.parse(report() ?? "{}")).toMatchObject({ header: { trigger: "Signal" } });
  expect(leaksBelow(planted, folder.path)).toEqual([]);
});
