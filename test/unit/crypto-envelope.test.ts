import { createSecretKey, randomBytes, randomUUID } from "node:crypto";
import { inspect } from "node:util";
import { beforeEach, describe, expect, test } from "vitest";
import { deriveKeys, toKeyObject } from "../../src/crypto/derive.ts";
import { Envelope } from "../../src/crypto/envelope.ts";
import { type KeyWrapping, masterKeyring, parseMasterKeys } from "../../src/crypto/keyring.ts";
import type { StoredOrganizationKey } from "../../src/crypto/organization-keys.ts";
import { KeyRing, localMasterKey } from "../../src/crypto/ring.ts";
import { sealSecret } from "../../src/crypto/sealed.ts";
import { UNREADABLE_KINDS, UnreadableError, type UnreadableKind } from "../../src/crypto/unreadable.ts";
import { MAX_SECRET_BYTES, type SecretPlace } from "../../src/domain/credential.ts";
import { CredentialError, fail } from "../../src/domain/errors.ts";
import { MemoryKeySource } from "../vectors/key-source.ts";

const keyring = parseMasterKeys(`m1:${randomBytes(32).toString("base64")}`, "m1");
const document = { host: "sftp.example.com", password: "canary-8d0c1f" };

let source: MemoryKeySource;
let place: SecretPlace;

const envelopeWith = (keys = source, ring: KeyWrapping = keyring) => new Envelope({ keyring: ring, keys, maxEntries: 100, maxAgeMs: 60_000 });

beforeEach(() => {
  source = new MemoryKeySource();
  place = { organizationId: randomUUID(), credentialId: randomUUID(), provider: "sftp", credentialType: "user_password", secretVersion: 1n };
});

async function failureOf(work: Promise<unknown>): Promise<CredentialError> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof CredentialError)) throw new Error("expected a CredentialError");
  return error;
}

const onlyRow = (): StoredOrganizationKey & { readonly wrapped: Buffer } => {
  const [row] = source.rows;
  if (!row?.wrapped) throw new Error("expected a stored key");
  return { ...row, wrapped: row.wrapped };
};

/** Seals anything with the organization's real key, as only a holder of the keys could. */
function sealAnything(plaintext: Buffer): Buffer {
  const row = onlyRow();
  return sealSecret(deriveKeys(keyring.unwrap(row.wrapped, row)).sealing, row.version, place, plaintext);
}

test("another process opens what one sealed, with the row alone", async () => {
  const sealed = await envelopeWith().seal(place, document);
  expect(await envelopeWith().open(place, sealed)).toEqual(document);
});

test("50 callers who seal and open for a new organization at once all succeed under one key", async () => {
  const envelopes = [envelopeWith(), envelopeWith()];
  const outcomes = await Promise.all(
    Array.from({ length: 50 }, async (_, index) => {
      const at = { ...place, credentialId: randomUUID() };
      const sealed = await envelopes[index % 2]?.seal(at, { index });
      return envelopes[(index + 1) % 2]?.open(at, sealed ?? Buffer.alloc(0));
    }),
  );
  expect(outcomes).toEqual(outcomes.map((_, index) => ({ index })));
  expect(source.rows).toHaveLength(1);
});

test("sealing counts and opening counts", async () => {
  const envelope = envelopeWith();
  const sealed = await envelope.seal(place, document);
  await envelope.open(place, sealed);
  await envelope.open(place, sealed);
  expect(envelope.counters).toMatchObject({ sealed: 1, opened: 2 });
  expect(Object.keys(envelope.counters.failed)).toEqual([...UNREADABLE_KINDS]);
});

test("a sealed value shows neither its document nor its key", async () => {
  const sealed = await envelopeWith().seal(place, document);
  expect(sealed.includes("canary")).toBe(false);
  expect(sealed.includes("password")).toBe(false);
});

