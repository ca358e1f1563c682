import { execFile } from "node:child_process";
import { connect } from "node:tls";
import { promisify } from "node:util";
import { credentials, type Metadata, status } from "@grpc/grpc-js";
import { generate } from "selfsigned";
import { expect, it, test } from "vitest";
import { CredentialServiceClient, type CredentialServiceService } from "../../gen/flow/credentials/v1/credential_service.ts";
import { HealthClient, type HealthCheckResponse, HealthCheckResponse_ServingStatus as State } from "../../gen/health/v1/health.ts";
import { ListenError } from "../../src/grpc/server.ts";
import { call, CALLERS, metadataOf, record, RPCS, startGrpc } from "../support/grpc.ts";

const run = promisify(execFile);
const SERVICES = [
  "flow.credentials.v1.AdminService",
  "flow.credentials.v1.AuthorizationService",
  "flow.credentials.v1.CredentialService",
  "flow.credentials.v1.ServiceAccountService",
  "grpc.health.v1.Health",
  "grpc.reflection.v1.ServerReflection",
  "grpc.reflection.v1alpha.ServerReflection",
];

function curl(target: string, ...args: string[]) {
  return run("npx", ["buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge", ...args.slice(0, -1), `http://${target}${args.at(-1)}`]);
}

test.each(["grpc-v1", "grpc-v1alpha"])("a client without our proto lists the services and calls one by reflection %s", async (version) => {
  await using grpc = await startGrpc();
  const { stdout } = await curl(grpc.target, "--list-services", "--reflect-protocol", version, "");
  expect(stdout.trim().split("\n").sort()).toEqual(SERVICES);
  const request = JSON.stringify({ provider: "PROVIDER_SFTP", credentialType: "CREDENTIAL_TYPE_USER_PASSWORD", credentials: { password: "p" } });
  const created = await curl(grpc.target, "--reflect-protocol", version, "-H", "authorization: Bearer user", "-d", request, RPCS.createCredential.path);
  expect(JSON.parse(created.stdout)).toMatchObject({ credential: { provider: "PROVIDER_SFTP", userId: expect.any(String) }, etag: "r1" });
  const health = await curl(grpc.target, "--reflect-protocol", version, "-d", "{}", "/grpc.health.v1.Health/Check");
  expect(JSON.parse(health.stdout)).toEqual({ status: "SERVING" });
});

it("has no reflection where that is off", async () => {
  await using grpc = await startGrpc({ options: { reflection: false } });
  await expect(curl(grpc.target, "--list-services", "")).rejects.toThrow(/not implement|unimplemented/i);
});

it("tells its health to anyone: as a whole, by service, and when it changes", async () => {
  await using grpc = await startGrpc();
  const client = new HealthClient(grpc.target, credentials.createInsecure());
  const check = (service: string) =>
    new Promise((resolve) => client.check({ service }, (error, response) => resolve(error ? error.code : response.status)));
  expect(await check("")).toBe(State.SERVING);
  expect(await check("flow.credentials.v1.CredentialService")).toBe(State.SERVING);
  expect(await check("flow.none")).toBe(status.NOT_FOUND);
  const [seen, unknown]: State[][] = [[], []];
  const watch = (service: string, into: State[] | undefined) => {
    const stream = client.watch({ service });
    stream.on("data", ({ status: state }: HealthCheckResponse) => into?.push(state)).on("error", () => {});
    return stream;
  };
  const watcher = watch("", seen);
  const other = watch("flow.none", unknown);
  await expect.poll(() => [seen, unknown]).toEqual([[State.SERVING], [State.SERVICE_UNKNOWN]]);
  grpc.service.setServing(false);
  await expect.poll(() => seen).toEqual([State.SERVING, State.NOT_SERVING]);
  expect(await check("")).toBe(State.NOT_SERVING);
  expect(unknown).toEqual([State.SERVICE_UNKNOWN]);
  watcher.cancel();
  other.cancel();
  client.close();
});

it("lets calls in flight finish when it stops, ends watches, and takes no new calls", async () => {
  let finish = () => {};
  const started = new Promise<void>((begun) => {
    finish = begun;
  });
  let release = () => {};
  const held = new Promise<void>((resolve) => (release = resolve));
  const getCredential = async () => {
    finish();
    await held;
    return record();
  };
  await using grpc = await startGrpc({ vault: { getCredential } });
  const client = new HealthClient(grpc.target, credentials.createInsecure());
  const states: (State | "end")[] = [];
  const watching = client.watch({ service: "" }).on("data", (response: HealthCheckResponse) => states.push(response.status));
  watching.on("error", () => {}).on("end", () => states.push("end"));
  await expect.poll(() => states.length).toBe(1);
  const id = record().id;
  const inFlight = call(grpc.client, RPCS.getCredential, { credentialId: id }, metadataOf("user"));
  await started;
  const stopped = grpc.service.stop();
  await expect.poll(() => states).toEqual([State.SERVING, State.NOT_SERVING, "end"]);
  expect((await call(grpc.client, RPCS.getCredential, { credentialId: id }, metadataOf("user"))).error?.code).toBe(status.UNAVAILABLE);
  release();
  expect((await inFlight).response?.credential?.id).toBeDefined();
  await stopped;
  expect(grpc.calls().map(({ code }) => code)).toEqual(["OK"]);
  client.close();
});

