import { generateKeyPairSync, randomUUID } from "node:crypto";
import { writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { request } from "node:https";
import type { AddressInfo } from "node:net";
import { credentials, Metadata, type ServiceError } from "@grpc/grpc-js";
import { SignJWT } from "jose";
import { generate } from "selfsigned";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CredentialServiceClient } from "../../gen/flow/credentials/v1/credential_service.ts";
import { detailsOf } from "../support/grpc.ts";
import { freshDatabase } from "../support/postgres.ts";
import { administratorToken, rest, serviceEnv, startFresh, startService, temporaryFolder, token } from "../support/service.ts";

const SFTP = { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password: "p" } };
const folder = temporaryFolder();
afterAll(() => folder[Symbol.dispose]());

describe("a client certificate", () => {
  let service: Awaited<ReturnType<typeof startFresh>>;
  const [organization, other] = [randomUUID(), randomUUID()] as const;
  const make = (name: string) =>
    generate([{ name: "commonName", value: name }], { keyType: "ec", extensions: [{ name: "subjectAltName", altNames: [{ type: 2, value: "localhost" }, { type: 7, ip: "127.0.0.1" }] }] });
  type Pem = Awaited<ReturnType<typeof make>>;
  let [server, mapped, spare, idle, foreign] = [] as unknown as [Pem, Pem, Pem, Pem, Pem];
  let credentialId: string;
  let accountId: string;

  beforeAll(async () => {
    [server, mapped, spare, idle, foreign] = await Promise.all([make("localhost"), make("mapped"), make("spare"), make("idle"), make("foreign")]);
    const write = (name: string, text: string) => {
      writeFileSync(`${folder.path}/${name}`, text);
      return `${folder.path}/${name}`;
    };
    service = await startFresh({
      CREDENTIALS_TLS_CERT_FILE: write("server.pem", server.cert),
      CREDENTIALS_TLS_KEY_FILE: write("server.key", server.private),
      CREDENTIALS_TLS_CLIENT_CA_FILE: write("clients.pem", `${mapped.cert}\n${spare.cert}\n${idle.cert}`),
      CREDENTIALS_API_KEY_CACHE_SECONDS: "60",
    });
  });
  afterAll(async () => service[Symbol.asyncDispose]());

  /** A call over mutual TLS: its outcome as a reason, or "OK". */
  function call(pem: Pem, method: "resolveCredential" | "getCredential", header?: string): Promise<string> {
    const client = new CredentialServiceClient(service.grpc.replace("127.0.0.1", "localhost"), credentials.createSsl(Buffer.from(server.cert), Buffer.from(pem.private), Buffer.from(pem.cert)));
    const metadata = new Metadata();
    if (header !== undefined) metadata.set("authorization", `Bearer ${header}`);
    return new Promise((resolve) => {
      const done = (error: ServiceError | null) => {
        client.close();
        resolve(error === null ? "OK" : (detailsOf(error.metadata).reason ?? `status ${error.code}`));
      };
      const options = { deadline: Date.now() + 10_000 };
      if (method === "getCredential") client.getCredential({ credentialId }, metadata, options, done);
      else client.resolveCredential({ credentialId }, metadata, options, done);
    });
  }
  /** A REST call that trusts the service's own certificate. */
  const overTls = (method: string, path: string, as: string, body?: unknown): Promise<{ status: number; json: any }> =>
    new Promise((resolve, reject) => {
      const { hostname, port } = new URL(service.rest);
      const headers = { authorization: `Bearer ${as}`, ...(body === undefined ? {} : { "content-type": "application/json" }) };
      const sent = request({ hostname, port, method, path, headers, ca: server.cert }, (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (part: string) => (text += part));
        response.on("end", () => resolve({ status: response.statusCode ?? 0, json: text === "" ? undefined : JSON.parse(text) }));
      });
      sent.on("error", reject);
      sent.end(body === undefined ? undefined : JSON.stringify(body));
    });
  const manage = async (method: string, path: string, body?: unknown) => overTls(method, path, await administratorToken(organization), body);

  test("stands for the account it is mapped to, and for nobody else, until the mapping is revoked", async () => {
    credentialId = (await overTls("POST", "/integrations/credentials", await token("user", organization), SFTP)).json.id;
    accountId = (await manage("POST", "/service-accounts", { name: "executor" })).json.id;

    expect(await call(mapped, "resolveCredential")).toBe("UNAUTHENTICATED");
    const mapping = await manage("POST", `/service-accounts/${accountId}/api-keys`, { certificate: mapped.cert });
    expect(mapping).toMatchObject({ status: 201, json: { token: null, name: "certificate", token_prefix: expect.stringMatching(/^crt_[0-9a-f]{30}$/), expires_at: expect.any(String) } });
    expect((await manage("POST", `/service-accounts/${accountId}/api-keys`, { certificate: mapped.cert })).status).toBe(409);
    for (const bad of ["nonsense", mapped.private, `${mapped.cert}\n${spare.cert}`]) {
      expect(await manage("POST", `/service-accounts/${accountId}/api-keys`, { certificate: bad })).toMatchObject({ status: 422, json: { detail: [{ loc: ["body", "certificate"] }] } });
    }

    // The answer that it was mapped to nobody is remembered for a moment; another certificate was never asked for.
    const second = await manage("POST", `/service-accounts/${accountId}/api-keys`, { certificate: spare.cert });
    expect(await call(spare, "resolveCredential")).toBe("OK");
    expect(await call(spare, "getCredential")).toBe("OK");
    expect(await call(foreign, "resolveCredential")).toBe("status 14");

    const [own, user2, stranger] = await Promise.all([token("service_account", organization, accountId), token("user", organization), token("service_account", other, accountId)]);
    expect(await call(spare, "resolveCredential", own)).toBe("OK");
    expect(await call(spare, "getCredential", user2)).toBe("CONFLICTING_IDENTITIES");
    expect(await call(spare, "resolveCredential", stranger)).toBe("CONFLICTING_IDENTITIES");
    expect(await call(spare, "resolveCredential", "nonsense")).toBe("INVALID_TOKEN");

    expect((await manage("DELETE", `/service-accounts/${accountId}/api-keys/${second.json.id}`)).status).toBe(204);
    expect(await call(spare, "resolveCredential")).toBe("INVALID_TOKEN");
    expect(await call(spare, "getCredential")).toBe("INVALID_TOKEN");
  });

  test("that is mapped to no account is transport and no identity", async () => {
    expect(await call(idle, "getCredential", await token("user", organization))).toBe("OK");
    expect(await call(idle, "resolveCredential", await token("service_account", organization))).toBe("OK");
  });
});

