import { createHmac, createPublicKey, generateKeyPairSync, type KeyObject, sign as rawSign } from "node:crypto";
import { inspect } from "node:util";
import { CompactSign, SignJWT } from "jose";
import { describe, expect, it } from "vitest";
import { callerOf, DEFAULT_CLAIMS } from "../../src/auth/claims.ts";
import { createJwtVerifier, type JwtOptions } from "../../src/auth/jwt.ts";
import { secret } from "../../src/domain/secret.ts";

const NOW = 1_900_000_000;
const SECRET = "unit-test-secret-0123456789abcdef-0123456789";
const USER = "11111111-1111-4111-8111-111111111111";
const ORGANIZATION = "22222222-2222-4222-8222-222222222222";
const GOOD = { iss: "issuer", aud: "tenants", sub: USER, organization_id: ORGANIZATION, iat: NOW, exp: NOW + 600 };

const base: JwtOptions = {
  issuer: "issuer",
  audience: "tenants",
  operatorAudience: "operators",
  claims: DEFAULT_CLAIMS,
  clockSkewSeconds: 30,
  now: () => NOW * 1000,
};
const verifier = createJwtVerifier({ ...base, secret: secret(SECRET) });

/** A token over any header and payload, signed with HMAC by hand, so that no library refuses to make it. */
function forge(header: unknown, payload: unknown, key: string | Buffer = SECRET, hash = "sha256"): string {
  const text = (part: unknown) => Buffer.from(typeof part === "string" ? part : JSON.stringify(part)).toString("base64url");
  const input = `${text(header)}.${text(payload)}`;
  return `${input}.${createHmac(hash, key).update(input).digest("base64url")}`;
}
const hs = (claims: object, header: object = {}) => forge({ alg: "HS256", typ: "JWT", ...header }, claims);

/** Gives the reason of a refusal, and checks that nothing of the token is in the error, cause included. */
async function refusal(token: string, by = verifier): Promise<string> {
  const error = await by.verify(token).then(
    () => new Error("verified"),
    (thrown: unknown) => thrown,
  );
  const shown = inspect(error, { depth: 10 });
  for (const part of token.split(".").filter((text) => text.length > 20)) expect(shown).not.toContain(part);
  for (const value of [USER, ORGANIZATION, SECRET]) expect(shown).not.toContain(value);
  return error instanceof Error && "reason" in error ? String(error.reason) : "verified";
}

describe("a good token", () => {
  it("names its user, organization, role and end, skew included", async () => {
    const { caller, expiresAtMs } = await verifier.verify(hs({ ...GOOD, role: "org_admin" }));
    expect(caller).toEqual({ kind: "user", id: USER, organizationId: ORGANIZATION, role: "org_admin" });
    expect(expiresAtMs).toBe((GOOD.exp + 30) * 1000);
  });

  it.each([
    ["an upper-case UUID is the same user", { ...GOOD, sub: USER.toUpperCase() }, { id: USER, role: null }],
    ["a service account", { ...GOOD, account_type: "service_account" }, { kind: "service_account", id: USER }],
    ["the audience among others", { ...GOOD, aud: ["else", "tenants"] }, { kind: "user" }],
    ["the organization in app_metadata", { ...GOOD, organization_id: undefined, app_metadata: { organization_id: ORGANIZATION } }, { organizationId: ORGANIZATION }],
    ["a role that is no text is no role", { ...GOOD, role: 7 }, { role: null }],
    ["an operator", { ...GOOD, aud: "operators", account_type: "operator", sub: "ops@example.com" }, { kind: "operator", id: "ops@example.com" }],
    ["an operator by an array of one", { ...GOOD, aud: ["operators"], account_type: "operator" }, { kind: "operator" }],
    ["inside the skew after its end", { ...GOOD, exp: NOW - 29 }, { kind: "user" }],
    ["inside the skew before its beginning", { ...GOOD, nbf: NOW + 29, iat: NOW + 29 }, { kind: "user" }],
  ])("%s", async (_, claims, expected) => {
    expect((await verifier.verify(hs(claims))).caller).toMatchObject(expected);
  });

  it("finds claims under configured names: whole names first, then by descent", async () => {
    const claims = { organization: "https://example.com/org", kind: "meta.kind", role: "meta.roles.first" };
    const by = createJwtVerifier({ ...base, secret: secret(SECRET), claims });
    const token = hs({ ...GOOD, "https://example.com/org": ORGANIZATION, meta: { kind: "service_account", roles: { first: "r" } } });
    expect((await by.verify(token)).caller).toEqual({ kind: "service_account", id: USER, organizationId: ORGANIZATION, role: "r" });
    expect(await refusal(hs({ ...GOOD, app_metadata: { organization_id: ORGANIZATION } }), by)).toBe("IDENTITY_INCOMPLETE");
  });
});

