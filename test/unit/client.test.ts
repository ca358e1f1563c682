import { type handleUnaryCall, Metadata, Server, ServerCredentials, status, type UntypedServiceImplementation } from "@grpc/grpc-js";
import { inspect } from "node:util";
import { afterEach, describe, expect, test } from "vitest";
import { createCredentialClient, CredentialClientError, CredentialType, Provider, type CredentialClient, type CredentialClientOptions } from "flow-credentials/client";
import { CredentialServiceService, ResolveCredentialResponse } from "../../gen/flow/credentials/v1/credential_service.ts";
import { isLoopback } from "../../src/client/channel.ts";
import { toStatus } from "../../src/grpc/status.ts";
import { fail } from "../../src/domain/errors.ts";

type Answer = (request: unknown, metadata: Metadata) => unknown;

const open: (() => void)[] = [];
afterEach(() => {
  for (const close of open.splice(0)) close();
});

/** A server whose every method gives `answer`, and a client of it. What the answer throws is the status. */
async function pair(answer: Answer, options: Partial<CredentialClientOptions> = {}): Promise<CredentialClient & { target: string }> {
  const server = new Server();
  const methods: UntypedServiceImplementation = {};
  for (const name of Object.keys(CredentialServiceService)) {
    const handle: handleUnaryCall<unknown, unknown> = async (call, done) => {
      const headers = new Metadata();
      headers.set("x-request-id", "01J00000000000000000000000");
      call.sendMetadata(headers);
      try {
        done(null, await answer(call.request, call.metadata));
      } catch (error) {
        done(error as Parameters<typeof done>[0]);
      }
    };
    methods[name] = handle;
  }
  server.addService(CredentialServiceService, methods);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) => (error ? reject(error) : resolve(bound)));
  });
  const target = `127.0.0.1:${port}`;
  const client = createCredentialClient({ target, token: "saf_test", ...options });
  open.push(() => client.close(), () => server.forceShutdown());
  return Object.assign(client, { target });
}

const unavailable = { code: status.UNAVAILABLE, details: "later" };
const RESOLVED = ResolveCredentialResponse.fromPartial({
  credentialId: "c1",
  provider: Provider.PROVIDER_SFTP,
  secretVersion: 3n,
  credentials: { $case: "sftpPassword", value: { host: "h", port: 22, username: "u", password: "planted-secret" } },
  extra: { note: "planted-extra" },
});