describe("the ways to fail", () => {
  /** How each kind comes about: stored bytes are altered, and then opened by a process with nothing cached. */
  const ways: Record<UnreadableKind, (sealed: Buffer) => { sealed?: Buffer; ring?: KeyWrapping }> = {
    malformed: (sealed) => ({ sealed: sealed.subarray(1) }),
    unknown_organization_key: (sealed) => {
      const renamed = Buffer.from(sealed);
      renamed.writeUInt32BE(9, 3);
      return { sealed: renamed };
    },
    wrapped_key_malformed: () => {
      source.replace({ ...onlyRow(), wrapped: Buffer.from("not a key") });
      return {};
    },
    retired_master_key: () => {
      const ring = new KeyRing([localMasterKey("m2", toKeyObject(randomBytes(32)))], "m2");
      ring.assign({ primaryId: "m2", retiredIds: ["m1"] });
      return { ring };
    },
    retired_organization_key: () => {
      source.replace({ ...onlyRow(), retired: true });
      return {};
    },
    unknown_master_key: () => ({ ring: parseMasterKeys(`m2:${randomBytes(32).toString("base64")}`, "m2") }),
    wrapped_key_not_authentic: () => ({ ring: parseMasterKeys(`m1:${randomBytes(32).toString("base64")}`, "m1") }),
    wrong_commitment: () => {
      source.replace({ ...onlyRow(), commitment: randomBytes(32) });
      return {};
    },
    not_authentic: (sealed) => ({ sealed: Buffer.concat([sealed.subarray(0, -1), Buffer.from([(sealed.at(-1) ?? 0) ^ 1])]) }),
    malformed_document: () => ({ sealed: sealAnything(Buffer.from("canary, and not a document")) }),
  };

  test.each(UNREADABLE_KINDS)("%s is counted as itself and looks to a caller like every other", async (kind) => {
    const sealed = await envelopeWith().seal(place, document);
    const altered = ways[kind](sealed);
    const envelope = envelopeWith(source, altered.ring);
    const failure = await failureOf(envelope.open(place, altered.sealed ?? sealed));
    expect(failure.cause).toBeInstanceOf(UnreadableError);
    expect(failure.cause).toMatchObject({ code: kind });
    expect(envelope.counters.failed).toEqual({ ...envelopeWith().counters.failed, [kind]: 1 });
    expect(envelope.counters.opened).toBe(0);
    const { reason, message, violations, incident } = failure;
    const outside = { reason: "SECRET_UNREADABLE", message: "The stored secret cannot be opened", violations: [], incident: undefined };
    expect({ reason, message, violations, incident }).toEqual(outside);
    expect(inspect(failure, { depth: 9, showHidden: true })).not.toContain("canary");
  });

  test.each<[string, (right: Buffer) => Buffer]>([
    ["nothing", () => Buffer.alloc(0)],
    ["one byte short", (right) => right.subarray(0, 31)],
    ["one byte long", (right) => Buffer.concat([right, Buffer.from([0])])],
  ])("a commitment that is %s is a wrong one", async (_, change) => {
    const sealed = await envelopeWith().seal(place, document);
    source.replace({ ...onlyRow(), commitment: change(onlyRow().commitment) });
    expect((await failureOf(envelopeWith().open(place, sealed))).cause).toMatchObject({ code: "wrong_commitment" });
  });
});

test("a key that was put in the place of another is refused by its commitment before it opens anything", async () => {
  await envelopeWith().seal(place, document);
  const planted = randomBytes(32);
  const row = onlyRow();
  source.replace({ ...row, wrapped: keyring.wrap(planted, row) });
  const forged = sealSecret(deriveKeys(planted).sealing, row.version, place, Buffer.alloc(256));
  const envelope = envelopeWith();
  expect((await failureOf(envelope.open(place, forged))).cause).toMatchObject({ code: "wrong_commitment" });
  expect((await failureOf(envelope.seal(place, document))).cause).toMatchObject({ code: "wrong_commitment" });
  expect(envelope.counters.sealed).toBe(0);
});

test("another organization's key row does not serve this one", async () => {
  const envelope = envelopeWith();
  const other = { ...place, organizationId: randomUUID() };
  const sealed = await envelope.seal(place, document);
  source.rows.push({ ...onlyRow(), organizationId: other.organizationId });
  expect((await failureOf(envelope.open(other, sealed))).cause).toMatchObject({ code: "wrapped_key_not_authentic" });
});

