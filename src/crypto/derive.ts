import { createSecretKey, hkdfSync, type KeyObject } from "node:crypto";
import { KEY_BYTES } from "./sealed.ts";

/**
 * Labels of the derived keys. Each is the `info` of HKDF-SHA-256 (RFC 5869) with an empty salt and 32 bytes of output.
 * They are part of the stored format.
 */
const LABELS = {
  sealing: "flow-credentials/v1/sealing-key",
  fingerprint: "flow-credentials/v1/fingerprint-key",
  commitment: "flow-credentials/v1/commitment",
  masterKeyCheck: "flow-credentials/v1/master-key-check",
} as const;

/** What is derived from one version of an organization's key; the key itself is not kept. */
export interface DerivedKeys {
  /** Seals and opens secrets. */
  readonly sealing: KeyObject;
  /** Keys fingerprints of secrets (HMAC-SHA-256), by which equal ones are found within one organization. */
  readonly fingerprint: KeyObject;
  /**
   * 32 bytes that are stored beside the wrapped key and fix which key it is: AES-GCM alone does not commit to its key.
   * Reveals nothing about the key.
   */
  readonly commitment: Buffer;
}

/** Derives everything from the raw bytes of an organization key. */
export function deriveKeys(organizationKey: Buffer): DerivedKeys {
  return {
    sealing: toKeyObject(derive(organizationKey, LABELS.sealing)),
    fingerprint: toKeyObject(derive(organizationKey, LABELS.fingerprint)),
    commitment: derive(organizationKey, LABELS.commitment),
  };
}

/** The commitment alone; the key itself is left as it is. */
export const keyCommitment = (organizationKey: Buffer): Buffer => derive(organizationKey, LABELS.commitment);

/** The check value of a master key: 32 bytes by which a database knows the key again, and which reveal nothing about it. */
export const masterKeyCheckValue = (masterKey: KeyObject | Buffer): Buffer => derive(masterKey, LABELS.masterKeyCheck);

/** Moves a raw key into a KeyObject, which does not print, and wipes the bytes. */
export function toKeyObject(raw: Buffer): KeyObject {
  const key = createSecretKey(raw);
  raw.fill(0);
  return key;
}

const derive = (key: Buffer | KeyObject, label: string): Buffer => Buffer.from(hkdfSync("sha256", key, Buffer.alloc(0), label, KEY_BYTES));
