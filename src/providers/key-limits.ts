import type { Armour } from "./key-armour.ts";
import { bitsOf, CONTEXT_0, type Element, elementsOf, inside, INTEGER, OBJECT_ID, OCTET_STRING, SEQUENCE, wholeNumber } from "./der.ts";
import { CONVERT, DAMAGED, type KeyForm, MAX_MODULUS_BITS, TOO_LARGE, UNUSABLE } from "./key-form.ts";
import { inspectOpenssh } from "./key-openssh.ts";

/** Most rounds of PBKDF2 (RFC 8018 section 5.2): about half a second. */
export const MAX_PBKDF2_ITERATIONS = 1_000_000;
/** Most memory and passes of scrypt (RFC 7914 section 2). */
const MAX_SCRYPT_BYTES = 32 * 1024 * 1024;
const MAX_SCRYPT_PASSES = 16;

const EXPENSIVE = `The key's encryption asks for too much work; ${CONVERT}`;
const OLD_ENCRYPTION = `The key's encryption is not supported; ${CONVERT}`;

/** OpenSSL's names of the ciphers of old PEM encryption that SSH libraries read. */
const PEM_CIPHERS: ReadonlySet<string> = new Set(["AES-128-CBC", "AES-192-CBC", "AES-256-CBC", "DES-EDE3-CBC"]);

/** Object identifiers, as the hexadecimal digits of their DER content. */
const OID = {
  rsa: "2a864886f70d010101",
  ec: "2a8648ce3d0201",
  ed25519: "2b6570",
  pbes2: "2a864886f70d01050d",
  pbkdf2: "2a864886f70d01050c",
  scrypt: "2b06010401da47040b",
} as const;
/** P-256, P-384 and P-521 (RFC 5656 section 10.1). */
const CURVES: ReadonlySet<string> = new Set(["2a8648ce3d030107", "2b81040022", "2b81040023"]);

const oidOf = (element: Element | undefined): string | null => (element?.tag === OBJECT_ID ? element.content.toString("hex") : null);

/**
 * Finds out what a key is and how much work opening it takes, without any cryptography. Returns advice where it is
 * refused. The numbers in a key file are its author's, and the parsers believe them: rounds alone can cost hours.
 */
export function inspectKey(armour: Armour): KeyForm | string {
  const { label, bytes } = armour;
  if (label === "OPENSSH PRIVATE KEY") return inspectOpenssh(bytes);
  if (armour.cipher !== null) {
    if (label === "PRIVATE KEY" || label === "ENCRYPTED PRIVATE KEY") return DAMAGED;
    return PEM_CIPHERS.has(armour.cipher) ? { kind: "traditional", encrypted: true } : OLD_ENCRYPTION;
  }
  const [outer, ...trailing] = elementsOf(bytes) ?? [];
  const parts = trailing.length === 0 ? inside(outer) : null;
  if (parts === null) return DAMAGED;
  if (label === "ENCRYPTED PRIVATE KEY") return encryptionFault(parts) ?? { kind: "pkcs8", encrypted: true };
  if (label === "PRIVATE KEY") return infoFault(parts) ?? { kind: "pkcs8", encrypted: false };
  const fault = label === "EC PRIVATE KEY" ? curveFault(inside(parts[2], CONTEXT_0)?.[0]) : modulusFault(parts);
  return fault ?? { kind: "traditional", encrypted: false };
}

/** `RSAPrivateKey` (RFC 8017 appendix A.1.2) and DSA's key alike begin with a version and the large number. */
function modulusFault(parts: readonly Element[]): string | null {
  const [version, modulus] = parts;
  if (version?.tag !== INTEGER || modulus?.tag !== INTEGER) return DAMAGED;
  return bitsOf(modulus.content) > MAX_MODULUS_BITS ? TOO_LARGE : null;
}

/** A curve must be named: parameters written out are the author's arithmetic, and no SSH library takes them. */
function curveFault(curve: Element | undefined): string | null {
  return CURVES.has(oidOf(curve) ?? "") ? null : UNUSABLE;
}

/** `PrivateKeyInfo` (RFC 5958 section 2). */
function infoFault(parts: readonly Element[]): string | null {
  const [version, algorithm, key] = parts;
  const [name, parameters] = inside(algorithm) ?? [];
  if (version?.tag !== INTEGER || key?.tag !== OCTET_STRING) return DAMAGED;
  const oid = oidOf(name);
  if (oid === OID.ed25519) return null;
  if (oid === OID.ec) return curveFault(parameters);
  if (oid !== OID.rsa) return UNUSABLE;
  const numbers = inside(elementsOf(key.content)?.[0]);
  return numbers === null ? DAMAGED : modulusFault(numbers);
}

/** `EncryptedPrivateKeyInfo` (RFC 5958 section 3) with PBES2 (RFC 8018 section 6.2). */
function encryptionFault(parts: readonly Element[]): string | null {
  const [algorithm, data] = parts;
  const [scheme, parameters] = inside(algorithm) ?? [];
  if (data?.tag !== OCTET_STRING || oidOf(scheme) === null) return DAMAGED;
  if (oidOf(scheme) !== OID.pbes2) return OLD_ENCRYPTION;
  const [derivation] = inside(parameters) ?? [];
  const [name, limits] = inside(derivation) ?? [];
  const values = inside(limits, SEQUENCE);
  if (values === null) return DAMAGED;
  if (oidOf(name) === OID.pbkdf2) return within(wholeNumber(values[1]), MAX_PBKDF2_ITERATIONS);
  if (oidOf(name) !== OID.scrypt) return OLD_ENCRYPTION;
  const [cost, block, passes] = [wholeNumber(values[1]), wholeNumber(values[2]), wholeNumber(values[3])];
  const memory = cost === null || block === null ? null : cost * block * 128;
  return within(memory, MAX_SCRYPT_BYTES) ?? within(passes, MAX_SCRYPT_PASSES);
}

const within = (value: number | null, most: number): string | null => (value === null || value < 1 ? DAMAGED : value > most ? EXPENSIVE : null);
