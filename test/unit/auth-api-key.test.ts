import { timingSafeEqual } from "node:crypto";
import { inspect } from "node:util";
import { afterEach, expect, it, vi } from "vitest";
import { hashApiKey, newApiKey, type StoredApiKey, verifyApiKey } from "../../src/auth/api-key.ts";
import { CredentialError, fail } from "../../src/domain/errors.ts";

// The real comparison, watched: the tests below need to know that it was made, and of what.
vi.mock("node:crypto", async (original) => {
  const real = await original<typeof import("node:crypto")>();
  return { ...real, timingSafeEqual: vi.fn(real.timingSafeEqual) };
});
const compared = vi.mocked(timingSafeEqual);
afterEach(() => compared.mockClear());

const ORGANIZATION = "AABBCCDD-2222-4222-8222-222222222222";
const ACCOUNT = "33333333-3333-4333-8333-333333333333";
const KEY_ID = "44444444-4444-4444-8444-444444444444";
const NOW = 1_900_000_000_000;

const made = newApiKey(ORGANIZATION, ACCOUNT);
const token = made.token.reveal();
const stored: StoredApiKey = { id: KEY_ID, organizationId: ORGANIZATION, serviceAccountId: ACCOUNT, tokenHash: made.hash, expiresAt: null, revokedAt: null };

/** A source with one key, which writes down what it is asked. */
function source(row: StoredApiKey | undefined = stored) {
  const asked: string[] = [];
  return { asked, keyByPrefix: async (prefix: string) => (asked.push(prefix), prefix === made.prefix ? row : undefined) };
}

async function failure(text: string, keys: Parameters<typeof verifyApiKey>[1]): Promise<CredentialError> {
  const error = await verifyApiKey(text, keys, NOW).catch((thrown: unknown) => thrown);
  if (!(error instanceof CredentialError)) throw new Error("the key was taken");
  return error;
}

it("a new key names its organization and account in a short public prefix, and hides 256 random bits after it", () => {
  expect(token).toMatch(/^saf_org_aabbccdd_33333333_[A-Za-z0-9_-]{51}$/);
  expect(token.startsWith(made.prefix)).toBe(true);
  expect(made.prefix).toMatch(/^saf_org_aabbccdd_33333333_[A-Za-z0-9_-]{8}$/);
  expect(made.prefix.length).toBeLessThanOrEqual(40);
  expect(Buffer.from(token.slice(made.prefix.length), "base64url")).toHaveLength(32);
  expect(made.hash).toEqual(hashApiKey(token));
  expect(inspect(made, { depth: 5 })).not.toContain(token);
  expect(JSON.stringify(made)).not.toContain(token);
});

it("keys of one account differ in prefix, secret and hash", () => {
  const keys = Array.from({ length: 500 }, () => newApiKey(ORGANIZATION, ACCOUNT));
  for (const part of [(key: (typeof keys)[number]) => key.prefix, (key: (typeof keys)[number]) => key.token.reveal().slice(34), (key: (typeof keys)[number]) => key.hash.toString("hex")]) {
    expect(new Set(keys.map(part)).size).toBe(keys.length);
  }
});

it("the right key stands for its service account until it ends", async () => {
  const caller = { kind: "service_account", id: ACCOUNT, organizationId: ORGANIZATION, role: null, keyId: KEY_ID };
  expect(await verifyApiKey(token, source(), NOW)).toEqual({ caller, expiresAtMs: Infinity });
  const ending = source({ ...stored, expiresAt: new Date(NOW + 1) });
  expect(await verifyApiKey(token, ending, NOW)).toEqual({ caller, expiresAtMs: NOW + 1 });
});

const wrongSecret = made.prefix + newApiKey(ORGANIZATION, ACCOUNT).token.reveal().slice(made.prefix.length);
const unknownPrefix = newApiKey(ORGANIZATION, ACCOUNT).token.reveal();

it.each([
  ["a wrong secret", wrongSecret, stored],
  ["an unknown prefix", unknownPrefix, stored],
  ["an expired key", token, { ...stored, expiresAt: new Date(NOW) }],
  ["a revoked key", token, { ...stored, revokedAt: new Date(NOW + 60_000) }],
  ["a stored key of another hash", token, { ...stored, tokenHash: Buffer.alloc(32) }],
])("%s costs one lookup and one comparison of two digests, and is refused like any other", async (_, text, row) => {
  const keys = source(row);
  const error = await failure(text, keys);
  expect(error.reason).toBe("INVALID_TOKEN");
  expect(error.cause).toBeUndefined();
  expect(keys.asked).toEqual([text.slice(0, made.prefix.length)]);
  expect(compared.mock.calls.map(([left, right]) => [left.byteLength, right.byteLength])).toEqual([[32, 32]]);
  expect(compared.mock.calls[0]?.[0]).toEqual(hashApiKey(text));
  expect(inspect(error, { depth: 10 })).not.toContain(text.slice(made.prefix.length));
});

it.each([
  ["only the start", "saf_"],
  ["only the prefix", made.prefix],
  ["one character short", token.slice(0, -1)],
  ["one character long", `${token}A`],
  ["a line break after it", `${token}\n`],
  ["upper case", token.toUpperCase()],
  ["another kind", token.replace("saf_org_", "saf_sys_")],
  ["a wildcard in the prefix", token.replace("aabbccdd", "%_______")],
])("what has not the form of a key is refused without a lookup: %s", async (_, text) => {
  const keys = source();
  expect((await failure(text, keys)).reason).toBe("INVALID_TOKEN");
  expect(keys.asked).toEqual([]);
});

it("a source that cannot answer is no refusal of the key", async () => {
  const down = fail("DATABASE_UNAVAILABLE");
  expect(await failure(token, { keyByPrefix: () => Promise.reject(down) })).toBe(down);
});
