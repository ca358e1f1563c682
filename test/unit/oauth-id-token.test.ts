import { randomUUID } from "node:crypto";
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT, UnsecuredJWT } from "jose";
import { beforeAll, describe, expect, test } from "vitest";
import type { Exchanged, OauthIo } from "../../src/domain/oauth.ts";
import { providers } from "../../src/providers/index.ts";
import { scriptedIo } from "../support/oauth-io.ts";
import { OIDC_CLIENT } from "../support/oidc.ts";

type Keys = Awaited<ReturnType<typeof generateKeyPair>>;

const CODE = { code: "c", codeVerifier: "v".repeat(43), redirectUri: "https://flow.example/callback", nonce: "nonce-1", scopes: ["a"] };
const TENANT = "11111111-2222-4333-8444-555555555555";
const OTHER = "99999999-2222-4333-8444-555555555555";
const OBJECT = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";

let ours: Keys;
let theirs: Keys;
let elliptic: Keys;
beforeAll(async () => {
  [ours, theirs, elliptic] = await Promise.all([generateKeyPair("RS256"), generateKeyPair("RS256"), generateKeyPair("ES256")]);
});

const keysOf = async (pair: Keys, kid: string, more: object = {}) => ({ ...(await exportJWK(pair.publicKey)), kid, use: "sig", ...more });

/** A provider that answers with one id token, and publishes keys. */
function idp({ token, keys, now = () => new Date(), tenant = "organizations" }: { token: () => Promise<string>; keys: () => Promise<unknown> | unknown; now?: () => Date; tenant?: string }) {
  // Another origin each time: what is remembered of keys is the process's.
  const origin = `https://${randomUUID()}.example`;
  const io = scriptedIo(async (ask) => {
    if (ask.method === "GET") {
      const said = await keys();
      return { status: typeof said === "number" ? said : 200, headers: {}, body: Buffer.from(JSON.stringify(said)) };
    }
    return { status: 200, headers: {}, body: Buffer.from(JSON.stringify({ access_token: "a", refresh_token: "r", token_type: "Bearer", expires_in: 60, id_token: await token() })) };
  }, { now, endpoints: { googleIssuer: origin, microsoftAuthority: origin, microsoftTenant: tenant } });
  return { io, origin, keysRead: () => io.asked.filter(({ method }) => method === "GET").length };
}

const exchange = (provider: "google" | "microsoft", io: OauthIo): Promise<Exchanged> => {
  const flow = providers[provider].authorization;
  if (flow === undefined) throw new Error("it has a flow");
  return flow.exchange(CODE, io);
};

/** What a good token says, by provider. */
const CLAIMS = {
  google: (origin: string): JWTPayload => ({ iss: origin, sub: "1234567890", aud: OIDC_CLIENT.id, azp: OIDC_CLIENT.id, nonce: "nonce-1", email: "Anna@Example.com", email_verified: true }),
  microsoft: (origin: string): JWTPayload => ({ iss: `${origin}/${TENANT}/v2.0`, sub: "pairwise", aud: OIDC_CLIENT.id, nonce: "nonce-1", oid: OBJECT, tid: TENANT, preferred_username: "anna@contoso.example" }),
};

type Bad = readonly [string, (claims: JWTPayload, origin: string) => JWTPayload | Promise<string>];

const HOUR = 3600;
/** Gives claims that lack one; an `exp` that is undefined is not said, where one that is missing would be filled in. */
const without = (name: string) => (claims: JWTPayload): JWTPayload => ({ ...claims, [name]: undefined });
const sign = (claims: JWTPayload, { key = ours, kid = "k1", alg = "RS256" } = {}) =>
  new SignJWT({ iat: Math.floor(Date.now() / 1000), exp: Math.floor(Date.now() / 1000) + HOUR, ...claims }).setProtectedHeader({ alg, kid, typ: "JWT" }).sign(key.privateKey);

const refused = { kind: "refused", cause: "id_token_invalid" };

