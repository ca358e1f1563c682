import { randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import { newApiKey, type StoredApiKey } from "../../src/auth/api-key.ts";
import { createAuthenticator, type Presented } from "../../src/auth/authenticate.ts";
import { DEFAULT_CLAIMS } from "../../src/auth/claims.ts";
import { signDevelopmentToken } from "../../src/auth/development.ts";
import { createJwtVerifier } from "../../src/auth/jwt.ts";
import { CredentialError, fail } from "../../src/domain/errors.ts";
import { secret } from "../../src/domain/secret.ts";

const SECRET = secret("unit-test-secret-0123456789abcdef-0123456789");
const START = 1_900_000_000_000;

/** An authenticator with a clock to turn, a table of keys, and counts of the work it does. */
function setUp({ cacheEntries = 10, apiKeyCacheSeconds = 5, clockSkewSeconds = 0 } = {}) {
  const clock = { ms: START };
  const now = () => clock.ms;
  const work = { verified: 0, lookups: 0 };
  const rows = new Map<string, StoredApiKey>();
  const jwt = createJwtVerifier({ secret: SECRET, issuer: "i", audience: "a", operatorAudience: "o", claims: DEFAULT_CLAIMS, clockSkewSeconds, now });
  const state: { failure: Error | undefined } = { failure: undefined };
  const authenticator = createAuthenticator({
    jwt: { verify: (token) => (work.verified++, jwt.verify(token)) },
    keys: {
      keyByPrefix: async (prefix) => {
        work.lookups++;
        await Promise.resolve();
        if (state.failure) throw state.failure;
        return rows.get(prefix);
      },
    },
    cacheEntries,
    apiKeyCacheSeconds,
    now,
  });
  const addKey = (facts: Partial<StoredApiKey> = {}) => {
    const [organizationId, serviceAccountId] = [randomUUID(), randomUUID()];
    const key = newApiKey(organizationId, serviceAccountId);
    rows.set(key.prefix, { id: randomUUID(), organizationId, serviceAccountId, tokenHash: key.hash, expiresAt: null, revokedAt: null, ...facts });
    const change = (changed: Partial<StoredApiKey>) => rows.set(key.prefix, { ...(rows.get(key.prefix) as StoredApiKey), ...changed });
    return { token: key.token.reveal(), serviceAccountId, change };
  };
  const jwtFor = (subject = randomUUID(), expiresInSeconds = 600) =>
    signDevelopmentToken({ secret: SECRET, issuer: "i", audience: "a", subject, organizationId: randomUUID(), kind: "user", expiresInSeconds, now });
  const outcome = (presented: Partial<Presented>) =>
    authenticator.authenticate({ authorization: [], apiKey: [], ...presented }).then(
      (caller) => caller.id,
      (error: unknown) => (error instanceof CredentialError ? error.reason : `not a refusal: ${String(error)}`),
    );
  return { clock, work, state, authenticator, addKey, jwtFor, outcome };
}

describe("what is presented", () => {
  it("may be a JWT or an API key as bearer, in any case of the scheme, or an API key in its own header", async () => {
    const { jwtFor, addKey, outcome } = setUp();
    const [jwt, key, user] = [await jwtFor(USER), addKey(), USER];
    for (const scheme of ["Bearer", "bearer", "BEARER", "bEaReR"]) {
      expect(await outcome({ authorization: [`${scheme} ${jwt}`] })).toBe(user);
      expect(await outcome({ authorization: [`${scheme}  ${key.token}`] })).toBe(key.serviceAccountId);
    }
    expect(await outcome({ apiKey: [key.token] })).toBe(key.serviceAccountId);
  });

  it("is asked for where there is nothing", async () => {
    expect(await setUp().outcome({})).toBe("UNAUTHENTICATED");
  });

  it("is refused where it is present but bad, without a lookup for what has the wrong form", async () => {
    const { jwtFor, addKey, outcome, work } = setUp();
    const [jwt, key] = [await jwtFor(), addKey()];
    const bad = ["", " ", "Bearer", "Bearer ", jwt, key.token, `Basic ${jwt}`, `Token ${jwt}`, `Bearer\t${jwt}`, `Bearer ${jwt} x`, ` Bearer ${jwt}`, `Bearer "${jwt}"`, `Bearer: ${jwt}`, "Bearer saf_1234567890"];
    for (const value of bad) expect(await outcome({ authorization: [value] }), value.slice(0, 12)).toBe("INVALID_TOKEN");
    for (const value of ["", " ", jwt, `Bearer ${key.token}`, ` ${key.token}`, key.token.slice(0, -1)]) expect(await outcome({ apiKey: [value] })).toBe("INVALID_TOKEN");
    expect(await outcome({ authorization: [`Bearer ${"x".repeat(100_000)}`] })).toBe("INVALID_TOKEN");
    expect(work).toEqual({ verified: 0, lookups: 0 });
  });

  it("may be one thing only: any two are refused before either is looked at, whichever of them is good", async () => {
    const { jwtFor, addKey, outcome, work } = setUp();
    const [good, key, bad] = [`Bearer ${await jwtFor()}`, addKey().token, "Bearer bad"];
    const twice: Partial<Presented>[] = [
      { authorization: [good, good] },
      { authorization: [good, bad] },
      { authorization: [bad, good] },
      { authorization: [`${good}, ${good}`] },
      { authorization: [`${good},${bad}`] },
      { authorization: [`${bad}, ${good}`] },
      { authorization: [good], apiKey: [key] },
      { authorization: [bad], apiKey: [key] },
      { authorization: [good], apiKey: ["bad"] },
      { authorization: [""], apiKey: [key] },
      { authorization: [`Bearer ${key}`], apiKey: [key] },
      { apiKey: [key, key] },
      { apiKey: [`${key},${key}`] },
    ];
    for (const presented of twice) expect(await outcome(presented)).toBe("CONFLICTING_IDENTITIES");
    expect(work).toEqual({ verified: 0, lookups: 0 });
  });
});

const USER = "11111111-1111-4111-8111-111111111111";

describe("a verified JWT", () => {
  it("is verified once, until its end and not a moment longer", async () => {
    const { jwtFor, outcome, work, clock } = setUp({ clockSkewSeconds: 30 });
    const authorization = [`Bearer ${await jwtFor(USER, 60)}`];
    expect(await outcome({ authorization })).toBe(USER);
    clock.ms = START + 89_999;
    expect(await outcome({ authorization })).toBe(USER);
    expect(work.verified).toBe(1);
    clock.ms = START + 90_000;
    expect(await outcome({ authorization })).toBe("INVALID_TOKEN");
    expect(work.verified).toBe(2);
  });

  it("is shared by those who present it at once, as is its refusal, which is not remembered", async () => {
    const { jwtFor, outcome, work } = setUp();
    const good = [`Bearer ${await jwtFor(USER)}`];
    expect(new Set(await Promise.all(Array.from({ length: 20 }, () => outcome({ authorization: good }))))).toEqual(new Set([USER]));
    expect(work.verified).toBe(1);
    const bad = ["Bearer a.b.c"];
    for (const round of [2, 3]) {
      expect(new Set(await Promise.all(Array.from({ length: 20 }, () => outcome({ authorization: bad }))))).toEqual(new Set(["INVALID_TOKEN"]));
      expect(work.verified).toBe(round);
    }
  });

  it("leaves the cache when it is the one not used for longest, and bad tokens push nothing out", async () => {
    const { jwtFor, outcome, work } = setUp({ cacheEntries: 2 });
    const [a, b, c] = [[`Bearer ${await jwtFor()}`], [`Bearer ${await jwtFor()}`], [`Bearer ${await jwtFor()}`]];
    for (const authorization of [a, b, a, c]) await outcome({ authorization });
    expect(work.verified).toBe(3);
    for (let n = 0; n < 10; n++) await outcome({ authorization: [`Bearer a.b.${n}`] });
    expect(work.verified).toBe(13);
    for (const authorization of [a, c]) await outcome({ authorization });
    expect(work.verified).toBe(13);
    await outcome({ authorization: b });
    expect(work.verified).toBe(14);
  });

  it("gives a caller that nobody can change for the next one", async () => {
    const { jwtFor, authenticator } = setUp();
    const presented = { authorization: [`Bearer ${await jwtFor()}`], apiKey: [] };
    expect(Object.isFrozen(await authenticator.authenticate(presented))).toBe(true);
    expect(Object.isFrozen(await authenticator.authenticate(presented))).toBe(true);
  });
});

describe("a verified API key", () => {
  it("is trusted for the configured time, then asked for again, so that a revocation takes hold", async () => {
    const { addKey, outcome, work, clock } = setUp({ apiKeyCacheSeconds: 5 });
    const key = addKey();
    expect(await outcome({ apiKey: [key.token] })).toBe(key.serviceAccountId);
    key.change({ revokedAt: new Date(START) });
    clock.ms = START + 4_999;
    expect(await outcome({ authorization: [`Bearer ${key.token}`] })).toBe(key.serviceAccountId);
    expect(work.lookups).toBe(1);
    clock.ms = START + 5_000;
    expect(await outcome({ apiKey: [key.token] })).toBe("INVALID_TOKEN");
  });

  it("is not trusted beyond its own end", async () => {
    const { addKey, outcome, clock } = setUp({ apiKeyCacheSeconds: 60 });
    const key = addKey({ expiresAt: new Date(START + 1_000) });
    expect(await outcome({ apiKey: [key.token] })).toBe(key.serviceAccountId);
    clock.ms = START + 1_000;
    expect(await outcome({ apiKey: [key.token] })).toBe("INVALID_TOKEN");
  });

  it("is asked for once by those who present it at once", async () => {
    const { addKey, outcome, work } = setUp();
    const key = addKey();
    expect(new Set(await Promise.all(Array.from({ length: 50 }, () => outcome({ apiKey: [key.token] }))))).toEqual(new Set([key.serviceAccountId]));
    expect(work.lookups).toBe(1);
  });

  it("is asked for every time where nothing is to be trusted", async () => {
    const { addKey, outcome, work } = setUp({ apiKeyCacheSeconds: 0 });
    const key = addKey();
    await Promise.all(Array.from({ length: 5 }, () => outcome({ apiKey: [key.token] })));
    expect(work.lookups).toBe(5);
    key.change({ revokedAt: new Date(START) });
    expect(await outcome({ apiKey: [key.token] })).toBe("INVALID_TOKEN");
  });

  it("cannot be judged while the database is away: that is said, not 401, and not remembered", async () => {
    for (const apiKeyCacheSeconds of [0, 5]) {
      const { addKey, outcome, state } = setUp({ apiKeyCacheSeconds });
      const key = addKey();
      state.failure = fail("DATABASE_UNAVAILABLE");
      expect(await outcome({ apiKey: [key.token] })).toBe("DATABASE_UNAVAILABLE");
      state.failure = undefined;
      expect(await outcome({ apiKey: [key.token] })).toBe(key.serviceAccountId);
    }
  });
});

describe("who is known at once", () => {
  const known = ({ authenticator }: ReturnType<typeof setUp>, presented: Partial<Presented>) => authenticator.known({ authorization: [], apiKey: [], ...presented })?.id;

  it("is whoever authenticated with the same token before, for as long as its proof holds, and nobody who shows anything besides", async () => {
    const world = setUp();
    const { jwtFor, addKey, outcome, clock } = world;
    const [jwt, key] = [await jwtFor(USER, 60), addKey()];
    const [one, other] = [{ authorization: [`Bearer ${jwt}`] }, { authorization: [`Bearer ${key.token}`] }];
    expect([known(world, one), known(world, other)]).toEqual([undefined, undefined]);
    expect([await outcome(one), await outcome(other)]).toEqual([USER, key.serviceAccountId]);
    expect([known(world, one), known(world, other)]).toEqual([USER, key.serviceAccountId]);
    expect(known(world, { ...one, apiKey: [key.token] })).toBeUndefined();
    expect(known(world, { authorization: [...one.authorization, ...one.authorization] })).toBeUndefined();
    expect(known(world, { ...one, certificate: "AB:CD" })).toBeUndefined();
    expect(known(world, { authorization: [`Bearer ${jwt},${jwt}`] })).toBeUndefined();
    clock.ms += 5_000;
    expect([known(world, one), known(world, other)]).toEqual([USER, undefined]);
    clock.ms += 55_000;
    expect(known(world, one)).toBeUndefined();
  });

  it("is no API key where each one is asked for every time", async () => {
    const world = setUp({ apiKeyCacheSeconds: 0 });
    const key = world.addKey();
    expect(await world.outcome({ authorization: [`Bearer ${key.token}`] })).toBe(key.serviceAccountId);
    expect(known(world, { authorization: [`Bearer ${key.token}`] })).toBeUndefined();
  });
});
