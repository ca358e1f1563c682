import { createSecretKey, randomBytes } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import { decodeDocument, encodeDocument } from "../../src/crypto/document.ts";
import { Envelope } from "../../src/crypto/envelope.ts";
import { parseMasterKeys } from "../../src/crypto/keyring.ts";
import { openSecret, parseSealed, sealSecret } from "../../src/crypto/sealed.ts";
import { UnreadableError } from "../../src/crypto/unreadable.ts";
import { CREDENTIAL_TYPES, PROVIDERS, type SecretDocument, type SecretPlace } from "../../src/domain/credential.ts";
import { MemoryKeySource } from "../vectors/key-source.ts";

const long = process.env["FLOW_TEST_LONG"] !== undefined;
const numRuns = long ? 1_000_000 : 20_000;
const timeout = long ? 1_200_000 : 60_000;
const BUCKET_BYTES = 256;
/** Header, IV and tag. */
const OVERHEAD_BYTES = 7 + 12 + 16;

/** Any UTF-16 text, lone surrogates included. */
const text = fc.string({ unit: fc.integer({ min: 0, max: 0xffff }).map((unit) => String.fromCharCode(unit)), maxLength: 12 });
const { value: json } = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 3, depthIdentifier: "json" },
    text,
    fc.integer(),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.boolean(),
    fc.constant(null),
    fc.array(tie("value"), { maxLength: 3, depthIdentifier: "json" }),
    fc.dictionary(text, tie("value"), { maxKeys: 3, depthIdentifier: "json" }),
  ),
}));
const document: fc.Arbitrary<SecretDocument> = fc.dictionary(text, json, { maxKeys: 4 });
const organizations = Array.from({ length: 5 }, (_, index) => `0198c0de-0000-7000-8000-00000000000${index}`);
const place: fc.Arbitrary<SecretPlace> = fc.record({
  organizationId: fc.constantFrom(...organizations),
  credentialId: fc.uuid(),
  provider: fc.constantFrom(...PROVIDERS),
  credentialType: fc.constantFrom(...CREDENTIAL_TYPES),
  secretVersion: fc.bigInt({ min: 1n, max: 2n ** 64n - 1n }),
});

const somewhere: SecretPlace = {
  organizationId: "0198c0de-0000-7000-8000-000000000000",
  credentialId: "0198c0de-1111-7000-8000-000000000000",
  provider: "sftp",
  credentialType: "key_file",
  secretVersion: 1n,
};

const keyring = parseMasterKeys(`m1:${randomBytes(32).toString("base64")}`, "m1");
const envelope = new Envelope({ keyring, keys: new MemoryKeySource(), maxEntries: 3, maxAgeMs: 60_000 });
/** JSON has one zero. */
const asJson = (value: SecretDocument): unknown => JSON.parse(JSON.stringify(value));

test("any document opens at its place to what was sealed, and its size is a bucket", { timeout }, async () => {
  await fc.assert(
    fc.asyncProperty(place, document, async (at, value) => {
      const sealed = await envelope.seal(at, value);
      expect((sealed.length - OVERHEAD_BYTES) % BUCKET_BYTES).toBe(0);
      expect(await envelope.open(at, sealed)).toEqual(asJson(value));
    }),
    { numRuns },
  );
});

test("one document has one text, whatever the order of its members", { timeout }, () => {
  fc.assert(
    fc.property(document, (value) => {
      const reversed = Object.fromEntries(Object.entries(value).reverse());
      return encodeDocument(reversed).equals(encodeDocument(value)) && encodeDocument(decodeDocument(encodeDocument(value))).equals(encodeDocument(value));
    }),
    { numRuns },
  );
});

test("a secret opens at no other place", { timeout }, async () => {
  await fc.assert(
    fc.asyncProperty(place, place, async (at, other) => {
      fc.pre(at.credentialId !== other.credentialId);
      const sealed = await envelope.seal(at, { password: "p" });
      await expect(envelope.open({ ...other, organizationId: at.organizationId }, sealed)).rejects.toMatchObject({ reason: "SECRET_UNREADABLE" });
    }),
    { numRuns: numRuns / 10 },
  );
});

test("bytes that nobody sealed never open, and never fail in another way than the typed one", { timeout }, () => {
  const prefix = Buffer.from([0xc5, 1, 1, 0, 0, 0, 1]);
  const bytes = fc.uint8Array({ maxLength: 80 }).map((tail) => Buffer.from(tail));
  const key = createSecretKey(randomBytes(32));
  fc.assert(
    fc.property(fc.oneof(bytes, bytes.map((tail) => Buffer.concat([prefix, tail]))), (stored) => {
      expect(() => openSecret(key, somewhere, parseSealed(stored))).toThrow(UnreadableError);
    }),
    { numRuns },
  );
});

test("one value sealed again and again never repeats an IV, a ciphertext or a tag", { timeout }, () => {
  const count = long ? 1_000_000 : 100_000;
  const key = createSecretKey(randomBytes(32));
  const plaintext = Buffer.alloc(BUCKET_BYTES);
  const seen = { ivs: new Set<string>(), ciphertexts: new Set<string>(), tags: new Set<string>() };
  for (let index = 0; index < count; index++) {
    const sealed = sealSecret(key, 1, somewhere, plaintext);
    seen.ivs.add(sealed.toString("latin1", 7, 19));
    seen.ciphertexts.add(sealed.toString("latin1", 19, 35));
    seen.tags.add(sealed.toString("latin1", sealed.length - 16));
  }
  expect([seen.ivs.size, seen.ciphertexts.size, seen.tags.size]).toEqual([count, count, count]);
});
