import { createPublicKey, createSecretKey, type KeyObject, type webcrypto } from "node:crypto";
import type { Secret } from "../domain/secret.ts";
import { AuthSetupError } from "./setup-error.ts";

/** Shortest HS256 secret, in bytes: the size of the hash (RFC 7518 section 3.2). */
export const MIN_SECRET_BYTES = 32;

/** Shortest RSA modulus, in bits (RFC 7518 section 3.3). */
export const MIN_RSA_BITS = 2048;

/** A key, and the only algorithms a token may name for it; the token's own header never chooses (RFC 8725 section 3.1). */
export interface VerificationKey {
  readonly key: webcrypto.CryptoKey;
  readonly algorithms: readonly string[];
}

/** The key for HS256. Throws AuthSetupError for one that is too short, or that is a PEM and so perhaps public. */
export function secretVerificationKey(secret: Secret<string>): VerificationKey {
  const text = secret.reveal();
  if (text.includes("-----BEGIN ")) throw new AuthSetupError("CREDENTIALS_JWT_SECRET is a PEM; give a public key as CREDENTIALS_JWT_PUBLIC_KEY");
  if (Buffer.byteLength(text) < MIN_SECRET_BYTES) throw new AuthSetupError(`CREDENTIALS_JWT_SECRET must have at least ${MIN_SECRET_BYTES} bytes`);
  return { key: createSecretKey(text, "utf8").toCryptoKey({ name: "HMAC", hash: "SHA-256" }, false, ["verify"]), algorithms: ["HS256"] };
}

const RULE = "must be RSA (RS256), P-256 (ES256) or Ed25519 (EdDSA)";

/** The key for RS256, ES256 or EdDSA, by its type. Throws AuthSetupError for any other, a weak one, or a private one. */
export function publicVerificationKey(pem: Secret<string>): VerificationKey {
  const key = verificationKeyOf(readPublicKey(pem.reveal()));
  if (typeof key === "string") throw new AuthSetupError(`CREDENTIALS_JWT_PUBLIC_KEY ${key}`);
  return key;
}

/** The same of a public key from elsewhere; what is wrong with it, as the rest of a sentence, where it may not verify. */
export function verificationKeyOf(key: KeyObject): VerificationKey | string {
  const details = key.asymmetricKeyDetails;
  switch (key.asymmetricKeyType) {
    case "rsa":
      if ((details?.modulusLength ?? 0) < MIN_RSA_BITS) return `must have at least ${MIN_RSA_BITS} bits`;
      return { key: key.toCryptoKey({ name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" }, false, ["verify"]), algorithms: ["RS256"] };
    case "ec":
      if (details?.namedCurve !== "prime256v1") return RULE;
      return { key: key.toCryptoKey({ name: "ECDSA", namedCurve: "P-256" }, false, ["verify"]), algorithms: ["ES256"] };
    case "ed25519":
      // RFC 9864 gives the same signature its own name.
      return { key: key.toCryptoKey({ name: "Ed25519" }, false, ["verify"]), algorithms: ["EdDSA", "Ed25519"] };
    default:
      return RULE;
  }
}

function readPublicKey(pem: string): KeyObject {
  // Node derives a public key from a private one without a word; a private key has no place in this process.
  if (pem.includes("PRIVATE KEY-----")) throw new AuthSetupError("CREDENTIALS_JWT_PUBLIC_KEY holds a private key; give only the public one");
  try {
    return createPublicKey({ key: pem, format: "pem" });
  } catch {
    throw new AuthSetupError("CREDENTIALS_JWT_PUBLIC_KEY is not a public key in PEM");
  }
}
