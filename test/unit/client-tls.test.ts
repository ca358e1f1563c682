import { Server, ServerCredentials } from "@grpc/grpc-js";
import { generate, type GenerateResult } from "selfsigned";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ClientTls, createCredentialClient } from "flow-credentials/client";
import { CredentialServiceService } from "../../gen/flow/credentials/v1/credential_service.ts";

/** A certificate of its own authority, for `localhost` and 127.0.0.1. */
const certificate = () =>
  generate([{ name: "commonName", value: "localhost" }], {
    keyType: "ec",
    extensions: [{ name: "subjectAltName", altNames: [{ type: 2, value: "localhost" }, { type: 7, ip: "127.0.0.1" }] }],
  });

describe("a client of a server that asks for certificates", () => {
  let ours: GenerateResult;
  let foreign: GenerateResult;
  let target: string;
  let server: Server;

  beforeAll(async () => {
    [ours, foreign] = await Promise.all([certificate(), certificate()]);
    server = new Server();
    server.addService({ listCredentials: CredentialServiceService.listCredentials }, { listCredentials: (_: unknown, done: (error: null, value: unknown) => void) => done(null, { credentials: [] }) });
    const pair = [{ private_key: Buffer.from(ours.private), cert_chain: Buffer.from(ours.cert) }];
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync("127.0.0.1:0", ServerCredentials.createSsl(Buffer.from(ours.cert), pair, true), (error, bound) => (error ? reject(error) : resolve(bound)));
    });
    target = `localhost:${port}`;
  });
  afterAll(() => server.forceShutdown());

  const list = async (tls: ClientTls | "insecure" | undefined) => {
    await using client = createCredentialClient({ target, token: "saf_planted", retries: 0, deadlineMs: 5_000, ...(tls === undefined ? {} : { tls }) });
    return await client.listCredentials({ provider: 0 });
  };

  test("is answered when it trusts the server and shows its certificate", async () => {
    expect(await list({ ca: ours.cert, certificate: ours.cert, key: Buffer.from(ours.private) })).toEqual({ credentials: [] });
  });

  test.each([
    ["trusts another authority", () => ({ ca: foreign.cert, certificate: ours.cert, key: ours.private })],
    ["trusts the system's authorities", () => ({ certificate: ours.cert, key: ours.private })],
    ["shows no certificate", () => ({ ca: ours.cert })],
    ["shows another authority's certificate", () => ({ ca: ours.cert, certificate: foreign.cert, key: foreign.private })],
    ["speaks plaintext", () => "insecure" as const],
  ])("gets UNAVAILABLE, and says nothing of its token, when it %s", async (_, tls) => {
    const error: unknown = await list(tls()).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ name: "CredentialClientError", code: "UNAVAILABLE" });
    expect(String(error)).not.toContain("planted");
  });
});
