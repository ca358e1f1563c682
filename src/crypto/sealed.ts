/**
 * The two kinds of bytes that are stored. All numbers are big-endian; `alg` 1 is AES-256-GCM (NIST SP 800-38D) with a
 * random 96-bit IV and a 128-bit tag; the header is every byte before the IV and is authenticated with the rest of the
 * binding (aad.ts).
 *
 *     sealed secret             0xC5 | ver u8 = 1 | alg u8 = 1 | organization key version u32 | iv 12 | ciphertext | tag 16
 *     wrapped organization key  0xC4 | ver u8 = 1 | alg u8 = 1 | length of kid u8 | kid | iv 12 | ciphertext 32 | tag 16
 *     the same by a key service 0xC4 | ver u8 = 1 | alg u8 = 2 | length of kid u8 | kid | 1 to 4096 bytes of the service
 *
 * `kid` is the id of the master key: 1 to 32 characters, a letter or digit first, then letters, digits, `.`, `_`, `-`.
 * The plaintext of a secret is described in document.ts; the plaintext of a wrapped key is the 32 bytes of the key.
 *
 * One key is chosen, by the version or id in the header, and one attempt is made.
 */
import { createCipheriv, createDecipheriv, type KeyObject, randomBytes } from "node:crypto";
import type { AuthorizationPlace, SecretPlace } from "../domain/credential.ts";
import { encodeAad, NO_CREDENTIAL } from "./aad.ts";
import { UnreadableError } from "./unreadable.ts";

const SEALED_MAGIC = 0xc5;
const WRAPPED_MAGIC = 0xc4;
const FORMAT_VERSION = 1;
/** `alg` of bytes that this process encrypts itself. */
export const AES_256_GCM = 1;
/** `alg` of an organization key that a key service wraps: what follows the header is the service's own, and opaque. */
export const KEY_SERVICE = 2;
const SEALED_HEADER_BYTES = 7;
const WRAPPED_FIXED_BYTES = 4;
const IV_BYTES = 12;
const TAG_BYTES = 16;
const MASTER_KEY_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$/;

/** Largest answer of a key service that is kept, bytes. */
export const MAX_SERVICE_BYTES = 4_096;

/** Size of every key: master keys, organization keys and those derived from them. */
export const KEY_BYTES = 32;

/**
 * Whether a text may be the id of a master key. No longer than 32 characters, so that a key pasted where its id belongs
 * is never taken for an id, and printed.
 */
export const isMasterKeyId = (text: string): boolean => MASTER_KEY_ID.test(text);

/** A sealed secret whose shape was checked. Says nothing about its authenticity. */
export interface SealedSecret {
  /** Version of the organization key that it claims to be sealed with. */
  readonly organizationKeyVersion: number;
  readonly header: Buffer;
  /** IV, ciphertext and tag. */
  readonly body: Buffer;
}

/** A wrapped organization key whose shape was checked. Says nothing about its authenticity. */
export interface WrappedKey {
  /** Master key that it claims to be wrapped under. */
  readonly masterKeyId: string;
  /** {@link AES_256_GCM} or {@link KEY_SERVICE}. */
  readonly algorithm: number;
  readonly header: Buffer;
  /** IV, ciphertext and tag; or what the key service gave. */
  readonly body: Buffer;
}

/** The only place where sealed bytes open. */
export type SealedPlace = SecretPlace | AuthorizationPlace;

/** The only place where a wrapped organization key unwraps. */
export interface KeyPlace {
  readonly organizationId: string;
  /** Version of the organization key, u32. */
  readonly version: number;
}

/** Reads the shape of a sealed secret. Throws UnreadableError `malformed`. */
export function parseSealed(bytes: Buffer): SealedSecret {
  if (bytes.length < SEALED_HEADER_BYTES + IV_BYTES + TAG_BYTES || !isOurs(bytes, SEALED_MAGIC)) throw new UnreadableError("malformed");
  return {
    organizationKeyVersion: bytes.readUInt32BE(3),
    header: bytes.subarray(0, SEALED_HEADER_BYTES),
    body: bytes.subarray(SEALED_HEADER_BYTES),
  };
}

/** Seals a secret for one place under one version (u32) of its organization's key. */
export function sealSecret(key: KeyObject, organizationKeyVersion: number, place: SealedPlace, plaintext: Buffer): Buffer {
  const header = Buffer.from([SEALED_MAGIC, FORMAT_VERSION, AES_256_GCM, 0, 0, 0, 0]);
  header.writeUInt32BE(organizationKeyVersion, 3);
  return Buffer.concat([header, encrypt(key, secretAad(place, header), plaintext)]);
}

/** Opens a sealed secret. The caller wipes what it gets. Throws UnreadableError `not_authentic`. */
export function openSecret(key: KeyObject, place: SealedPlace, sealed: SealedSecret): Buffer {
  const plaintext = decrypt(key, secretAad(place, sealed.header), sealed.body);
  if (!plaintext) throw new UnreadableError("not_authentic");
  return plaintext;
}

