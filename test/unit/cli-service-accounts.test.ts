import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Metadata, Server, ServerCredentials, status } from "@grpc/grpc-js";
import { generate } from "selfsigned";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  CreateServiceAccountKeyRequest,
  CreateServiceAccountRequest,
  type ServiceAccountServiceServer,
  ServiceAccountServiceService,
} from "../../gen/flow/credentials/v1/service_account_service.ts";
import { BadRequest, ErrorInfo } from "../../gen/google/rpc/error_details.ts";
import { Status } from "../../gen/google/rpc/status.ts";
import { DEFAULT_CLAIMS } from "../../src/auth/claims.ts";
import { createJwtVerifier } from "../../src/auth/jwt.ts";
import { currentToken } from "../../src/cli/connection.ts";
import { secret } from "../../src/domain/secret.ts";

const ACCOUNT = "11111111-1111-4111-8111-111111111111";
const ORGANIZATION = "22222222-2222-4222-8222-222222222222";
const SECRET = "cli-test-secret-0123456789abcdef-0123456789";
const CREATED = new Date("2030-01-01T00:00:00Z");
const FACTS = { updatedAt: CREATED, modifiedBy: "operator" };
const KEY = "saf_org_22222222_11111111_abcdefgh-the-rest-is-secret";
const CREATE = ["service-account", "create", "--org", ORGANIZATION, "--name", "executor"];
const CREATE_KEY = ["service-account-key", "create", "--org", ORGANIZATION, "--service-account", ACCOUNT];

let folder = "";
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), "flow-credentials-cli-"))));
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A service on a free port that keeps what it was asked, and refuses where it is given an error. */
async function service(options: { refuse?: Partial<Error> & { code: number; metadata?: Metadata }; credentials?: ServerCredentials } = {}) {
  const asked: { authorization: string; request: unknown }[] = [];
  const server = new Server();
  const heard = (metadata: Metadata, request: unknown) => asked.push({ authorization: String(metadata.get("authorization")[0]), request });
  const implementation: Pick<ServiceAccountServiceServer, "createServiceAccount" | "createServiceAccountKey"> = {
    createServiceAccount: (call, done) => {
      heard(call.metadata, CreateServiceAccountRequest.toJSON(call.request));
      if (options.refuse) return done(options.refuse);
      done(null, { serviceAccount: { ...FACTS, status: 1, access: undefined, id: ACCOUNT, organizationId: call.request.organizationId, name: call.request.name, createdAt: CREATED } });
    },
    createServiceAccountKey: (call, done) => {
      heard(call.metadata, CreateServiceAccountKeyRequest.toJSON(call.request));
      if (options.refuse) return done(options.refuse);
      const { serviceAccountId, expiresAt } = call.request;
      done(null, { issued: undefined, key: { ...FACTS, organizationId: ORGANIZATION, name: "key", id: ORGANIZATION, serviceAccountId, tokenPrefix: KEY.slice(0, 34), createdAt: CREATED, expiresAt }, token: KEY });
    },
  };
  const { createServiceAccount, createServiceAccountKey } = ServiceAccountServiceService;
  server.addService({ createServiceAccount, createServiceAccountKey }, implementation);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", options.credentials ?? ServerCredentials.createInsecure(), (error, bound) => (error ? reject(error) : resolve(bound)));
  });
  return { asked, target: `127.0.0.1:${port}`, [Symbol.dispose]: () => server.forceShutdown() };
}

const packed = (name: string, value: Uint8Array) => ({ typeUrl: `type.googleapis.com/google.rpc.${name}`, value: Buffer.from(value) });

/** Runs the command as a user would, with no environment but this one. */
function cli(args: readonly string[], env: Record<string, string>): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, ["src/cli/main.ts", ...args], { env: { CREDENTIALS_DATA_DIR: folder, ...env } }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
    });
  });
}

