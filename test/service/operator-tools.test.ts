import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { rest, startFresh, token } from "../support/service.ts";

const run = promisify(execFile);
let service: Awaited<ReturnType<typeof startFresh>>;

beforeAll(async () => {
  service = await startFresh();
});
afterAll(async () => service[Symbol.asyncDispose]());

/** `buf curl` as an operator types it; it knows the schema by reflection alone. */
const curl = async (...args: string[]) => (await run("npx", ["buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge", ...args])).stdout;

test("buf curl lists the services by reflection and calls GetCredential", async () => {
  const services = (await curl("--list-services", `http://${service.grpc}`)).trim().split("\n").sort();
  expect(services).toEqual([
    "flow.credentials.v1.AdminService",
    "flow.credentials.v1.AuthorizationService",
    "flow.credentials.v1.CredentialService",
    "flow.credentials.v1.ServiceAccountService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
  ]);
  const user = await token("user", randomUUID());
  const body = { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password: "p" } };
  const { json } = await rest(service, "POST", "/integrations/credentials", { token: user, body });
  const method = `http://${service.grpc}/flow.credentials.v1.CredentialService/GetCredential`;
  const described = JSON.parse(await curl("-H", `authorization: Bearer ${user}`, "-d", JSON.stringify({ credential_id: json.id }), method));
  expect(described.credential).toMatchObject({ id: json.id, provider: "PROVIDER_SFTP", credentialType: "CREDENTIAL_TYPE_USER_PASSWORD", status: "CREDENTIAL_STATUS_ACTIVE" });
});

test("buf curl checks health without authentication", async () => {
  expect(JSON.parse(await curl("-d", "{}", `http://${service.grpc}/grpc.health.v1.Health/Check`))).toEqual({ status: "SERVING" });
});
