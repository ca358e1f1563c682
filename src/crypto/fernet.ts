/**
 * Reads tokens of Fernet (https://github.com/fernet/spec), from which secrets are imported. There is no way to make one, and
 * nothing of the service reads one: a key of this kind is AES-128-CBC with HMAC-SHA-256, and binds a token to no place.
 *
 *     key    32 bytes, base64url with padding:  signing key 16 | encryption key 16
 *     token  base64url with padding:            0x80 | timestamp u64, big-endian, s | iv 16 | ciphertext, a multiple of 16 | HMAC 32
 */
import { createDecipheriv, createHmac, createSecretKey, type KeyObject, timingSafeEqual } from "node:crypto";
import { masterKeyCheckValue, toKeyObject } from "./derive.ts";
import { KEY_BYTES } from "./sealed.ts";

const VERSION = 0x80;
const TIME_BYTES = 8;
const IV_BYTES = 16;
const BLOCK_BYTES = 16;
const MAC_BYTES = 32;
const HEAD_BYTES = 1 + TIME_BYTES + IV_BYTES;

/** How far in the future a token may be where its age matters, s (section "Verifying" of the specification). */
const MAX_SKEW_SECONDS = 60;

/** A token that does not open, or a key that is none. Says nothing more: which check failed is nobody's to know. */
export class FernetError extends Error {
  override readonly name = "FernetError";
}

/** One Fernet key in its two halves. */
export interface FernetKey {
  readonly signing: KeyObject;
  readonly encryption: KeyObject;
  /** What a master key of the same bytes would be known by; reveals nothing of the key. */
  readonly checkValue: Buffer;
}

/** What was in a token. */
export interface FernetToken {
  /** The caller wipes it. */
  readonly plaintext: Buffer;
  /** When it was made, as the token says. */
  readonly sealedAt: Date;
}

/** How old a token may be, and at what time that is asked. */
export interface Freshness {
  readonly ttlSeconds: number;
  readonly now: Date;
}

/** Reads base64url with padding in its one canonical spelling (RFC 4648 section 5); undefined for anything else. */
function decoded(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, "base64url");
  const padded = bytes.toString("base64url").padEnd(Math.ceil(bytes.length / 3) * 4, "=");
  return padded === text ? bytes : undefined;
}

/** Reads keys, one a line or separated by commas, newest first, as MultiFernet takes them. Throws FernetError, which names the place of a key that is none. */
export function readFernetKeys(text: string): FernetKey[] {
  const entries = text.split(/[\s,]+/).filter((entry) => entry !== "");
  if (entries.length === 0) throw new FernetError("there is no Fernet key");
  return entries.map((entry, index) => {
    const raw = decoded(entry);
    if (raw?.length !== KEY_BYTES) throw new FernetError(`Fernet key ${index + 1} is not 32 bytes in base64url with padding`);
    const checkValue = masterKeyCheckValue(createSecretKey(raw));
    const key = { signing: createSecretKey(raw.subarray(0, 16)), encryption: createSecretKey(raw.subarray(16)), checkValue };
    toKeyObject(raw);
    return key;
  });
}

/**
 * Opens a token under the first key whose HMAC is right; the HMAC is compared in constant time, before anything is
 * decrypted. Its age is not looked at unless `freshness` is given. Throws FernetError, one and the same for every fault.
 */
export function openFernet(keys: readonly FernetKey[], token: string, freshness?: Freshness): FernetToken {
  const bytes = decoded(token);
  const sized = bytes !== undefined && bytes.length >= HEAD_BYTES + BLOCK_BYTES + MAC_BYTES && (bytes.length - HEAD_BYTES - MAC_BYTES) % BLOCK_BYTES === 0;
  if (!sized || bytes[0] !== VERSION) throw notOpened();
  const seconds = Number(bytes.readBigUInt64BE(1));
  const sealedAt = new Date(seconds * 1000);
  if (Number.isNaN(sealedAt.getTime())) throw notOpened();
  if (freshness && !fresh(seconds, freshness)) throw notOpened();
  const [signed, mac] = [bytes.subarray(0, -MAC_BYTES), bytes.subarray(-MAC_BYTES)];
  const key = keys.find(({ signing }) => timingSafeEqual(createHmac("sha256", signing).update(signed).digest(), mac));
  if (key === undefined) throw notOpened();
  // CBC has no tag, and so no authTagLength: the HMAC was right.
  const decipher = createDecipheriv("aes-128-cbc", key.encryption, bytes.subarray(1 + TIME_BYTES, HEAD_BYTES), { authTagLength: undefined } as object);
  const parts = [decipher.update(bytes.subarray(HEAD_BYTES, -MAC_BYTES))];
  try {
    parts.push(decipher.final());
    return { plaintext: Buffer.concat(parts), sealedAt };
  } catch {
    throw notOpened();
  } finally {
    for (const part of parts) part.fill(0);
  }
}

const fresh = (seconds: number, { ttlSeconds, now }: Freshness): boolean => {
  const at = now.getTime() / 1000;
  return seconds + ttlSeconds >= at && seconds <= at + MAX_SKEW_SECONDS;
};

const notOpened = (): FernetError => new FernetError("the token does not open");