describe("flow-credentials service-account create", () => {
  it("prints the id, as an operator whose token is made for the call in development", async () => {
    using running = await service();
    expect(await cli(CREATE, { CREDENTIALS_GRPC_LISTEN: running.target, CREDENTIALS_JWT_SECRET: SECRET })).toEqual({ code: 0, stdout: `${ACCOUNT}\n`, stderr: "" });
    const [only] = running.asked;
    expect(only?.request).toEqual({ organizationId: ORGANIZATION, name: "executor" });
    const names = { issuer: "flow-credentials-dev", audience: "flow-credentials", operatorAudience: "flow-credentials-operator" };
    const verifier = createJwtVerifier({ secret: secret(SECRET), ...names, claims: DEFAULT_CLAIMS, clockSkewSeconds: 0 });
    const { caller, expiresAtMs } = await verifier.verify(only?.authorization.replace("Bearer ", "") ?? "");
    expect(caller.kind).toBe("operator");
    expect(expiresAtMs).toBeLessThanOrEqual(Date.now() + 60_000);
  });

  it("prints JSON where asked", async () => {
    using running = await service();
    const { stdout } = await cli([...CREATE, "--json", "--target", running.target], {});
    expect(JSON.parse(stdout)).toMatchObject({ id: ACCOUNT, organization_id: ORGANIZATION, name: "executor", created_at: CREATED.toISOString(), status: "active" });
  });

  it("takes the operator's token from a file, or from the environment, in any profile", async () => {
    using running = await service();
    const file = join(folder, "token");
    writeFileSync(file, "from-the-file\n");
    const env = { CREDENTIALS_PROFILE: "production", FLOW_CREDENTIALS_TARGET: running.target };
    expect((await cli([...CREATE, "--token-file", file], { ...env, FLOW_CREDENTIALS_TOKEN: "from-the-environment" })).code).toBe(0);
    expect((await cli(CREATE, { ...env, FLOW_CREDENTIALS_TOKEN: "from-the-environment" })).code).toBe(0);
    expect((await cli(CREATE, { ...env, FLOW_CREDENTIALS_TOKEN_FILE: file })).code).toBe(0);
    expect(running.asked.map(({ authorization }) => authorization)).toEqual(["Bearer from-the-file", "Bearer from-the-environment", "Bearer from-the-file"]);
  });

  it("asks for a token and a target outside development, and takes one token at most", async () => {
    const env = { CREDENTIALS_PROFILE: "production" };
    expect((await cli(CREATE, { ...env, FLOW_CREDENTIALS_TOKEN: "s3cret-value" })).stderr).toMatch(/^flow-credentials: --target or FLOW_CREDENTIALS_TARGET is required[^\n]*\n$/);
    expect((await cli([...CREATE, "--target", "127.0.0.1:1"], env)).stderr).toMatch(/^flow-credentials: --token-file, FLOW_CREDENTIALS_TOKEN or [^\n]* is required[^\n]*\n$/);
    const both = await cli([...CREATE, "--target", "127.0.0.1:1"], { FLOW_CREDENTIALS_TOKEN: "s3cret-value", FLOW_CREDENTIALS_TOKEN_FILE: "x" });
    expect(both).toMatchObject({ code: 2, stderr: "flow-credentials: FLOW_CREDENTIALS_TOKEN and FLOW_CREDENTIALS_TOKEN_FILE are both set; give one\n" });
    const lines = await cli([...CREATE, "--target", "127.0.0.1:1"], { FLOW_CREDENTIALS_TOKEN: "s3cret-value\nx-more: 1" });
    expect(lines).toMatchObject({ code: 2, stderr: "flow-credentials: FLOW_CREDENTIALS_TOKEN does not hold one token\n" });
    const missing = await cli([...CREATE, "--target", "127.0.0.1:1", "--token-file", join(folder, "none")], {});
    expect(missing).toMatchObject({ code: 1, stderr: "flow-credentials: the file of --token-file cannot be read (ENOENT)\n" });
  });

  it("speaks TLS where an authority is given, and refuses a certificate of another one", async () => {
    const days = { notAfterDate: new Date(Date.now() + 86_400_000) };
    const [pair, other] = await Promise.all([1, 2].map(() => generate([{ name: "commonName", value: "localhost" }], { ...days, keyType: "ec" })));
    if (!pair || !other) throw new Error("no certificate");
    const credentials = ServerCredentials.createSsl(null, [{ private_key: Buffer.from(pair.private), cert_chain: Buffer.from(pair.cert) }]);
    using running = await service({ credentials });
    const [good, bad] = [join(folder, "good.pem"), join(folder, "bad.pem")];
    writeFileSync(good, pair.cert);
    writeFileSync(bad, other.cert);
    const target = running.target.replace("127.0.0.1", "localhost");
    expect(await cli([...CREATE, "--target", target, "--ca", good], {})).toEqual({ code: 0, stdout: `${ACCOUNT}\n`, stderr: "" });
    expect(await cli([...CREATE, "--target", target, "--ca", bad], {})).toMatchObject({ code: 1, stdout: "" });
    expect(await cli([...CREATE, "--target", target], {})).toMatchObject({ code: 1, stdout: "" });
    expect(running.asked).toHaveLength(1);
  });
});

