/**
 * Writes sealed-v1.json, once. The vectors are frozen: whatever they hold must open for ever, so this script does not
 * overwrite them. A new format gets a new file. Run with: node test/vectors/generate.ts
 */
import { writeFileSync } from "node:fs";
import type { SecretDocument, SecretPlace } from "../../src/domain/credential.ts";
import { deriveKeys, toKeyObject } from "../../src/crypto/derive.ts";
import { decodeDocument, encodeDocument } from "../../src/crypto/document.ts";
import { Envelope } from "../../src/crypto/envelope.ts";
import { masterKeyring, type MasterKeyring } from "../../src/crypto/keyring.ts";
import { MemoryKeySource } from "./key-source.ts";
import type { VectorFile } from "./vectors.ts";

const ORGANIZATION_A = "0198c0de-0000-7000-8000-00000000000a";
const ORGANIZATION_B = "0198C0DE-0000-7000-8000-00000000000B";

const MASTER_KEYS = [
  { id: "test-only-1", key: Buffer.from("TEST ONLY: vector master key 001") },
  { id: "T.2_", key: Buffer.from("TEST ONLY: vector master key 002") },
  // Random bytes, which no rule but the list of published keys refuses.
  { id: "test-only-random-and-published-3", key: Buffer.from("7dfWnbcZX7PDxV9qreZIJRb4KRBs4iLUKvP5wYLkDAc=", "base64") },
];

const ORGANIZATION_KEYS = [
  { organizationId: ORGANIZATION_A, version: 1, masterKeyId: "test-only-1", key: Buffer.from("TEST ONLY: organization key A v1") },
  { organizationId: ORGANIZATION_A, version: 2, masterKeyId: "T.2_", key: Buffer.from("TEST ONLY: organization key A v2") },
  { organizationId: ORGANIZATION_B, version: 4294967295, masterKeyId: "test-only-random-and-published-3", key: Buffer.from("TEST ONLY: organization key B v*") },
];

/** A document whose JSON text has exactly this many bytes. */
const sized = (bytes: number): SecretDocument => ({ password: "x".repeat(bytes - '{"password":""}'.length) });

type Case = Omit<SecretPlace, "credentialId"> & { readonly name: string; readonly keyVersion: number; readonly document: SecretDocument };

const PASSWORD = { host: "sftp.example.com", username: "ada", password: "correct horse", port: 22 };
const KEY_FILE = { host: "h", username: "u", private_key_data: "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n" };
const sftp = { organizationId: ORGANIZATION_A, provider: "sftp", credentialType: "user_password", secretVersion: 1n } as const;

const CASES: readonly Case[] = [
  { ...sftp, name: "sftp password", keyVersion: 1, document: PASSWORD },
  { ...sftp, name: "the same place and document, sealed again", keyVersion: 1, document: PASSWORD },
  { ...sftp, name: "members in another order, second organization key", keyVersion: 2, secretVersion: 2n, document: { port: 22, password: "p", username: "u", host: "h" } },
  { ...sftp, name: "key file", keyVersion: 2, credentialType: "key_file", document: KEY_FILE },
  { ...sftp, name: "empty document", keyVersion: 1, provider: "google", credentialType: "api_key", document: {} },
  { ...sftp, name: "empty values", keyVersion: 1, provider: "aws_ses", credentialType: "api_key", document: { "": "", a: [], b: {}, c: null, d: false, e: 0 } },
  {
    ...sftp,
    name: "unicode beyond the basic plane, controls, a lone surrogate, a byte order mark",
    keyVersion: 2,
    provider: "postgresql",
    secretVersion: 18446744073709551615n,
    document: { username: "Žofia 🔑", password: "\u0000\u001f\u007f\u2028\ud800x\ufeff\uffff", "ключ": "鍵", "\ufb33": 1, "😀": 2, ["__proto__"]: 3 },
  },
  {
    organizationId: ORGANIZATION_B,
    name: "oauth, nested, numbers, another organization",
    keyVersion: 4294967295,
    provider: "sharepoint",
    credentialType: "sharepoint_oauth",
    secretVersion: 4294967296n,
    document: { access_token: "at", refresh_token: "rt", expires_in: 3599, extra: { a: [1, 2.5, -0.000001, 1e21, [{ b: null }]] } },
  },
  { ...sftp, name: "last length of the first bucket", keyVersion: 1, document: sized(251) },
  { ...sftp, name: "first length of the second bucket", keyVersion: 1, document: sized(252) },
  { ...sftp, name: "several buckets", keyVersion: 2, provider: "microsoft", credentialType: "oauth2", document: sized(3000) },
];

const keyrings = new Map<string, MasterKeyring>(
  MASTER_KEYS.map(({ id }) => [id, masterKeyring(new Map(MASTER_KEYS.map((other) => [other.id, toKeyObject(Buffer.from(other.key))])), id)]),
);

const keyringOf = (id: string): MasterKeyring => {
  const keyring = keyrings.get(id);
  if (!keyring) throw new Error(`no master key ${id}`);
  return keyring;
};

const organizationKeys = ORGANIZATION_KEYS.map(({ organizationId, version, masterKeyId, key }) => {
  const { commitment, fingerprint } = deriveKeys(key);
  const wrapped = keyringOf(masterKeyId).wrap(key, { organizationId, version });
  return { organizationId, version, masterKeyId, key, wrapped, commitment, fingerprintKey: fingerprint.export() };
});

async function seal(test: Case, index: number) {
  const { organizationId, provider, credentialType, secretVersion, keyVersion } = test;
  const credentialId = `0198c0de-1111-7000-8000-${String(index).padStart(12, "0")}`;
  const row = organizationKeys.find((key) => key.organizationId === organizationId && key.version === keyVersion);
  if (!row) throw new Error(`no organization key ${keyVersion}`);
  const envelope = new Envelope({ keyring: keyringOf(row.masterKeyId), keys: new MemoryKeySource([row]), maxEntries: 1, maxAgeMs: 1000 });
  const place = { organizationId, credentialId, provider, credentialType, secretVersion };
  const plaintext = encodeDocument(test.document);
  return {
    name: test.name,
    organization_id: organizationId,
    credential_id: credentialId,
    provider,
    type: credentialType,
    secret_version: String(secretVersion),
    organization_key_version: keyVersion,
    json: plaintext.toString("utf8", 5, 5 + plaintext.readUInt32BE(1)),
    document: decodeDocument(plaintext),
    sealed: (await envelope.seal(place, test.document)).toString("base64"),
  };
}

const file: VectorFile = {
  warning: "TEST ONLY. Every key in this file is published, and the service refuses these master keys.",
  master_keys: MASTER_KEYS.map(({ id, key }) => ({ id, key: key.toString("base64"), check_value: keyringOf(id).checkValue(id).toString("base64") })),
  organization_keys: organizationKeys.map((row) => ({
    organization_id: row.organizationId,
    version: row.version,
    master_key_id: row.masterKeyId,
    key: row.key.toString("base64"),
    commitment: row.commitment.toString("base64"),
    fingerprint_key: row.fingerprintKey.toString("base64"),
    wrapped: row.wrapped.toString("base64"),
  })),
  secrets: await Promise.all(CASES.map(seal)),
};

writeFileSync(new URL("sealed-v1.json", import.meta.url), `${JSON.stringify(file, null, 2)}\n`, { flag: "wx" });
