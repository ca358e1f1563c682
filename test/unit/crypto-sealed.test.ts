import { createSecretKey, randomBytes } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { openSecret, parseSealed, parseWrapped, sealSecret, unwrapKey, wrapKey } from "../../src/crypto/sealed.ts";
import { UnreadableError, type UnreadableKind } from "../../src/crypto/unreadable.ts";
import type { SecretPlace } from "../../src/domain/credential.ts";

const key = createSecretKey(randomBytes(32));
const plaintext = Buffer.alloc(256, "plain ");
const organizationKey = randomBytes(32);
const keyPlace = { organizationId: "0198c0de-0000-7000-8000-000000000001", version: 3 };
const place: SecretPlace = {
  organizationId: "0198c0de-0000-7000-8000-000000000001",
  credentialId: "0198c0de-1111-7000-8000-000000000001",
  provider: "sftp",
  credentialType: "user_password",
  secretVersion: 7n,
};

const sealed = sealSecret(key, 258, place, plaintext);
const wrapped = wrapKey(key, "k-1", keyPlace, organizationKey);
const open = (bytes: Buffer, at = place, under = key) => openSecret(under, at, parseSealed(bytes));
const unwrap = (bytes: Buffer, at = keyPlace, under = key) => unwrapKey(under, at, parseWrapped(bytes));

/** The kind of an UnreadableError; any other outcome fails the test. */
function kindOf(attempt: () => unknown): UnreadableKind {
  try {
    attempt();
  } catch (error) {
    if (error instanceof UnreadableError) return error.code;
    throw error;
  }
  throw new Error("it opened");
}

const withByte = (bytes: Buffer, index: number, change: number): Buffer => {
  const copy = Buffer.from(bytes);
  copy.writeUInt8(copy.readUInt8(index) ^ change, index);
  return copy;
};

test("what an authorization in progress has sealed opens as that authorization and as nothing else", () => {
  const { organizationId, credentialId: authorizationId } = place;
  const at = { organizationId, authorizationId, provider: "google" } as const;
  const bytes = sealSecret(key, 1, at, plaintext);
  expect(openSecret(key, at, parseSealed(bytes)).equals(plaintext)).toBe(true);
  const others = [
    { ...at, authorizationId: keyPlace.organizationId }, { ...at, organizationId: authorizationId }, { ...at, provider: "microsoft" as const },
    { organizationId, credentialId: authorizationId, provider: "google" as const, credentialType: "" as never, secretVersion: 0n },
  ];
  for (const other of others) expect(kindOf(() => openSecret(key, other, parseSealed(bytes)))).toBe("not_authentic");
  expect(kindOf(() => openSecret(key, { ...at, provider: "sftp" }, parseSealed(sealed)))).toBe("not_authentic");
});

describe.each([
  { what: "a sealed secret", bytes: sealed, attempt: open, result: plaintext, malformed: "malformed", forged: "not_authentic" },
  { what: "a wrapped key", bytes: wrapped, attempt: unwrap, result: organizationKey, malformed: "wrapped_key_malformed", forged: "wrapped_key_not_authentic" },
] as const)("$what", ({ bytes, attempt, result, malformed, forged }) => {
  test("opens to what went in", () => {
    expect(attempt(bytes).equals(result)).toBe(true);
  });

  test("does not open truncated to any length", () => {
    for (let length = 0; length < bytes.length; length++) expect([malformed, forged]).toContain(kindOf(() => attempt(bytes.subarray(0, length))));
  });

  test("does not open with any bit flipped", () => {
    for (let index = 0; index < bytes.length; index++) {
      for (let bit = 0; bit < 8; bit++) expect([malformed, forged]).toContain(kindOf(() => attempt(withByte(bytes, index, 1 << bit))));
    }
  });

  test.each([4, 8, 12, 15])("does not open with its tag cut to %i bytes", (length) => {
    expect([malformed, forged]).toContain(kindOf(() => attempt(bytes.subarray(0, bytes.length - 16 + length))));
  });

  test("does not open with its tag extended to 17 bytes", () => {
    for (const extra of [0, 255]) expect([malformed, forged]).toContain(kindOf(() => attempt(Buffer.concat([bytes, Buffer.from([extra])]))));
  });

  test("does not open with bytes before or inside it", () => {
    expect(kindOf(() => attempt(Buffer.concat([Buffer.from([0]), bytes])))).toBe(malformed);
    expect([malformed, forged]).toContain(kindOf(() => attempt(Buffer.concat([bytes.subarray(0, 30), Buffer.from([0]), bytes.subarray(30)]))));
  });

  test.each([0, 1, 2])("of another kind, format version or algorithm (byte %i) is malformed, and no key is tried", (index) => {
    for (let change = 1; change < 256; change++) expect(kindOf(() => attempt(withByte(bytes, index, change)))).toBe(malformed);
  });

  test("does not open under another key", () => {
    const other = createSecretKey(randomBytes(32));
    expect(kindOf(() => (attempt === open ? open(bytes, place, other) : unwrap(bytes, keyPlace, other)))).toBe(forged);
  });
});

