import { createHmac } from "node:crypto";
import fc from "fast-check";
import { expect, it } from "vitest";
import { newApiKey } from "../../src/auth/api-key.ts";
import { createAuthenticator } from "../../src/auth/authenticate.ts";
import { DEFAULT_CLAIMS } from "../../src/auth/claims.ts";
import { createJwtVerifier } from "../../src/auth/jwt.ts";
import { CredentialError, REASONS } from "../../src/domain/errors.ts";
import { secret } from "../../src/domain/secret.ts";

const RUNS = process.env["FLOW_TEST_LONG"] ? 20_000 : 1_000;
const NOW = 1_900_000_000;
const SECRET = "property-test-secret-0123456789abcdef";
const USER = "11111111-1111-4111-8111-111111111111";
const ORGANIZATION = "22222222-2222-4222-8222-222222222222";
const GOOD = { iss: "issuer", aud: "tenants", sub: USER, organization_id: ORGANIZATION, account_type: "service_account", exp: NOW + 600 };

const verifier = createJwtVerifier({
  secret: secret(SECRET),
  issuer: "issuer",
  audience: "tenants",
  operatorAudience: "operators",
  claims: DEFAULT_CLAIMS,
  clockSkewSeconds: 0,
  now: () => NOW * 1000,
});

function sign(payload: string): string {
  const input = [`{"alg":"HS256"}`, payload].map((part) => Buffer.from(part).toString("base64url")).join(".");
  return `${input}.${createHmac("sha256", SECRET).update(input).digest("base64url")}`;
}
const good = sign(JSON.stringify(GOOD));
const key = newApiKey(ORGANIZATION, USER);
const goodKey = key.token.reveal();

const authenticator = createAuthenticator({
  jwt: verifier,
  keys: {
    keyByPrefix: async (prefix) =>
      prefix === key.prefix ? { id: USER, organizationId: ORGANIZATION, serviceAccountId: USER, tokenHash: key.hash, expiresAt: null, revokedAt: null } : undefined,
  },
  cacheEntries: 100,
  apiKeyCacheSeconds: 5,
});

/** Character that stands at most once anywhere: any of a token's own, some others, and none. */
const character = fc.oneof(fc.constantFrom(..."ABCXYZabcxyz0189-_.=+/ ,\n\0%"), fc.constant(""));

/** Replaces, removes, inserts and swaps characters of a text. */
const mutated = (text: string) =>
  fc
    .array(fc.record({ at: fc.nat(text.length - 1), put: character, drop: fc.nat(2) }), { minLength: 1, maxLength: 3 })
    .map((edits) => edits.reduce((now, { at, put, drop }) => now.slice(0, at) + put + now.slice(at + drop), text))
    .filter((result) => result !== text);

const refusalOf = (promise: Promise<unknown>) =>
  promise.then(
    () => "accepted",
    (error: unknown) => (error instanceof CredentialError ? REASONS[error.reason].http : error),
  );

it("no mutation of a good token verifies", async () => {
  await verifier.verify(good);
  await fc.assert(
    fc.asyncProperty(mutated(good), async (token) => void expect(await refusalOf(verifier.verify(token))).toBe(401)),
    { numRuns: RUNS },
  );
});

it("no mutation of a good API key stands for anyone, however it is presented", async () => {
  await authenticator.authenticate({ authorization: [], apiKey: [goodKey] });
  await fc.assert(
    fc.asyncProperty(mutated(goodKey), async (token) => void expect(await refusalOf(authenticator.authenticate({ authorization: [], apiKey: [token] }))).toBe(401)),
    { numRuns: RUNS },
  );
});

it("whatever the headers hold, the answer is a caller or a 401, the same each time, and a caller only for one good token alone", async () => {
  const value = fc.oneof(
    fc.constantFrom(`Bearer ${good}`, `bearer ${goodKey}`, goodKey, good, `Bearer ${good}, Bearer ${good}`, "Bearer ", ""),
    fc.string({ unit: "binary" }),
    fc.string().map((text) => `Bearer ${text}`),
  );
  const values = fc.array(value, { maxLength: 2 });
  await fc.assert(
    fc.asyncProperty(values, values, async (authorization, apiKey) => {
      const presented = { authorization, apiKey };
      const accepted = JSON.stringify(presented);
      const alone = [[`Bearer ${good}`, `bearer ${goodKey}`].map((one) => ({ authorization: [one], apiKey: [] })), { authorization: [], apiKey: [goodKey] }].flat();
      const expected = alone.some((one) => JSON.stringify(one) === accepted) ? "accepted" : 401;
      for (let round = 0; round < 2; round++) expect(await refusalOf(authenticator.authenticate(presented))).toBe(expected);
    }),
    { numRuns: RUNS },
  );
});

it("whatever claims a trusted issuer signs, the caller is complete or there is none", async () => {
  const claim = fc.oneof(fc.jsonValue(), fc.constantFrom(USER, ORGANIZATION, "user", "operator", "service_account", "tenants", "operators", ["tenants", "operators"]));
  const claims = fc.record({ sub: claim, organization_id: claim, account_type: claim, role: claim, aud: claim, app_metadata: claim, ["__proto__"]: claim }, { requiredKeys: [] });
  await fc.assert(
    fc.asyncProperty(claims, async (given) => {
      const payload = { ...GOOD, ...given };
      const result = await verifier.verify(sign(JSON.stringify(payload))).catch((error: unknown) => error);
      if (result instanceof CredentialError) return void expect(REASONS[result.reason].http).toBe(401);
      const { caller } = result as Awaited<ReturnType<typeof verifier.verify>>;
      expect(caller.kind).toBe(payload.account_type ?? "user");
      expect(caller.kind === "operator").toBe([payload.aud].flat().includes("operators"));
      if (caller.kind !== "operator") expect([caller.id, caller.organizationId].every((id) => [USER, ORGANIZATION].includes(id))).toBe(true);
    }),
    { numRuns: RUNS },
  );
});
