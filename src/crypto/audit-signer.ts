import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { headKeyId, headStatement, type SignedHead } from "../domain/audit-chain.ts";
import type { Secret } from "../domain/secret.ts";

/** Signs heads of audit chains with an Ed25519 key (RFC 8032). */
export interface AuditSigner {
  readonly keyId: string;
  readonly publicKey: KeyObject;
  sign(organizationId: string, head: Pick<SignedHead, "link" | "hash">, signedAtMs: number): SignedHead;
}

/** The key is not one that signs audit heads. */
export class AuditKeyError extends Error {
  override readonly name = "AuditKeyError";
}

/** Makes the signer from a private key in PKCS#8, as PEM or as the base64 of its DER form. Throws AuditKeyError. */
export function createAuditSigner(key: Secret<string>): AuditSigner {
  const privateKey = read(key.reveal());
  const publicKey = createPublicKey(privateKey);
  const keyId = headKeyId(publicKey);
  return {
    keyId,
    publicKey,
    sign: (organizationId, { link, hash }, signedAtMs) => ({ link, hash, keyId, signedAtMs, signature: sign(null, headStatement(organizationId, { link, hash, signedAtMs }), privateKey) }),
  };
}

/** A new key, in the form in which it is configured. */
export function newAuditKey(): string {
  const { privateKey } = generateKeyPairSync("ed25519");
  return privateKey.export({ format: "der", type: "pkcs8" }).toString("base64");
}

function read(text: string): KeyObject {
  let key: KeyObject;
  try {
    key = text.includes("-----BEGIN ") ? createPrivateKey(text) : createPrivateKey({ key: Buffer.from(text, "base64"), format: "der", type: "pkcs8" });
  } catch {
    throw new AuditKeyError("CREDENTIALS_AUDIT_SIGNING_KEY is not a private key: PKCS#8 in PEM, or the base64 of its DER form");
  }
  if (key.asymmetricKeyType !== "ed25519") throw new AuditKeyError("CREDENTIALS_AUDIT_SIGNING_KEY must be an Ed25519 key; make one with: openssl genpkey -algorithm ed25519");
  return key;
}