test.each<[string, Partial<SecretPlace>]>([
  ["organization", { organizationId: "0198c0de-0000-7000-8000-000000000002" }],
  ["credential", { credentialId: "0198c0de-1111-7000-8000-000000000002" }],
  ["provider", { provider: "postgresql" }],
  ["type", { credentialType: "key_file" }],
  ["newer secret version", { secretVersion: 8n }],
  ["older secret version", { secretVersion: 6n }],
])("a sealed secret that was moved to another %s does not open", (_, change) => {
  expect(kindOf(() => open(sealed, { ...place, ...change }))).toBe("not_authentic");
});

test.each([
  ["organization", { organizationId: "0198c0de-0000-7000-8000-000000000002" }],
  ["version", { version: 4 }],
])("a wrapped key that was moved to another %s does not unwrap", (_, change) => {
  expect(kindOf(() => unwrap(wrapped, { ...keyPlace, ...change }))).toBe("wrapped_key_not_authentic");
});

test("upper-case ids open what lower-case ids sealed", () => {
  const upper = { ...place, organizationId: place.organizationId.toUpperCase(), credentialId: place.credentialId.toUpperCase() };
  expect(open(sealed, upper).equals(plaintext)).toBe(true);
});

test("the header names the key", () => {
  expect(parseSealed(sealed).organizationKeyVersion).toBe(258);
  expect(parseWrapped(wrapped).masterKeyId).toBe("k-1");
});

test("the sizes are the documented ones", () => {
  expect(sealed.length).toBe(7 + 12 + plaintext.length + 16);
  expect(wrapped.length).toBe(4 + "k-1".length + 12 + 32 + 16);
});

test("a master key id that cannot be one is malformed, whatever else fits", () => {
  for (const id of ["", "-a", "a b", "k\0", "\xe9", "x".repeat(33)]) {
    const bytes = Buffer.concat([Buffer.from([0xc4, 1, 1, id.length]), Buffer.from(id, "latin1"), randomBytes(60)]);
    expect(kindOf(() => parseWrapped(bytes))).toBe("wrapped_key_malformed");
    expect(() => wrapKey(key, id, keyPlace, organizationKey)).toThrow(TypeError);
  }
});

test("a wrapped key has one length, and no key is tried on another", () => {
  for (const bytes of [wrapped.subarray(0, -1), Buffer.concat([wrapped, Buffer.from([0])])]) expect(kindOf(() => parseWrapped(bytes))).toBe("wrapped_key_malformed");
});

test("only whole organization keys are wrapped", () => {
  for (const length of [0, 16, 31, 33]) expect(() => wrapKey(key, "k-1", keyPlace, randomBytes(length))).toThrow(TypeError);
});

test("ciphers are made in one file, and always with a tag length; tokens of another system are only opened, in another", () => {
  const root = new URL("../../src/", import.meta.url);
  const files = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".ts"));
  const users = files.filter((name) => /create(De)?[Cc]ipheriv/.test(readFileSync(new URL(name, root), "utf8")));
  expect(users.toSorted()).toEqual(["crypto/fernet.ts", "crypto/sealed.ts"]);
  expect(readFileSync(new URL("crypto/fernet.ts", root), "utf8")).not.toMatch(/createCipheriv/);
  const calls = readFileSync(new URL("crypto/sealed.ts", root), "utf8").match(/create(De)?[Cc]ipheriv\(.*/g) ?? [];
  expect(calls).toHaveLength(2);
  for (const call of calls) expect(call).toContain("{ authTagLength: TAG_BYTES }");
});
