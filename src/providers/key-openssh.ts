import { bitsOf } from "./der.ts";
import { CONVERT, DAMAGED, type KeyForm, MAX_MODULUS_BITS, TOO_LARGE, UNUSABLE } from "./key-form.ts";

/** Most rounds of bcrypt's key derivation: a few seconds in JavaScript. `ssh-keygen` makes 24 unless asked. */
export const MAX_BCRYPT_ROUNDS = 128;

const MAGIC = Buffer.from("openssh-key-v1\0", "latin1");
/** Ciphers that SSH libraries read in key files. */
const CIPHERS: ReadonlySet<string> = new Set([
  "aes128-ctr",
  "aes192-ctr",
  "aes256-ctr",
  "aes128-cbc",
  "aes192-cbc",
  "aes256-cbc",
  "3des-cbc",
  "aes128-gcm@openssh.com",
  "aes256-gcm@openssh.com",
]);
const TYPES: ReadonlySet<string> = new Set(["ssh-rsa", "ssh-dss", "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"]);

class Truncated extends Error {}

/** Reads SSH's data types (RFC 4251 section 5) one after another. */
class Cursor {
  readonly #bytes: Buffer;
  #at: number;

  constructor(bytes: Buffer, at = 0) {
    this.#bytes = bytes;
    this.#at = at;
  }

  uint32(): number {
    if (this.#at + 4 > this.#bytes.length) throw new Truncated();
    this.#at += 4;
    return this.#bytes.readUInt32BE(this.#at - 4);
  }

  string(): Buffer {
    const end = this.uint32() + this.#at;
    if (end > this.#bytes.length) throw new Truncated();
    const value = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return value;
  }
}

/** What a key in OpenSSH's format is (`PROTOCOL.key` of OpenSSH), or why it is refused. */
export function inspectOpenssh(bytes: Buffer): KeyForm | string {
  try {
    return inspect(bytes);
  } catch (error) {
    if (error instanceof Truncated) return DAMAGED;
    throw error;
  }
}

function inspect(bytes: Buffer): KeyForm | string {
  if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) return DAMAGED;
  const file = new Cursor(bytes, MAGIC.length);
  const [cipher, derivation, options] = [file.string().toString("latin1"), file.string().toString("latin1"), file.string()];
  const encrypted = cipher !== "none";
  const fault = encrypted ? encryptionFault(cipher, derivation, options) : derivation === "none" && options.length === 0 ? null : DAMAGED;
  if (fault !== null) return fault;
  if (file.uint32() !== 1) return "Must hold exactly one private key";
  const published = keyFault(new Cursor(file.string()), "public");
  const inner = file.string();
  return published ?? (encrypted ? null : keyFault(new Cursor(inner, CHECK_BYTES), "private")) ?? { kind: "openssh", encrypted };
}

/** The two equal numbers before a private key, by which a wrong passphrase shows. */
const CHECK_BYTES = 8;

function encryptionFault(cipher: string, derivation: string, options: Buffer): string | null {
  if (derivation !== "bcrypt" || !CIPHERS.has(cipher)) return `The key's encryption is not supported; ${CONVERT} -Z aes256-ctr`;
  const parameters = new Cursor(options);
  parameters.string();
  const rounds = parameters.uint32();
  if (rounds < 1) return DAMAGED;
  return rounds > MAX_BCRYPT_ROUNDS ? `The key is encrypted with more than ${MAX_BCRYPT_ROUNDS} rounds; ${CONVERT} -a ${MAX_BCRYPT_ROUNDS}` : null;
}

/** The public part has RSA's exponent before the modulus (RFC 4253 section 6.6), the private part after it. */
function keyFault(key: Cursor, part: "public" | "private"): string | null {
  const type = key.string().toString("latin1");
  if (type.startsWith("sk-")) return "Keys that live on a security key cannot be used by a service; make a key without one";
  if (!TYPES.has(type)) return UNUSABLE;
  if (type !== "ssh-rsa" && type !== "ssh-dss") return null;
  if (type === "ssh-rsa" && part === "public") key.string();
  return bitsOf(key.string()) > MAX_MODULUS_BITS ? TOO_LARGE : null;
}