describe("flow-credentials service-account-key create", () => {
  it("prints the key once on standard output, and what to do with it on standard error", async () => {
    using running = await service();
    const { code, stdout, stderr } = await cli([...CREATE_KEY, "--target", running.target, "--expires-at", "2030-06-01T02:00:00+02:00"], {});
    expect({ code, stdout }).toEqual({ code: 0, stdout: `${KEY}\n` });
    expect(stderr).toMatch(/^Keep the key saf_org_[^\n]*\n$/);
    expect(stderr).not.toContain("the-rest-is-secret");
    expect(running.asked[0]?.request).toEqual({ organizationId: ORGANIZATION, serviceAccountId: ACCOUNT, expiresAt: "2030-06-01T00:00:00.000Z" });
  });

  it("prints JSON where asked", async () => {
    using running = await service();
    const { stdout } = await cli([...CREATE_KEY, "--target", running.target, "--json"], {});
    const facts = { id: ORGANIZATION, service_account_id: ACCOUNT, token_prefix: KEY.slice(0, 34), created_at: CREATED.toISOString(), expires_at: null };
    expect(JSON.parse(stdout)).toMatchObject({ ...facts, token: KEY });
  });

  it("tells in one line what the service refused", async () => {
    const info = ErrorInfo.encode({ reason: "INVALID_REQUEST", domain: "credentials.flow", metadata: {} }).finish();
    const bad = BadRequest.encode(BadRequest.fromPartial({ fieldViolations: [{ field: "expires_at", description: "must be in the\nfuture", reason: "past" }] })).finish();
    const metadata = new Metadata();
    const details = [packed("ErrorInfo", info), packed("BadRequest", bad)];
    metadata.set("grpc-status-details-bin", Buffer.from(Status.encode({ code: 3, message: "", details }).finish()));
    using running = await service({ refuse: { code: status.INVALID_ARGUMENT, message: "Request validation failed", metadata } });
    const ended = await cli([...CREATE_KEY, "--target", running.target], {});
    expect(ended).toEqual({ code: 1, stdout: "", stderr: "flow-credentials: Request validation failed; expires_at: must be in the future\n" });
  });

  it("tells in one line that the service cannot be reached", async () => {
    const { code, stdout, stderr } = await cli(CREATE_KEY, { CREDENTIALS_GRPC_LISTEN: "127.0.0.1:1" });
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(/^flow-credentials: calling 127\.0\.0\.1:1 failed: [^\n]*ECONNREFUSED[^\n]*\n$/);
  });
});

it("reads or makes the token again while work goes on, and not for each call", async () => {
  let [at, made] = [0, 0];
  const token = currentToken(async () => `token-${++made}`, () => at);
  const used: string[] = [];
  for (at = 0; at <= 31_000; at += 1_000) used.push(await token());
  expect([...new Set(used)]).toEqual(["token-1", "token-2", "token-3"]);
  // Made ones work for a minute: none is used for that long.
  expect(used.filter((one) => one === "token-1").length).toBeLessThan(60);
});