describe("a hostile token", () => {
  const [head, body, signature] = hs(GOOD).split(".") as [string, string, string];
  const padded = signature.slice(0, -1) + "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".charAt(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".indexOf(signature.slice(-1)) + 1,
  );
  it.each([
    ["empty", ""],
    ["no dots", "abc"],
    ["two parts", `${head}.${body}`],
    ["an empty signature", `${head}.${body}.`],
    ["four parts", `${head}.${body}.${signature}.x`],
    ["five parts, as an encrypted one", `${head}.${body}.${signature}.x.y`],
    ["a padded part", `${head}.${body}.${signature}=`],
    ["spare bits set in the signature", `${head}.${body}.${padded}`],
    ["white space inside", `${head}.${body}. ${signature}`],
    ["larger than 8 KiB", hs({ ...GOOD, filler: "x".repeat(8192) })],
    ["a cut signature", `${head}.${body}.${signature.slice(0, -4)}`],
    ["alg none with a signature", forge({ alg: "none" }, GOOD)],
    ["alg None", forge({ alg: "None" }, GOOD)],
    ["alg none without a signature", `${Buffer.from('{"alg":"none"}').toString("base64url")}.${body}.`],
    ["no alg", forge({ typ: "JWT" }, GOOD)],
    ["alg in lower case", forge({ alg: "hs256" }, GOOD)],
    ["HS512 with the same secret", forge({ alg: "HS512" }, GOOD, SECRET, "sha512")],
    ["another secret", forge({ alg: "HS256" }, GOOD, `${SECRET}x`)],
    ["an empty secret", forge({ alg: "HS256" }, GOOD, "")],
    ["a key of its own in the header", forge({ alg: "HS256", jwk: { kty: "oct", k: "AAAA" } }, GOOD, Buffer.from("AAAA", "base64url"))],
    ["an unknown critical extension", hs(GOOD, { crit: ["exp"], exp: 1 })],
    ["a known critical extension", hs(GOOD, { crit: ["b64"], b64: true })],
    ["an unencoded payload", hs(GOOD, { crit: ["b64"], b64: false })],
    ["a header that is no JSON", forge("{", GOOD)],
    ["a payload that is no JSON", forge({ alg: "HS256" }, "{")],
    ["a payload that is no object", forge({ alg: "HS256" }, [GOOD])],
    ["no exp", hs({ ...GOOD, exp: undefined })],
    ["exp as text", hs({ ...GOOD, exp: String(GOOD.exp) })],
    ["an exp that reads as infinity", forge({ alg: "HS256" }, JSON.stringify(GOOD).replace(String(GOOD.exp), "1e999"))],
    ["expired", hs({ ...GOOD, exp: NOW - 31 })],
    ["expired at the edge of the skew", hs({ ...GOOD, exp: NOW - 30 })],
    ["not yet valid", hs({ ...GOOD, nbf: NOW + 31 })],
    ["nbf as text", hs({ ...GOOD, nbf: "0" })],
    ["issued in the future", hs({ ...GOOD, iat: NOW + 31 })],
    ["iat as text", hs({ ...GOOD, iat: "0" })],
    ["another issuer", hs({ ...GOOD, iss: "else" })],
    ["a longer issuer", hs({ ...GOOD, iss: "issuer/" })],
    ["the issuer in an array", hs({ ...GOOD, iss: ["issuer"] })],
    ["no issuer", hs({ ...GOOD, iss: undefined })],
    ["another audience", hs({ ...GOOD, aud: "else" })],
    ["no audience", hs({ ...GOOD, aud: undefined })],
    ["an audience in another case", hs({ ...GOOD, aud: "Tenants" })],
    ["an empty list of audiences", hs({ ...GOOD, aud: [] })],
    ["a nested list of audiences", hs({ ...GOOD, aud: [["tenants"]] })],
    ["an operator with the tenants' audience", hs({ ...GOOD, account_type: "operator" })],
    ["a user with the operators' audience", hs({ ...GOOD, aud: "operators", account_type: "user" })],
    ["nothing claimed with the operators' audience", hs({ ...GOOD, aud: "operators" })],
    ["an operator with both audiences", hs({ ...GOOD, aud: ["operators", "tenants"], account_type: "operator" })],
    ["a user with both audiences", hs({ ...GOOD, aud: ["tenants", "operators"] })],
    ["an operator with the audience twice", hs({ ...GOOD, aud: ["operators", "operators"], account_type: "operator" })],
    ["a kind in another case", hs({ ...GOOD, account_type: "Service_Account" })],
    ["a kind with white space", hs({ ...GOOD, account_type: "user " })],
    ["a kind in full-width letters", hs({ ...GOOD, account_type: "ｕｓｅｒ" })],
    ["a kind in an array", hs({ ...GOOD, account_type: ["user"] })],
    ["a null kind", hs({ ...GOOD, account_type: null })],
    ["an empty kind", hs({ ...GOOD, account_type: "" })],
  ])("is refused: %s", async (_, token) => {
    expect(await refusal(token)).toBe("INVALID_TOKEN");
  });

  it.each([
    ["no subject", { ...GOOD, sub: undefined }],
    ["a subject that is no UUID", { ...GOOD, sub: "alice" }],
    ["a subject in an array", { ...GOOD, sub: [USER] }],
    ["a UUID with white space", { ...GOOD, sub: `${USER} ` }],
    ["the nil subject", { ...GOOD, sub: "00000000-0000-0000-0000-000000000000" }],
    ["no organization", { ...GOOD, organization_id: undefined }],
    ["an organization that is no UUID", { ...GOOD, organization_id: "acme" }],
    ["a null organization beside a fallback", { ...GOOD, organization_id: null, app_metadata: { organization_id: ORGANIZATION } }],
    ["the nil organization", { ...GOOD, organization_id: "00000000-0000-0000-0000-000000000000" }],
    ["an operator without a subject", { ...GOOD, aud: "operators", account_type: "operator", sub: undefined }],
    ["an operator of control characters", { ...GOOD, aud: "operators", account_type: "operator", sub: "a\nb" }],
  ])("names nobody: %s", async (_, claims) => {
    expect(await refusal(hs(claims))).toBe("IDENTITY_INCOMPLETE");
  });

  it("reads own properties of objects only", async () => {
    for (const organization of ["__proto__.organization_id", "constructor.name", "list.0", "list.length", "text.length"]) {
      const by = createJwtVerifier({ ...base, secret: secret(SECRET), claims: { ...DEFAULT_CLAIMS, organization } });
      expect(await refusal(hs({ ...GOOD, list: [ORGANIZATION], text: ORGANIZATION }), by), organization).toBe("IDENTITY_INCOMPLETE");
    }
  });

  it("cannot make an operator where no operator audience is set", async () => {
    const by = createJwtVerifier({ ...base, operatorAudience: undefined, secret: secret(SECRET) });
    for (const aud of ["operators", ["operators"], "tenants", ["tenants", "operators"], "undefined"]) {
      expect(await refusal(hs({ ...GOOD, aud, account_type: "operator" }), by)).toBe("INVALID_TOKEN");
    }
  });
});

