import { execFile, execFileSync, spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { canary } from "../support/canary.ts";
import { makeCertificate } from "../support/certificate.ts";
import { type Service, startFresh, temporaryFolder, token } from "../support/service.ts";

/** Debian's, which has Debian's packages. */
const PYTHON = "/usr/bin/python3";
const READY = spawnSync(PYTHON, ["-c", "import grpc, google.protobuf"]).status === 0 && ["protoc", "grpc_python_plugin"].every((program) => spawnSync("sh", ["-c", `command -v ${program}`]).status === 0);

describe.skipIf(!READY)("the example in Python (needs the Debian packages protobuf-compiler, protobuf-compiler-grpc and python3-grpcio)", () => {
  const organization = randomUUID();
  const password = canary("python");
  let service: Service;
  let folder: ReturnType<typeof temporaryFolder>;
  let user: string;
  let machine: string;
  let ca: string;
  beforeAll(async () => {
    folder = temporaryFolder();
    const pair = await makeCertificate();
    ca = join(folder.path, "ca.pem");
    for (const [name, text] of [["tls.pem", pair.cert], ["tls.key", pair.key], ["ca.pem", pair.ca]] as const) writeFileSync(join(folder.path, name), text);
    execFileSync("examples/python/generate.sh", [join(folder.path, "generated")]);
    service = await startFresh({ CREDENTIALS_TLS_CERT_FILE: join(folder.path, "tls.pem"), CREDENTIALS_TLS_KEY_FILE: join(folder.path, "tls.key") });
    [user, machine] = await Promise.all([token("user", organization), token("service_account", organization)]);
  }, 60_000);
  afterAll(async () => {
    await service[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  /** Runs the example; gives its exit code and what it said. */
  function execute(as: string, args: readonly string[], input = ""): Promise<{ code: number; stdout: string; stderr: string }> {
    const env = { PATH: process.env["PATH"] ?? "", FLOW_CREDENTIALS_TOKEN: as, FLOW_CREDENTIALS_GENERATED: join(folder.path, "generated"), PYTHONDONTWRITEBYTECODE: "1" };
    const [, port = ""] = service.grpc.split(":");
    return new Promise((resolve) => {
      const child = execFile(PYTHON, ["examples/python/executor.py", "--target", `localhost:${port}`, "--ca-file", ca, ...args], { env }, (error, stdout, stderr) => resolve({ code: Number(error?.code ?? 0), stdout, stderr }));
      child.stdin?.end(input);
    });
  }
  const secret = () => JSON.stringify({ host: "sftp.example", username: "anna", password });
  const create = (as: string, ...more: string[]) => execute(as, ["create", "--provider", "sftp", "--type", "user_password", ...more], secret());

  test("stores, lists, resolves and deletes over TLS, and prints no secret", async () => {
    const created = await create(user);
    expect(created).toMatchObject({ code: 0, stderr: "" });
    const { id } = JSON.parse(created.stdout) as { id: string };
    expect((await execute(user, ["list"])).stdout).toContain(id);
    const resolved = await execute(machine, ["--flow-id", "flow-1", "--run-id", "run-1", "resolve", id]);
    expect(resolved).toEqual({ code: 0, stdout: "<Secret sftp_password of sftp, version 1> for sftp://anna@sftp.example:22\n", stderr: "" });
    expect(await execute(user, ["delete", id])).toMatchObject({ code: 0, stderr: "" });
    expect((await execute(machine, ["resolve", id])).stderr).toMatch(/^Credential not found \(CREDENTIAL_NOT_FOUND, request [0-9A-Z]{26}\)\n$/);
    expect([created, resolved].map(({ stdout, stderr }) => stdout + stderr).join("")).not.toContain(password);
  });

  test("is told why it is refused: who it is, and what is wrong with which field", async () => {
    expect(await create(machine)).toMatchObject({ code: 1, stderr: expect.stringContaining("USER_REQUIRED") });
    expect(await execute(`${machine}x`, ["list"])).toMatchObject({ code: 1, stderr: expect.stringContaining("INVALID_TOKEN") });
    const wrong = await execute(user, ["create", "--provider", "sftp", "--type", "user_password"], JSON.stringify({ host: "sftp.example", password }));
    expect(wrong).toMatchObject({ code: 1, stderr: expect.stringMatching(/INVALID_CREDENTIALS.*\n {2}credentials\.username: /) });
    expect(wrong.stderr).not.toContain(password);
  });

  test("creates once under an idempotency key, however often it is run", async () => {
    const key = randomUUID();
    const [first, second] = [await create(user, "--idempotency-key", key), await create(user, "--idempotency-key", key)];
    expect([first.code, second.stdout]).toEqual([0, first.stdout]);
    expect((await execute(user, ["list"])).stdout.trim().split("\n")).toHaveLength(1);
  });
});
