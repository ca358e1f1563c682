import { execFile, spawnSync } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { deriveKeys, toKeyObject } from "../../src/crypto/derive.ts";
import { encodeDocument } from "../../src/crypto/document.ts";
import { Envelope } from "../../src/crypto/envelope.ts";
import { masterKeyring, wrappingKeyId } from "../../src/crypto/keyring.ts";
import { parseSealed } from "../../src/crypto/sealed.ts";
import { CREDENTIAL_TYPES, PROVIDERS } from "../../src/domain/credential.ts";
import { MemoryKeySource } from "../vectors/key-source.ts";
import { placeOf, readVectors, type SecretVector, storedKeys, type VectorFile } from "../vectors/vectors.ts";

const vectors = readVectors();
const bytes = (base64: string): Buffer => Buffer.from(base64, "base64");
const master = (file: VectorFile) => masterKeyring(new Map(file.master_keys.map(({ id, key }) => [id, toKeyObject(bytes(key))])), "test-only-1");
const envelopeOf = (file: VectorFile) => new Envelope({ keyring: master(file), keys: new MemoryKeySource(storedKeys(file)), maxEntries: 10, maxAgeMs: 60_000 });

const PYTHON = "/usr/bin/python3";
const READER = fileURLToPath(new URL("../vectors/read_vectors.py", import.meta.url));
const readable = spawnSync(PYTHON, ["-c", "import cryptography.hazmat.primitives.ciphers.aead"]).status === 0;
const read = async (...args: string[]): Promise<string> => (await promisify(execFile)(PYTHON, [READER, ...args])).stdout;

test.each(vectors.secrets)("opens the frozen secret: $name", async (vector) => {
  const document = await envelopeOf(vectors).open(placeOf(vector), bytes(vector.sealed));
  expect(document).toEqual(vector.document);
  const plaintext = encodeDocument(document);
  expect(plaintext.toString("utf8", 5, 5 + plaintext.readUInt32BE(1))).toBe(vector.json);
  expect(parseSealed(bytes(vector.sealed)).organizationKeyVersion).toBe(vector.organization_key_version);
});

test.each(vectors.organization_keys)("unwraps the frozen key $master_key_id of version $version, and derives what it derived", (vector) => {
  const key = master(vectors).unwrap(bytes(vector.wrapped), { organizationId: vector.organization_id, version: vector.version });
  expect(key.toString("base64")).toBe(vector.key);
  const { commitment, fingerprint } = deriveKeys(key);
  expect(commitment.toString("base64")).toBe(vector.commitment);
  expect(fingerprint.export().toString("base64")).toBe(vector.fingerprint_key);
  expect(wrappingKeyId(bytes(vector.wrapped))).toBe(vector.master_key_id);
});

test.each(vectors.master_keys)("gives the frozen check value of $id", ({ id, check_value }) => {
  expect(master(vectors).checkValue(id).toString("base64")).toBe(check_value);
});

test("the vectors say that their keys are for tests only", () => {
  expect(vectors.warning).toMatch(/^TEST ONLY/);
  for (const { id } of vectors.master_keys.filter((row) => row.id.length > 4)) expect(id).toMatch(/^test-only/);
});

test.skipIf(!readable)("an independent reader opens the frozen vectors, and none that was altered (needs the Debian package python3-cryptography)", async () => {
  expect(await read()).toMatch(/^3 keys and 11 secrets open, \d{4,} altered ones do not\n$/);
});

/** What this process seals now, in the shape of the committed file. */
async function sealNow(): Promise<VectorFile> {
  const organization = randomUUID();
  const masterKey = randomBytes(32);
  const keyring = masterKeyring(new Map([["now", toKeyObject(Buffer.from(masterKey))]]), "now");
  const source = new MemoryKeySource();
  const envelope = new Envelope({ keyring, keys: source, maxEntries: 10, maxAgeMs: 60_000 });
  const pairs = PROVIDERS.flatMap((provider) => CREDENTIAL_TYPES.map((type) => ({ provider, type })));
  const sealing = pairs.map(async ({ provider, type }, index): Promise<SecretVector> => {
    const document = { [`${provider}/${type}`]: "ž".repeat(index * 40), list: [index, null] };
    const plaintext = encodeDocument(document);
    const vector = { name: `${provider} ${type}`, organization_id: organization, credential_id: randomUUID(), provider, type };
    const place = { organizationId: organization, credentialId: vector.credential_id, provider, credentialType: type, secretVersion: BigInt(index + 1) };
    const sealed = (await envelope.seal(place, document)).toString("base64");
    const json = plaintext.toString("utf8", 5, 5 + plaintext.readUInt32BE(1));
    return { ...vector, secret_version: String(index + 1), organization_key_version: 1, json, document, sealed };
  });
  const secrets = await Promise.all(sealing);
  return {
    warning: "TEST ONLY",
    master_keys: [{ id: "now", key: masterKey.toString("base64"), check_value: keyring.checkValue("now").toString("base64") }],
    organization_keys: source.rows.map(({ version, wrapped, commitment }) => {
      const key = keyring.unwrap(wrapped ?? Buffer.alloc(0), { organizationId: organization, version });
      const texts = { key: key.toString("base64"), commitment: commitment.toString("base64"), wrapped: wrapped?.toString("base64") ?? "" };
      return { organization_id: organization, version, master_key_id: "now", fingerprint_key: deriveKeys(key).fingerprint.export().toString("base64"), ...texts };
    }),
    secrets,
  };
}

test.skipIf(!readable)("an independent reader opens what is sealed now, for every provider and type (needs the Debian package python3-cryptography)", async () => {
  const folder = mkdtempSync(join(tmpdir(), "flow-credentials-vectors-"));
  try {
    const file = join(folder, "sealed-now.json");
    writeFileSync(file, JSON.stringify(await sealNow()), { mode: 0o600 });
    expect(await read(file)).toMatch(/^1 keys and 42 secrets open/);
  } finally {
    rmSync(folder, { recursive: true });
  }
}, 120_000);
