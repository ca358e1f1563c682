import { createHash, type KeyObject } from "node:crypto";
import { patternIn } from "../domain/pattern.ts";
import { masterKeyCheckValue, toKeyObject } from "./derive.ts";
import { isMasterKeyId, KEY_BYTES, type KeyPlace, parseWrapped, unwrapKey, wrapKey } from "./sealed.ts";
import { UnreadableError } from "./unreadable.ts";

/** A setting of master keys that cannot be used. Names the key's id and the rule, and never shows bytes. */
export class KeyringError extends Error {
  override readonly name = "KeyringError";
}

/** What organization keys need of the master keys; a key service answers later. */
export interface KeyWrapping {
  readonly primaryId: string;
  wrap(key: Buffer, place: KeyPlace): Buffer | Promise<Buffer>;
  unwrap(wrapped: Buffer, place: KeyPlace): Buffer | Promise<Buffer>;
  /** Asks again which key is the primary one. */
  refresh?(): Promise<void>;
}

/** Master keys whose bytes are in this process. Shows none of them. */
export interface MasterKeyring extends KeyWrapping {
  /** The key that wraps; named in the configuration, never chosen by order. */
  readonly primaryId: string;
  /** Ids of every loaded key. */
  readonly ids: readonly string[];
  /** Wraps the 32 bytes of an organization key under the primary key. */
  wrap(key: Buffer, place: KeyPlace): Buffer;
  /**
   * Unwraps an organization key under the one key that its bytes name. The caller wipes what it gets. Throws
   * UnreadableError `wrapped_key_malformed`, `unknown_master_key` or `wrapped_key_not_authentic`.
   */
  unwrap(wrapped: Buffer, place: KeyPlace): Buffer;
  /** 32 bytes that tell a key from another and reveal nothing about it. Throws KeyringError for an id that is not loaded. */
  checkValue(id: string): Buffer;
}

/**
 * Reads `id:base64,id:base64`, or one of them a line: ids as sealed.ts describes, and 32 bytes each in base64 with padding
 * (RFC 4648 section 4), without other white space. Refused are a wrong length, an id or a key that occurs twice, a primary key that is missing, and
 * keys that nobody drew at random. Throws KeyringError.
 */
export function parseMasterKeys(text: string, primaryId: string): MasterKeyring {
  const keys = readMasterKeys(text);
  if (!isMasterKeyId(primaryId)) throw new KeyringError("the id of the primary master key is not an id (up to 32 of A-Z a-z 0-9 . _ -)");
  if (!keys.has(primaryId)) throw new KeyringError(`the primary master key "${primaryId}" is not among the master keys`);
  return masterKeyring(keys, primaryId);
}

/** The same without a primary key: the keys by their ids. */
export function readMasterKeys(text: string): ReadonlyMap<string, KeyObject> {
  const keys = new Map<string, KeyObject>();
  for (const [index, entry] of text.split(/,|\r?\n/).entries()) {
    const colon = entry.indexOf(":");
    const id = entry.slice(0, Math.max(colon, 0));
    // What stands in the place of an id may be a key: it is printed only once it is known to be an id.
    if (!isMasterKeyId(id)) throw new KeyringError(`entry ${index + 1} of the master keys does not start with an id (up to 32 of A-Z a-z 0-9 . _ -) and a colon`);
    if (keys.has(id)) throw new KeyringError(`master key "${id}" is given twice`);
    const key = toKeyObject(decodeKey(id, entry.slice(colon + 1)));
    for (const [other, known] of keys) {
      if (known.equals(key)) throw new KeyringError(`master keys "${other}" and "${id}" are the same key`);
    }
    keys.set(id, key);
  }
  return keys;
}

/** The id of the master key that a wrapped organization key names. Throws UnreadableError `wrapped_key_malformed`. */
export const wrappingKeyId = (wrapped: Buffer): string => parseWrapped(wrapped).masterKeyId;

/** A keyring of keys that are known to be good. */
export function masterKeyring(keys: ReadonlyMap<string, KeyObject>, primaryId: string): MasterKeyring {
  const loaded = (id: string): KeyObject => {
    const key = keys.get(id);
    if (!key) throw new KeyringError(`master key "${id}" is not loaded`);
    return key;
  };
  const primary = loaded(primaryId);
  return {
    primaryId,
    ids: [...keys.keys()],
    wrap: (key, place) => wrapKey(primary, primaryId, place, key),
    unwrap: (bytes, place) => {
      const wrapped = parseWrapped(bytes);
      const key = keys.get(wrapped.masterKeyId);
      if (!key) throw new UnreadableError("unknown_master_key");
      return unwrapKey(key, place, wrapped);
    },
    checkValue: (id) => masterKeyCheckValue(loaded(id)),
  };
}

function decodeKey(id: string, base64: string): Buffer {
  const key = Buffer.from(base64, "base64");
  // Node skips what it does not understand and ignores trailing bits: several texts would be one key.
  if (key.toString("base64") !== base64) throw new KeyringError(`master key "${id}" is not base64 with padding`);
  if (key.length !== KEY_BYTES) throw new KeyringError(`master key "${id}" is not ${KEY_BYTES} bytes long`);
  const fault = weakness(key);
  if (fault) throw new KeyringError(`master key "${id}" ${fault}; draw one with: openssl rand -base64 32`);
  return key;
}

/** SHA-256 of keys that stand in this repository, hex. Whoever can read it has them. */
const PUBLISHED: ReadonlySet<string> = new Set(["28cf438121b1b0848335fe256bd1e83e3001422a84d7b1333ed6e54b832c8518"]);

/** Fewest different bytes in a key. 32 random bytes have fewer with a probability below 2^-50. */
const MIN_DISTINCT_BYTES = 16;

/** Why a key was not drawn at random, or undefined. No rule here refuses a random key more often than once in 2^40. */
function weakness(key: Buffer): string | undefined {
  if (PUBLISHED.has(createHash("sha256").update(key).digest("hex"))) return "is published and belongs to everyone";
  const pattern = patternIn(key);
  if (pattern !== undefined) return pattern;
  if (key.every(isText)) return "is text and not random bytes";
  if (new Set(key).size < MIN_DISTINCT_BYTES) return "has too few different bytes";
  return undefined;
}

/** Printable ASCII, white space, and the NUL with which short texts are filled up. */
const isText = (byte: number): boolean => (byte >= 0x20 && byte <= 0x7e) || (byte >= 0x09 && byte <= 0x0d) || byte === 0;