describe.each(["google", "microsoft"] as const)("an id token of %s", (provider) => {
  const start = (change: (claims: JWTPayload, origin: string) => JWTPayload | Promise<string>, more: Partial<Parameters<typeof idp>[0]> = {}) => {
    const started: ReturnType<typeof idp> = idp({
      token: async () => {
        const said = await change(CLAIMS[provider](started.origin), started.origin);
        return typeof said === "string" ? said : sign(said);
      },
      keys: async () => ({ keys: [await keysOf(ours, "k1")] }),
      ...more,
    });
    return started;
  };

  test("that holds says whose account it is", async () => {
    const account = provider === "google" ? { id: "1234567890", email: "Anna@Example.com" } : { id: `${OBJECT}.${TENANT}`, email: "anna@contoso.example" };
    expect(await exchange(provider, start((claims) => claims).io)).toMatchObject({ kind: "granted", account });
  });

  const now = Math.floor(Date.now() / 1000);
  test.each<Bad>([
    ["another issuer", (claims) => ({ ...claims, iss: "https://evil.example" })],
    ["no issuer", without("iss")],
    ["the issuer with a slash", (claims) => ({ ...claims, iss: `${claims.iss}/` })],
    ["another audience", (claims) => ({ ...claims, aud: "client-2" })],
    ["a second audience", (claims) => ({ ...claims, aud: [OIDC_CLIENT.id, "client-2"] })],
    ["another authorized party", (claims) => ({ ...claims, azp: "client-2" })],
    ["no audience", without("aud")],
    ["another nonce", (claims) => ({ ...claims, nonce: "nonce-2" })],
    ["no nonce", without("nonce")],
    ["a nonce that is a list", (claims) => ({ ...claims, nonce: ["nonce-1"] })],
    ["no subject", without("sub")],
    ["an empty subject", (claims) => ({ ...claims, sub: "" })],
    ["an end that has passed", (claims) => ({ ...claims, iat: now - 7200, exp: now - 120 })],
    ["no end", without("exp")],
    ["a beginning to come", (claims) => ({ ...claims, nbf: now + 600 })],
    ["the signature of another key under the same name", (claims) => sign(claims, { key: theirs })],
    ["no signature and no algorithm", async (claims) => new UnsecuredJWT({ ...claims, iat: now, exp: now + HOUR }).encode()],
    ["a signature cut off", async (claims) => `${(await sign(claims)).split(".").slice(0, 2).join(".")}.`],
    ["changed claims under a good signature", async (claims) => {
      const [head, , signature] = (await sign(claims)).split(".");
      return `${head}.${Buffer.from(JSON.stringify({ ...claims, iat: now, exp: now + HOUR, sub: "evil", oid: OTHER })).toString("base64url")}.${signature}`;
    }],
    ["a shared-key signature made with the public key", async (claims) =>
      new SignJWT({ ...claims, iat: now, exp: now + HOUR }).setProtectedHeader({ alg: "HS256", kid: "k1" }).sign(Buffer.from(JSON.stringify(await keysOf(ours, "k1"))))],
    ["text that is no token", async () => "not-a-token"],
    ["five parts", async () => "a.b.c.d.e"],
    ...(provider === "microsoft"
      ? ([
          ["no object id", without("oid")],
          ["an object id that is none", (claims) => ({ ...claims, oid: "../x" })],
          ["no tenant", without("tid")],
          ["another tenant than its issuer's", (claims) => ({ ...claims, tid: OTHER })],
          ["a tenant that is none", (claims, origin) => ({ ...claims, tid: "evil", iss: `${origin}/evil/v2.0` })],
        ] satisfies Bad[])
      : []),
  ])("with %s is refused", async (_, change) => {
    const { io } = start(change);
    expect(await exchange(provider, io)).toEqual(refused);
  });

  test("is verified with keys that are read once, and again when the issuer changes them, but not for each unknown name", async () => {
    let [at, kid] = [Date.now(), "k1"];
    let published = ["k1"];
    const { io, keysRead } = start((claims) => sign(claims, { kid }), {
      now: () => new Date(at),
      keys: async () => ({ keys: await Promise.all(published.map((name) => keysOf(ours, name))) }),
    });
    for (let round = 0; round < 3; round++) expect(await exchange(provider, io)).toMatchObject({ kind: "granted" });
    expect(keysRead()).toBe(1);
    [kid, published] = ["k2", ["k2"]];
    expect(await exchange(provider, io)).toEqual(refused);
    expect(keysRead()).toBe(1);
    at += 31_000;
    expect(await exchange(provider, io)).toMatchObject({ kind: "granted" });
    expect(keysRead()).toBe(2);
    kid = "unknown";
    for (let round = 0; round < 5; round++) expect(await exchange(provider, io)).toEqual(refused);
    expect(keysRead()).toBe(2);
    kid = "k2";
    at += 3_601_000;
    await exchange(provider, io);
    expect(keysRead()).toBe(3);
  });

  test.each<readonly [string, () => unknown]>([
    ["no list", () => ({ keys: "none" })],
    ["an error", () => 500],
    ["a list without end", () => ({ keys: Array.from({ length: 65 }, () => ({})) })],
    ["text without end", () => ({ keys: [], more: "x".repeat(300_000) })],
    ["entries that are none", () => ({ keys: [7] })],
  ])("waits where the issuer publishes %s", async (_, keys) => {
    expect(await exchange(provider, start((claims) => claims, { keys }).io)).toEqual({ kind: "unavailable", cause: "keys_unusable", retryAfterMs: null });
  });

  test("signed by elliptic curve is taken; by a key that is published for something else or as a shared one it is not", async () => {
    const curve = start((claims) => sign(claims, { key: elliptic, kid: "e1", alg: "ES256" }), { keys: async () => ({ keys: [await keysOf(elliptic, "e1", { alg: "ES256" })] }) });
    expect(await exchange(provider, curve.io)).toMatchObject({ kind: "granted" });
    const other = start((claims) => claims, { keys: async () => ({ keys: [await keysOf(ours, "k1", { use: "enc" })] }) });
    expect(await exchange(provider, other.io)).toEqual(refused);
    const shared = Buffer.alloc(32, 1);
    const octets = start((claims) => new SignJWT({ ...claims, iat: now, exp: now + HOUR }).setProtectedHeader({ alg: "HS256", kid: "o1" }).sign(shared), {
      keys: () => ({ keys: [{ kty: "oct", kid: "o1", k: shared.toString("base64url") }] }),
    });
    expect(await exchange(provider, octets.io)).toEqual(refused);
  });
});