describe("a public key", () => {
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const ec = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const ed = generateKeyPairSync("ed25519");
  const pem = (key: KeyObject) => key.export({ type: "spki", format: "pem" }).toString();
  const pairs = [["RS256", rsa], ["ES256", ec], ["EdDSA", ed]] as const;
  const verifierOf = (key: KeyObject) => createJwtVerifier({ ...base, publicKeyPem: secret(pem(key)) });

  it.each(pairs)("%s verifies its own tokens and no other algorithm's", async (alg, pair) => {
    const by = verifierOf(pair.publicKey);
    const token = await new SignJWT(GOOD).setProtectedHeader({ alg }).sign(pair.privateKey);
    expect((await by.verify(token)).caller).toMatchObject({ id: USER });
    for (const [otherAlg, other] of pairs.filter(([name]) => name !== alg)) {
      expect(await refusal(await new SignJWT(GOOD).setProtectedHeader({ alg: otherAlg }).sign(other.privateKey), by)).toBe("INVALID_TOKEN");
    }
  });

  it.each(pairs)("%s is never taken for an HMAC secret, in any encoding", async (_, { publicKey }) => {
    const by = verifierOf(publicKey);
    const encodings = [pem(publicKey), pem(publicKey).trim(), publicKey.export({ type: "spki", format: "der" }), pem(createPublicKey(pem(publicKey))).replaceAll("\n", "")];
    for (const key of encodings) expect(await refusal(forge({ alg: "HS256" }, GOOD, key), by)).toBe("INVALID_TOKEN");
  });

  it("refuses other algorithms of the same key, and a header that lies about it", async () => {
    const by = verifierOf(rsa.publicKey);
    for (const alg of ["RS384", "RS512", "PS256"]) {
      expect(await refusal(await new SignJWT(GOOD).setProtectedHeader({ alg }).sign(rsa.privateKey), by)).toBe("INVALID_TOKEN");
    }
    const input = `${Buffer.from('{"alg":"ES256"}').toString("base64url")}.${Buffer.from(JSON.stringify(GOOD)).toString("base64url")}`;
    expect(await refusal(`${input}.${rawSign("sha256", Buffer.from(input), rsa.privateKey).toString("base64url")}`, by)).toBe("INVALID_TOKEN");
    const other = generateKeyPairSync("rsa", { modulusLength: 2048 });
    expect(await refusal(await new CompactSign(Buffer.from(JSON.stringify(GOOD))).setProtectedHeader({ alg: "RS256" }).sign(other.privateKey), by)).toBe("INVALID_TOKEN");
  });

  it("that is weak, private, of another kind or no key is refused at the start, naming the setting", () => {
    const small = generateKeyPairSync("rsa", { modulusLength: 1024 }).publicKey;
    const others = [small, generateKeyPairSync("ec", { namedCurve: "P-384" }).publicKey, generateKeyPairSync("x25519").publicKey, generateKeyPairSync("ed448").publicKey];
    const secretPem = rsa.privateKey.export({ type: "pkcs8", format: "pem" }).toString();
    for (const text of [...others.map(pem), secretPem, "not a key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"]) {
      expect(() => createJwtVerifier({ ...base, publicKeyPem: secret(text) })).toThrow(/^CREDENTIALS_JWT_PUBLIC_KEY /);
    }
    expect(() => createJwtVerifier({ ...base, secret: secret(pem(rsa.publicKey)) })).toThrow(/^CREDENTIALS_JWT_SECRET is a PEM/);
  });
});

it("claims that name neither audience stand for nobody, whoever checked them before", () => {
  for (const aud of ["else", [], undefined, null]) expect(() => callerOf({ ...GOOD, aud }, { tenant: "tenants", operator: undefined }, DEFAULT_CLAIMS)).toThrow("Invalid authentication token");
});

it("a verifier cannot be made of a short secret, of two keys, of none, or with one audience for both", () => {
  expect(() => createJwtVerifier({ ...base, secret: secret("x".repeat(31)) })).toThrow("CREDENTIALS_JWT_SECRET must have at least 32 bytes");
  expect(() => createJwtVerifier({ ...base, secret: secret(SECRET), publicKeyPem: secret("x") })).toThrow("both set");
  expect(() => createJwtVerifier(base)).toThrow("required");
  expect(() => createJwtVerifier({ ...base, secret: secret(SECRET), operatorAudience: "tenants" })).toThrow("CREDENTIALS_JWT_OPERATOR_AUDIENCE must differ");
});
