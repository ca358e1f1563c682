import { X509Certificate } from "node:crypto";

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
