import { generateKeyPairSync, type KeyObject, randomUUID } from "node:crypto";
import { SignJWT, UnsecuredJWT } from "jose";
import { describe, expect, test } from "vitest";
import { DEFAULT_CLAIMS } from "../../src/auth/claims.ts";
import { COOLDOWN_MS, FRESH_MS, GRACE_MS, Jwks } from "../../src/auth/jwks.ts";
import { createJwtVerifier } from "../../src/auth/jwt.ts";
import { CredentialError } from "../../src/domain/errors.ts";
import { createLog } from "../../src/log.ts";

interface IssuerKey {
  readonly kid: string;
  readonly alg: string;
  readonly privateKey: KeyObject;
  readonly jwk: Record<string, unknown>;
}

const rsa = (kid: string, bits = 2048): IssuerKey => {
  const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: bits });
  return { kid, alg: "RS256", privateKey, jwk: { ...publicKey.export({ format: "jwk" }), kid, use: "sig" } };
};
const ec = (kid: string, namedCurve = "P-256"): IssuerKey => {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve });
  return { kid, alg: "ES256", privateKey, jwk: { ...publicKey.export({ format: "jwk" }), kid } };
};
const ed = (kid: string): IssuerKey => {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  return { kid, alg: "EdDSA", privateKey, jwk: { ...publicKey.export({ format: "jwk" }), kid, alg: "EdDSA" } };
};

/** An issuer whose key set can be changed, taken away, and counted; and a verifier that asks it, on a clock of its own. */
function issuer(keys: readonly IssuerKey[]) {
  const state = { jwks: keys.map(({ jwk }) => jwk) as unknown[], fetches: 0, answer: undefined as (() => Promise<Buffer>) | undefined, now: Date.now() };
  const jwks = new Jwks({
    fetch: () => {
      state.fetches++;
      return state.answer?.() ?? Promise.resolve(Buffer.from(JSON.stringify({ keys: state.jwks })));
    },
    log: createLog("error"),
    now: () => state.now,
  });
  const verifier = createJwtVerifier({ jwks, issuer: "https://issuer", audience: "a", claims: DEFAULT_CLAIMS, clockSkewSeconds: 0, now: () => state.now });
  const sign = (key: Pick<IssuerKey, "alg" | "privateKey">, header: Record<string, unknown> = {}) =>
    new SignJWT({ organization_id: randomUUID() }).setProtectedHeader({ alg: key.alg, ...header }).setIssuer("https://issuer").setAudience("a").setSubject(randomUUID())
      .setIssuedAt(Math.floor(state.now / 1000)).setExpirationTime(Math.floor(state.now / 1000) + 36_000).sign(key.privateKey);
  const outcome = (token: string) => verifier.verify(token).then((verified) => verified, (error: unknown) => (error instanceof CredentialError ? error.reason : error));
  const good = async (key: IssuerKey) => typeof (await outcome(await sign(key, { kid: key.kid }))) === "object";
  return { state, sign, outcome, good };
}

test("keys of every kind that may verify do, each for its own algorithm, and one fetch serves them all", async () => {
  const keys = [rsa("r"), ec("e"), ed("d")];
  const { state, good } = issuer(keys);
  for (const key of keys) expect(await good(key), key.kid).toBe(true);
  expect(state.fetches).toBe(1);
});

test("a token without a key's id is good where there is one key, and refused where there are several", async () => {
  const [one, two] = [ed("1"), ed("2")];
  const single = issuer([one]);
  expect(await single.outcome(await single.sign(one))).toMatchObject({ caller: { kind: "user" } });
  const several = issuer([one, two]);
  expect(await several.outcome(await several.sign(one))).toBe("INVALID_TOKEN");
});

test.each([
  ["a private key", (key: IssuerKey) => ({ ...key.privateKey.export({ format: "jwk" }), kid: key.kid })],
  ["a key for encryption", (key: IssuerKey) => ({ ...key.jwk, use: "enc" })],
  ["a key that does not verify", (key: IssuerKey) => ({ ...key.jwk, key_ops: ["sign"] })],
  ["a key for another algorithm", (key: IssuerKey) => ({ ...key.jwk, alg: "RS512" })],
  ["a key without an id", (key: IssuerKey) => ({ ...key.jwk, kid: undefined })],
  ["a key with an id that is no text", (key: IssuerKey) => ({ ...key.jwk, kid: 7 })],
  ["a short RSA key", () => rsa("x", 1024).jwk],
  ["a key on another curve", () => ec("x", "P-384").jwk],
  ["a symmetric key", () => ({ kty: "oct", k: "AAAA", kid: "x" })],
  ["nonsense", () => ({ kty: "RSA", n: "!", e: 1, kid: "x" })],
])("%s is passed over, and the others are used", async (_, spoil) => {
  const [bad, fine] = [rsa("x"), ed("fine")];
  const { state, good } = issuer([fine]);
  state.jwks = [spoil(bad), fine.jwk];
  expect(await good(bad)).toBe(false);
  expect(await good(fine)).toBe(true);
});

test("an id that two keys have means none of them", async () => {
  const [a, b, fine] = [ed("same"), ed("same"), ed("fine")];
  const { good } = issuer([a, b, fine]);
  expect([await good(a), await good(b), await good(fine)]).toEqual([false, false, true]);
});