test("tokens are verified with the issuer's key set, which is fetched through the guarded fetch", async () => {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  let fetches = 0;
  const issuer = createServer((_request, response) => {
    fetches++;
    response.end(JSON.stringify({ keys: [{ ...publicKey.export({ format: "jwk" }), kid: "k1" }] }));
  });
  await new Promise<void>((resolve) => issuer.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(issuer.address() as AddressInfo).port}/jwks`;
  const sign = (kid: string) =>
    new SignJWT({ organization_id: randomUUID() }).setProtectedHeader({ alg: "EdDSA", kid }).setIssuer("flow-credentials-dev").setAudience("flow-credentials").setSubject(randomUUID()).setExpirationTime("1h").sign(privateKey);
  await using database = await freshDatabase();
  const { CREDENTIALS_JWT_SECRET: _, ...env } = serviceEnv(database, { CREDENTIALS_JWT_JWKS_URL: url, CREDENTIALS_JWT_JWKS_ALLOW: "127.0.0.1/32" });
  await using service = await startService(env);
  expect((await rest(service, "GET", "/integrations/credentials", { token: await sign("k1") })).status).toBe(200);
  for (let n = 0; n < 20; n++) expect((await rest(service, "GET", "/integrations/credentials", { token: await sign(`unknown-${n}`) })).status).toBe(401);
  expect(fetches).toBe(1);
  issuer.closeAllConnections();
  await new Promise((resolve) => issuer.close(resolve));
});