describe("the typed client", () => {
  test("has a method for every RPC of the service, and nothing else to call but close", () => {
    const client = createCredentialClient({ target: "127.0.0.1:1", token: "t" });
    open.push(() => client.close());
    expect(Object.keys(client).toSorted()).toEqual([...Object.keys(CredentialServiceService), "close"].toSorted());
  });

  test("asks the token provider once a call and sends what it gives, with the flow and the run", async () => {
    const seen: unknown[] = [];
    let asked = 0;
    const client = await pair((_, metadata) => {
      seen.push([metadata.get("authorization")[0], metadata.get("x-flow-id")[0], metadata.get("x-run-id")[0]]);
      return { credentials: [] };
    }, { token: async () => `token-${(asked += 1)}` });
    await client.listCredentials({ provider: Provider.PROVIDER_SFTP });
    await client.listCredentials({ provider: Provider.PROVIDER_UNSPECIFIED }, { flowId: "f 1", runId: "r1" });
    expect(seen).toEqual([["Bearer token-1", undefined, undefined], ["Bearer token-2", "f 1", "r1"]]);
  });

  test("reads reason, request id, violations and incident from a refusal", async () => {
    const violations = [{ in: "body", path: ["credentials", "host"], type: "missing", message: "Field required" }] as const;
    const client = await pair(() => { throw toStatus(fail("INVALID_REQUEST", { violations, incident: "inc-1" })); });
    const error = await client.getCredential({ credentialId: "x" }).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(CredentialClientError);
    expect(error).toMatchObject({ code: "INVALID_ARGUMENT", reason: "INVALID_REQUEST", requestId: "01J00000000000000000000000", incident: "inc-1", retryable: false });
    expect((error as CredentialClientError).violations).toEqual([{ field: "credentials.host", reason: "missing", description: "Field required" }]);
    expect((error as Error).message).toBe("Request validation failed; credentials.host: Field required");
  });

  test("reads a status without our details, and one whose details do not decode", async () => {
    const metadata = new Metadata();
    metadata.set("grpc-status-details-bin", Buffer.from([0xff, 0xff]));
    const client = await pair(() => { throw { code: status.NOT_FOUND, details: "a\r\nb", metadata }; });
    await expect(client.getCredential({ credentialId: "x" })).rejects.toMatchObject({ code: "NOT_FOUND", reason: undefined, violations: [], message: "a b" });
  });

  test("tries a read again while the service is unavailable or overloaded, and gives its answer", async () => {
    const faults = [unavailable, toStatus(fail("OVERLOADED")), unavailable];
    const client = await pair(() => { const fault = faults.shift(); if (fault) throw fault; return RESOLVED; });
    expect(await client.resolveCredential({ credentialId: "x" })).toMatchObject({ credentialId: "c1", secretVersion: 3n });
    expect(faults).toEqual([]);
  });

  test.each([
    ["a write", {}, (client: CredentialClient) => client.deleteCredential({ credentialId: "x", etag: "" })],
    ["a read that is told not to repeat", {}, (client: CredentialClient) => client.getCredential({ credentialId: "x" }, { idempotent: false })],
    ["a client without retries", { retries: 0 }, (client: CredentialClient) => client.getCredential({ credentialId: "x" })],
  ] as const)("never repeats %s", async (_, options, call) => {
    let calls = 0;
    const client = await pair(() => { calls += 1; throw unavailable; }, options);
    await expect(call(client)).rejects.toMatchObject({ code: "UNAVAILABLE", retryable: true });
    expect(calls).toBe(1);
  });

  test("repeats a write that is said to be idempotent, up to its number of retries", async () => {
    let calls = 0;
    const client = await pair(() => { calls += 1; throw unavailable; }, { retries: 2 });
    const request = { credentialId: "x", credentialType: CredentialType.CREDENTIAL_TYPE_API_KEY, credentials: {}, etag: "1" };
    await expect(client.updateCredential(request, { idempotent: true })).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect(calls).toBe(3);
  });

  test("does not repeat what would fail again", async () => {
    let calls = 0;
    const client = await pair(() => { calls += 1; throw toStatus(fail("CREDENTIAL_NOT_FOUND")); });
    await expect(client.getCredential({ credentialId: "x" })).rejects.toMatchObject({ reason: "CREDENTIAL_NOT_FOUND", message: "Credential not found" });
    expect(calls).toBe(1);
  });

  test("ends at the deadline, whether the service or the token provider is slow", async () => {
    const never = new Promise<never>(() => undefined);
    const slow = await pair(() => never);
    await expect(slow.getCredential({ credentialId: "x" }, { deadlineMs: 50 })).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED" });
    const tokenless = createCredentialClient({ target: slow.target, token: () => never, deadlineMs: 50 });
    open.push(() => tokenless.close());
    await expect(tokenless.getCredential({ credentialId: "x" })).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED" });
  });

  test("is cancelled by a signal before, during and between attempts", async () => {
    const started = Promise.withResolvers<void>();
    const client = await pair(() => { started.resolve(); return new Promise(() => undefined); });
    const controller = new AbortController();
    const call = client.getCredential({ credentialId: "x" }, { signal: controller.signal });
    await started.promise;
    controller.abort();
    await expect(call).rejects.toMatchObject({ code: "CANCELLED" });
    await expect(client.getCredential({ credentialId: "x" }, { signal: controller.signal })).rejects.toMatchObject({ code: "CANCELLED" });
    const between = new AbortController();
    const failing = await pair(() => { between.abort(); throw unavailable; });
    await expect(failing.getCredential({ credentialId: "x" }, { signal: between.signal })).rejects.toMatchObject({ code: "CANCELLED" });
  });

  test("says that it is closed, and closes with its scope", async () => {
    const client = await pair(() => ({ credentials: [] }));
    const { target } = client;
    const late = async () => {
      await using scoped = createCredentialClient({ target, token: "t" });
      return { scoped, answer: await scoped.listCredentials({ provider: 0 }) };
    };
    const { scoped, answer } = await late();
    expect(answer).toEqual({ credentials: [] });
    await expect(scoped.listCredentials({ provider: 0 })).rejects.toMatchObject({ name: "CredentialClientError", code: "CANCELLED" });
  });

  test("never repeats a token or a value in an error", async () => {
    const client = await pair(() => ({}), { token: "planted\nsecret" });
    const refused = await client.getCredential({ credentialId: "x" }).catch((error: unknown) => error);
    expect(refused).toMatchObject({ code: "UNAUTHENTICATED" });
    const other = await pair(() => ({}), { token: () => Promise.resolve("ok") });
    const request = { provider: 3, credentialType: 5, credentials: { host: Symbol("planted") } } as const;
    const unencodable = await other.createCredential(request).catch((error: unknown) => error);
    const badFlow = await other.getCredential({ credentialId: "x" }, { flowId: "planted\u0000" }).catch((error: unknown) => error);
    expect(unencodable).toMatchObject({ code: "INVALID_ARGUMENT" });
    expect(badFlow).toMatchObject({ code: "INVALID_ARGUMENT" });
    expect(inspect([refused, unencodable, badFlow], { depth: 9, showHidden: true })).not.toContain("planted");
  });

  test("a resolved secret can be read, and prints as [secret]", async () => {
    const client = await pair(() => RESOLVED);
    const response = await client.resolveCredential({ credentialId: "x" });
    if (response.credentials?.$case !== "sftpPassword") throw new Error("not an SFTP password");
    expect(response.credentials.value.password).toBe("planted-secret");
    expect({ ...response.credentials.value }).toEqual({ host: "h", port: 22, username: "u", password: "planted-secret", hostKeyFingerprint: "" });
    const json = JSON.stringify(response, (_, value: unknown) => (typeof value === "bigint" ? String(value) : value));
    const printed = [inspect(response, { depth: 9 }), inspect(response.credentials.value), json, `${response.credentials.value}`, JSON.stringify(response.extra)].join();
    expect(printed).toContain("[secret]");
    expect(printed).not.toContain("planted");
  });

  test("plaintext is the default only for this machine", async () => {
    for (const target of ["127.0.0.1:1", "127.8.9.1:50051", "localhost:1", "[::1]:1", "unix:/run/x", "dns:///localhost:1"]) expect([target, isLoopback(target)]).toEqual([target, true]);
    for (const target of ["10.0.0.1:1", "localhost.example.com:1", "127.0.0.1.example.com:1", "dns:///db:1", "[::]:1", "credentials:1"]) expect([target, isLoopback(target)]).toEqual([target, false]);
  });
});
