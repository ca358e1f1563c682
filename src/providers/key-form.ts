/** Largest RSA modulus and DSA prime, in bits; OpenSSH's own limit. */
export const MAX_MODULUS_BITS = 16_384;

/** A key that is worth opening. */
export interface KeyForm {
  /** `openssh` and `traditional` are read by SSH libraries as they are, `pkcs8` (RFC 5958) by most. */
  readonly kind: "openssh" | "traditional" | "pkcs8";
  readonly encrypted: boolean;
}

/** Advice for a kind of key that is not read here: OpenSSH reads most kinds and writes its own. */
export const CONVERT = "convert it with ssh-keygen -p -f <file>";
/** What is said of a key whose encoding does not add up. */
export const DAMAGED = "The private key is damaged";
/** What is said of a sound key that is of no use for SSH. */
export const UNUSABLE = "Must be a key that SSH can use: RSA, Ed25519, or ECDSA on the curve P-256, P-384 or P-521";
/** What is said of a key that would take too long to sign with. */
export const TOO_LARGE = `RSA keys must not be larger than ${MAX_MODULUS_BITS} bits`;