describe("a token that chooses for itself", () => {
  const [key, own] = [rsa("k"), rsa("own")];
  const tokens: Record<string, (sign: ReturnType<typeof issuer>["sign"]) => Promise<string>> = {
    "another algorithm of the same key": (sign) => sign({ alg: "RS512", privateKey: key.privateKey }, { kid: "k" }),
    "no algorithm": async () => new UnsecuredJWT({ organization_id: randomUUID() }).setIssuer("https://issuer").setAudience("a").setSubject(randomUUID()).setExpirationTime("1h").encode(),
    "the public key as a secret": (sign) => sign({ alg: "HS256", privateKey: Buffer.from(JSON.stringify(key.jwk).padEnd(64)) as never }, { kid: "k" }),
    "a key in its own header": (sign) => sign(own, { kid: "own", jwk: own.jwk }),
    "a key set of its own": (sign) => sign(own, { kid: "own", jku: "https://evil.example/jwks" }),
    "a certificate of its own": (sign) => sign(own, { kid: "own", x5u: "https://evil.example/x.pem" }),
    "a known id for another key": (sign) => sign(own, { kid: "k" }),
    "a path as an id": (sign) => sign(own, { kid: "../../etc/passwd" }),
    "an id that is no text": (sign) => sign(own, { kid: { $ne: "" } }),
    "an id that is too long": (sign) => sign(own, { kid: "k".repeat(300) }),
    "an id with a line break": (sign) => sign(own, { kid: "k\nk" }),
  };
  test.each(Object.keys(tokens))("%s is refused, and nothing is fetched for it but the one key set", async (name) => {
    const { state, sign, outcome, good } = issuer([key]);
    expect(await good(key)).toBe(true);
    expect(await outcome(await (tokens[name] as (typeof tokens)[string])(sign))).toBe("INVALID_TOKEN");
    expect(state.fetches).toBe(1);
  });
});

describe("the key set", () => {
  test("is fetched once for a flood of unknown ids in a minute, and a new key is found after it", async () => {
    const [known, fresh, other] = [ed("known"), ed("fresh"), ed("other")];
    const { state, sign, outcome, good } = issuer([known]);
    expect(await good(known)).toBe(true);
    state.now += COOLDOWN_MS;
    const flood = await Promise.all(Array.from({ length: 500 }, async (_unused, index) => outcome(await sign(other, { kid: `unknown-${index}` }))));
    expect(new Set(flood)).toEqual(new Set(["INVALID_TOKEN"]));
    expect(state.fetches).toBe(2);
    state.jwks.push(fresh.jwk);
    expect(await good(fresh)).toBe(false);
    state.now += COOLDOWN_MS;
    expect(await good(fresh)).toBe(true);
    expect(state.fetches).toBe(3);
  });

  test("without a key any more: it is refused once the set has had its time", async () => {
    const [stays, goes] = [ed("stays"), ed("goes")];
    const { state, good, outcome, sign } = issuer([stays, goes]);
    expect([await good(stays), await good(goes)]).toEqual([true, true]);
    const verified = (await outcome(await sign(goes, { kid: "goes" }))) as { expiresAtMs: number };
    expect(verified.expiresAtMs).toBeLessThanOrEqual(state.now + FRESH_MS);
    state.jwks = [stays.jwk];
    state.now += FRESH_MS;
    expect([await good(stays), await good(goes)]).toEqual([true, false]);
  });

  test("is fetched anew before it ends, without anybody waiting", async () => {
    const key = ed("k");
    const { state, good } = issuer([key]);
    await good(key);
    let release = (_bytes: Buffer) => {};
    state.answer = () => new Promise((resolve) => (release = resolve));
    state.now += FRESH_MS / 2 + 1;
    expect(await good(key)).toBe(true);
    expect(state.fetches).toBe(2);
    release(Buffer.from(JSON.stringify({ keys: state.jwks })));
  });

  test.each([
    ["cannot be reached", () => Promise.reject(new Error("down"))],
    ["is no JSON", async () => Buffer.from("<html>")],
    ["is empty", async () => Buffer.from('{"keys":[]}')],
    ["is too long a list", async () => Buffer.from(JSON.stringify({ keys: Array.from({ length: 101 }, (_unused, n) => ({ kty: "oct", kid: String(n) })) }))],
  ])("that %s: the known keys are kept for an hour, and then nobody is let in until it is back", async (_, answer) => {
    const key = ed("k");
    const { state, good, outcome, sign } = issuer([key]);
    expect(await good(key)).toBe(true);
    state.answer = answer;
    state.now += FRESH_MS + GRACE_MS - 1;
    expect(await good(key)).toBe(true);
    state.now += 1;
    expect(await outcome(await sign(key, { kid: "k" }))).toBe("ISSUER_UNAVAILABLE");
    state.answer = undefined;
    state.now += COOLDOWN_MS;
    expect(await good(key)).toBe(true);
  });

  test("that was never there lets nobody in, is asked for sparingly, and recovers", async () => {
    const key = ed("k");
    const { state, good, outcome, sign } = issuer([key]);
    state.answer = () => Promise.reject(new Error("down"));
    for (let n = 0; n < 20; n++) expect(await outcome(await sign(key, { kid: "k" }))).toBe("ISSUER_UNAVAILABLE");
    expect(state.fetches).toBe(1);
    state.answer = undefined;
    state.now += 2_000;
    expect(await good(key)).toBe(true);
  });
});
