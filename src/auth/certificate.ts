import { timingSafeEqual, X509Certificate } from "node:crypto";
import type { TenantCaller } from "../domain/access.ts";
import type { ApiKeySource } from "./api-key.ts";

/** What the look-up of a client certificate begins with: no API key does. */
const CERTIFICATE_START = "crt_";

/** Hexadecimal characters of a fingerprint that are public; the whole of it is compared. */
const PREFIX_CHARACTERS = 30;

/** A client certificate as it is kept and looked up: like an API key, by its beginning, and compared by its hash. */
export interface CertificateName {
  /** `crt_` and the beginning of the fingerprint. */
  readonly prefix: string;
  /** SHA-256 of the certificate's DER form. */
  readonly hash: Buffer;
}

/** The name of a certificate, from the SHA-256 fingerprint that Node gives: hexadecimal pairs with colons. */
export function certificateName(fingerprint256: string): CertificateName {
  const hex = fingerprint256.replaceAll(":", "").toLowerCase();
  return { prefix: CERTIFICATE_START + hex.slice(0, PREFIX_CHARACTERS), hash: Buffer.from(hex, "hex") };
}

/** Longest text that is read as a certificate, in characters. */
const MAX_PEM = 16_384;

/** Reads one certificate in PEM, and when it ends; undefined for anything else. */
export function readCertificate(pem: string): (CertificateName & { readonly endsAt: Date }) | undefined {
  if (pem.length > MAX_PEM || pem.split("-----BEGIN CERTIFICATE-----").length !== 2 || pem.includes("PRIVATE KEY")) return undefined;
  try {
    const certificate = new X509Certificate(pem);
    return { ...certificateName(certificate.fingerprint256), endsAt: certificate.validToDate };
  } catch {
    return undefined;
  }
}

/** Client certificates that stand for service accounts. */
export interface Certificates {
  /** The account that a certificate is mapped to; undefined where it is mapped to none, or that has ended. */
  callerOf(fingerprint256: string): Promise<TenantCaller | undefined>;
}

/** Looks certificates up as API keys are, and remembers for a moment also those that are mapped to nobody. */
export function createCertificates(options: { readonly keys: ApiKeySource; readonly cacheEntries: number; readonly cacheSeconds: number; readonly now: () => number }): Certificates {
  const { keys, cacheEntries, cacheSeconds, now } = options;
  const known = new Map<string, { readonly caller: TenantCaller | undefined; readonly untilMs: number }>();
  return {
    async callerOf(fingerprint256) {
      const at = now();
      const remembered = known.get(fingerprint256);
      if (remembered && remembered.untilMs > at) return remembered.caller;
      const { prefix, hash } = certificateName(fingerprint256);
      const stored = await keys.keyByPrefix(prefix);
      const good = stored !== undefined && timingSafeEqual(hash, stored.tokenHash) && stored.revokedAt === null && (stored.expiresAt?.getTime() ?? Infinity) > at;
      const caller: TenantCaller | undefined = good ? { kind: "service_account", id: stored.serviceAccountId, organizationId: stored.organizationId, role: null, keyId: stored.id } : undefined;
      const untilMs = Math.min(at + cacheSeconds * 1000, good ? (stored.expiresAt?.getTime() ?? Infinity) : Infinity);
      known.delete(fingerprint256);
      known.set(fingerprint256, { caller, untilMs });
      if (known.size > cacheEntries) known.delete(known.keys().next().value as string);
      return caller;
    },
  };
}