/** Reads the shape of a wrapped organization key. Throws UnreadableError `wrapped_key_malformed`. */
export function parseWrapped(bytes: Buffer): WrappedKey {
  const algorithm = bytes[2] ?? 0;
  if (bytes.length < WRAPPED_FIXED_BYTES || bytes[0] !== WRAPPED_MAGIC || bytes[1] !== FORMAT_VERSION) throw new UnreadableError("wrapped_key_malformed");
  const headerBytes = WRAPPED_FIXED_BYTES + bytes.readUInt8(3);
  const masterKeyId = bytes.toString("latin1", WRAPPED_FIXED_BYTES, headerBytes);
  const bodyBytes = bytes.length - headerBytes;
  const exact = algorithm === KEY_SERVICE ? bodyBytes >= 1 && bodyBytes <= MAX_SERVICE_BYTES : algorithm === AES_256_GCM && bodyBytes === IV_BYTES + KEY_BYTES + TAG_BYTES;
  if (!exact || !isMasterKeyId(masterKeyId)) throw new UnreadableError("wrapped_key_malformed");
  return { masterKeyId, algorithm, header: bytes.subarray(0, headerBytes), body: bytes.subarray(headerBytes) };
}

/** The header that precedes what a key service gives for a key. */
export function serviceHeader(masterKeyId: string): Buffer {
  return Buffer.concat([Buffer.from([WRAPPED_MAGIC, FORMAT_VERSION, KEY_SERVICE, masterKeyId.length]), Buffer.from(masterKeyId, "latin1")]);
}

/** The header of stored bytes of either kind, as far as they have one; for the digest of a proof. */
export function headerOf(bytes: Buffer): Buffer {
  return bytes.subarray(0, bytes[0] === WRAPPED_MAGIC ? WRAPPED_FIXED_BYTES + (bytes[3] ?? 0) : SEALED_HEADER_BYTES);
}

/** What a wrapped organization key is bound to; a key service authenticates the same. */
export const keyBinding = (place: KeyPlace, header: Buffer): Buffer => keyAad(place, header);

/** Wraps the 32 bytes of an organization key under a master key. */
export function wrapKey(masterKey: KeyObject, masterKeyId: string, place: KeyPlace, key: Buffer): Buffer {
  if (key.length !== KEY_BYTES) throw new TypeError("an organization key has 32 bytes");
  if (!isMasterKeyId(masterKeyId)) throw new TypeError("the id of a master key is not well-formed");
  const header = Buffer.concat([Buffer.from([WRAPPED_MAGIC, FORMAT_VERSION, AES_256_GCM, masterKeyId.length]), Buffer.from(masterKeyId, "latin1")]);
  return Buffer.concat([header, encrypt(masterKey, keyAad(place, header), key)]);
}

/** Unwraps an organization key. The caller wipes what it gets. Throws UnreadableError `wrapped_key_not_authentic`, and `wrapped_key_malformed` for one of a key service. */
export function unwrapKey(masterKey: KeyObject, place: KeyPlace, wrapped: WrappedKey): Buffer {
  if (wrapped.algorithm !== AES_256_GCM) throw new UnreadableError("wrapped_key_malformed");
  const key = decrypt(masterKey, keyAad(place, wrapped.header), wrapped.body);
  if (!key) throw new UnreadableError("wrapped_key_not_authentic");
  return key;
}

const isOurs = (bytes: Buffer, magic: number): boolean => bytes[0] === magic && bytes[1] === FORMAT_VERSION && bytes[2] === AES_256_GCM;

function secretAad(place: SealedPlace, header: Buffer): Buffer {
  if ("authorizationId" in place) {
    const { organizationId, authorizationId, provider } = place;
    return encodeAad({ purpose: "authorization", organizationId, credentialId: authorizationId, provider, type: "", secretVersion: 0n, header });
  }
  const { organizationId, credentialId, provider, credentialType: type, secretVersion } = place;
  return encodeAad({ purpose: "secret", organizationId, credentialId, provider, type, secretVersion, header });
}

function keyAad(place: KeyPlace, header: Buffer): Buffer {
  const { organizationId, version } = place;
  return encodeAad({ purpose: "organization-key", organizationId, credentialId: NO_CREDENTIAL, provider: "", type: "", secretVersion: BigInt(version), header });
}

/** Gives IV, ciphertext and tag. The IV is drawn here and cannot be handed in: a repeated one would lay the key's plaintexts open. */
function encrypt(key: KeyObject, aad: Buffer, plaintext: Buffer): Buffer {
  const iv = randomBytes(IV_BYTES);
  const cipher = createCipheriv("aes-256-gcm", key, iv, { authTagLength: TAG_BYTES });
  cipher.setAAD(aad);
  return Buffer.concat([iv, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
}

/** Takes IV, ciphertext and tag; undefined where they do not authenticate. */
function decrypt(key: KeyObject, aad: Buffer, body: Buffer): Buffer | undefined {
  const ciphertext = body.subarray(IV_BYTES, -TAG_BYTES);
  // Without authTagLength Node takes tags of 4 bytes too, which can be guessed.
  const decipher = createDecipheriv("aes-256-gcm", key, body.subarray(0, IV_BYTES), { authTagLength: TAG_BYTES });
  decipher.setAAD(aad);
  decipher.setAuthTag(body.subarray(-TAG_BYTES));
  const plaintext = decipher.update(ciphertext);
  try {
    decipher.final();
    return plaintext;
  } catch {
    // Nothing that was not authenticated stays behind.
    plaintext.fill(0);
    return undefined;
  }
}