test("Google's two names of itself are both Google's, and an address that is not verified is not taken", async () => {
  for (const iss of ["https://accounts.google.com", "accounts.google.com"]) {
    const io = scriptedIo(async ({ method, url }) => {
      if (method === "GET") expect(url).toBe("https://www.googleapis.com/oauth2/v3/certs");
      else expect(url).toBe("https://oauth2.googleapis.com/token");
      const body = method === "GET" ? { keys: [await keysOf(ours, "k1")] } : { access_token: "a", refresh_token: "r", id_token: await sign({ ...CLAIMS.google(""), iss, email_verified: false }) };
      return { status: 200, headers: {}, body: Buffer.from(JSON.stringify(body)) };
    });
    expect(await exchange("google", io)).toMatchObject({ kind: "granted", account: { id: "1234567890", email: null }, grantedScopes: null, document: { scope: "a" } });
  }
});

test("where one Microsoft tenant is configured by its id, a token of another is refused", async () => {
  for (const [tenant, kind] of [[TENANT.toUpperCase(), "granted"], [OTHER, "refused"], ["contoso.example", "granted"]] as const) {
    const started: ReturnType<typeof idp> = idp({ token: () => sign(CLAIMS.microsoft(started.origin)), keys: async () => ({ keys: [await keysOf(ours, "k1")] }), tenant });
    expect(await exchange("microsoft", started.io)).toMatchObject({ kind });
  }
});