test("a source that answers with another organization's row is not believed", async () => {
  await envelopeWith().seal(place, document);
  source.current = async () => onlyRow();
  const failure = await failureOf(envelopeWith().seal({ ...place, organizationId: randomUUID() }, document));
  expect(failure.cause).toMatchObject({ code: "wrapped_key_not_authentic" });
});

test.each<[string, Partial<SecretPlace>]>([
  ["credential", { credentialId: randomUUID() }],
  ["provider", { provider: "postgresql" }],
  ["type", { credentialType: "key_file" }],
  ["secret version", { secretVersion: 2n }],
])("a secret that was moved to another %s of its organization does not open", async (_, change) => {
  const envelope = envelopeWith();
  const sealed = await envelope.seal(place, document);
  expect((await failureOf(envelope.open({ ...place, ...change }, sealed))).cause).toMatchObject({ code: "not_authentic" });
});

test("a secret stays readable under its old key version after a newer one seals", async () => {
  const before = await envelopeWith().seal(place, document);
  const next = { organizationId: place.organizationId, version: 2 };
  const raw = randomBytes(32);
  source.rows.push({ ...next, wrapped: keyring.wrap(raw, next), commitment: deriveKeys(raw).commitment });
  const envelope = envelopeWith();
  const after = await envelope.seal(place, document);
  expect([before.readUInt32BE(3), after.readUInt32BE(3)]).toEqual([1, 2]);
  expect(await envelope.open(place, before)).toEqual(document);
  expect(await envelope.open(place, after)).toEqual(document);
});

test("a destroyed organization is said to be destroyed, and is no unreadable secret", async () => {
  const sealed = await envelopeWith().seal(place, document);
  source.replace({ ...onlyRow(), wrapped: null });
  const envelope = envelopeWith();
  expect((await failureOf(envelope.open(place, sealed))).reason).toBe("ORGANIZATION_DESTROYED");
  expect((await failureOf(envelope.seal(place, document))).reason).toBe("ORGANIZATION_DESTROYED");
  expect(envelope.counters.failed).toEqual(envelopeWith().counters.failed);
});

test("an eviction makes the next call read the key again", async () => {
  const envelope = envelopeWith();
  const sealed = await envelope.seal(place, document);
  source.replace({ ...onlyRow(), wrapped: null });
  expect(await envelope.open(place, sealed)).toEqual(document);
  envelope.evict(place.organizationId);
  expect((await failureOf(envelope.open(place, sealed))).reason).toBe("ORGANIZATION_DESTROYED");
});

test("a document that is too large makes no key and is the caller's fault", async () => {
  const failure = await failureOf(envelopeWith().seal(place, { p: "x".repeat(MAX_SECRET_BYTES) }));
  expect(failure.reason).toBe("INVALID_CREDENTIALS");
  expect(failure.violations).toEqual([expect.objectContaining({ path: ["credentials"] })]);
  expect(source.rows).toHaveLength(0);
});

test("a failing database is not taken for an unreadable secret", async () => {
  source.byVersion = async () => Promise.reject(fail("DATABASE_UNAVAILABLE"));
  const envelope = envelopeWith();
  const sealed = sealSecret(createSecretKey(randomBytes(32)), 1, place, Buffer.alloc(256));
  expect((await failureOf(envelope.open(place, sealed))).reason).toBe("DATABASE_UNAVAILABLE");
  expect(envelope.counters.failed).toEqual(envelopeWith().counters.failed);
});

test("after the master keys changed hands, an old secret opens and a new organization is wrapped under the new primary", async () => {
  const [first, second] = [createSecretKey(randomBytes(32)), createSecretKey(randomBytes(32))];
  const sealed = await envelopeWith(source, masterKeyring(new Map([["old", first]]), "old")).seal(place, document);
  const both = masterKeyring(new Map([["old", first], ["new", second]]), "new");
  const envelope = envelopeWith(source, both);
  expect(await envelope.open(place, sealed)).toEqual(document);
  await envelope.seal({ ...place, organizationId: randomUUID() }, document);
  expect(source.rows.map((row) => (row as { masterKeyId?: string }).masterKeyId)).toEqual(["old", "new"]);
});