it("cuts what has not finished after the grace time", async () => {
  let begun = () => {};
  const started = new Promise<void>((resolve) => (begun = resolve));
  const getCredential = () => new Promise<never>(() => begun());
  await using grpc = await startGrpc({ vault: { getCredential }, options: { shutdownGraceMs: 50 } });
  const inFlight = call(grpc.client, RPCS.getCredential, { credentialId: record().id }, metadataOf("user"));
  await started;
  await Promise.all([grpc.service.stop(), grpc.service.stop()]);
  expect([status.UNAVAILABLE, status.CANCELLED, status.INTERNAL]).toContain((await inFlight).error?.code);
  await expect.poll(() => grpc.calls()).toMatchObject([{ code: "CANCELLED" }]);
});

it("says which address it cannot have, and why", async () => {
  await using grpc = await startGrpc();
  const again = startGrpc({ options: { listen: grpc.service.address } });
  await expect(again).rejects.toThrow(ListenError);
  await expect(again).rejects.toThrow(`gRPC cannot listen on ${grpc.target} (EADDRINUSE)`);
});

const pem = async (name: string, ca?: { private: string; cert: string }, isCa = false) => {
  const extensions = isCa
    ? [{ name: "basicConstraints" as const, cA: true, critical: true }]
    : [{ name: "subjectAltName" as const, altNames: [{ type: 2 as const, value: "localhost" }] }];
  const signer = ca ? { ca: { key: ca.private, cert: ca.cert } } : {};
  const made = await generate([{ name: "commonName", value: name }], { keyType: "ec", algorithm: "sha256", extensions, ...signer });
  return { ...made, certificate: Buffer.from(made.cert), key: Buffer.from(made.private) };
};

it("speaks TLS, asks for a client certificate where an authority is given, and takes identity from the token alone", async () => {
  const ca = await pem("ca", undefined, true);
  const [server, machine] = await Promise.all([pem("localhost", ca), pem("machine", ca)]);
  const stranger = await pem("machine");
  const listen = { host: "localhost", port: 0 };
  await using open = await startGrpc({ options: { listen, tls: server } });
  await using mutual = await startGrpc({ options: { listen, tls: { ...server, clientCa: ca.certificate } } });
  const ask = (grpc: typeof open, channel: ReturnType<typeof credentials.createSsl>, caller: string | null = "user") =>
    call(grpc.open(grpc.target, channel), RPCS.listIntegrations, {}, metadataOf(caller), { deadline: Date.now() + 2_000 });
  const anonymous = credentials.createSsl(ca.certificate);
  const known = credentials.createSsl(ca.certificate, machine.key, machine.certificate);
  const unknown = credentials.createSsl(ca.certificate, stranger.key, stranger.certificate);
  expect((await ask(open, anonymous)).error).toBeUndefined();
  expect((await call(open.client, RPCS.listIntegrations, {}, metadataOf("user"))).error?.code).toBe(status.UNAVAILABLE);
  expect((await ask(mutual, known)).error).toBeUndefined();
  expect((await ask(mutual, known, null)).reason).toBe("UNAUTHENTICATED");
  expect((await ask(mutual, anonymous)).error?.code).toBe(status.UNAVAILABLE);
  expect((await ask(mutual, unknown)).error?.code).toBe(status.UNAVAILABLE);
  expect(mutual.calls()).toHaveLength(2);
  for (const maxVersion of ["TLSv1.1", "TLSv1.2"] as const) {
    const socket = connect({ ...open.service.address, ca: ca.certificate, ALPNProtocols: ["h2"], ciphers: "DEFAULT@SECLEVEL=0", minVersion: "TLSv1", maxVersion });
    const outcome = await new Promise((resolve) => socket.on("secureConnect", () => resolve(socket.getProtocol())).on("error", () => resolve("refused")));
    socket.destroy();
    expect(outcome).toBe(maxVersion === "TLSv1.1" ? "refused" : "TLSv1.2");
  }
});

it("is what the generated client expects, from creating a credential to its end", async () => {
  await using grpc = await startGrpc();
  const client = new CredentialServiceClient(grpc.target, credentials.createInsecure());
  type Ask = (request: object, metadata: Metadata, done: (error: unknown, response: object) => void) => unknown;
  const ask = (method: keyof typeof CredentialServiceService, request: object, caller: string) =>
    new Promise<{ credential?: { id: string } }>((resolve, reject) => {
      (client[method] as Ask).call(client, request, metadataOf(caller), (error, response) => (error ? reject(error as Error) : resolve(response)));
    });
  const document = { host: "h", username: "u", password: "p", note: { deep: [1, null] } };
  const created = await ask("createCredential", { provider: 3, credentialType: 5, credentials: document, name: "one" }, "user");
  const credentialId = created.credential?.id;
  const { credential } = await ask("getCredential", { credentialId }, "machine");
  const createdAt = new Date("2026-01-02T03:04:05.678Z");
  expect(credential).toMatchObject({ id: credentialId, name: "one", etag: "r1", status: 1, createdAt, userId: CALLERS["user"]?.id });
  await ask("updateCredential", { credentialId, credentialType: 5, credentials: { ...document, password: "q" }, etag: "" }, "machine");
  const secret = { $case: "sftpPassword", value: { password: "q" } };
  const resolved = await ask("resolveCredential", { credentialId }, "machine");
  expect(resolved).toMatchObject({ credentialId, secretVersion: 2n, credentials: secret, extra: { note: { deep: [1, null] } } });
  await ask("deleteCredential", { credentialId, etag: "" }, "user");
  await expect(ask("getCredential", { credentialId }, "user")).rejects.toMatchObject({ code: status.NOT_FOUND, details: "Credential not found" });
  client.close();
});
