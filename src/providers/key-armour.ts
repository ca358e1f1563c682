/** Longest private key, in characters of its armour. An RSA key of 16,384 bits takes 13,000. */
export const MAX_KEY_CHARACTERS = 16 * 1024;

/** A private key as its armour shows it (RFC 7468 section 2; RFC 1421 section 4.6 for the headers). */
export interface Armour {
  readonly label: PrivateKeyLabel;
  /** `DEK-Info`'s cipher, for a key that is encrypted inside PEM's old headers; null otherwise. */
  readonly cipher: string | null;
  readonly bytes: Buffer;
}

const LABELS = ["OPENSSH PRIVATE KEY", "RSA PRIVATE KEY", "DSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY", "ENCRYPTED PRIVATE KEY"] as const;
/** What the armour of a private key calls itself. */
export type PrivateKeyLabel = (typeof LABELS)[number];

const PUBLIC_KEY = "This is a public key; give the private key, the file without .pub";
const PUTTY = "PuTTY keys are not read; export the key in PuTTYgen as an OpenSSH key, or convert it with puttygen <file> -O private-openssh";

/** What people paste instead of a private key, by how it begins. */
const MISTAKEN: readonly (readonly [start: string, advice: string])[] = [
  ["PuTTY-User-Key-File-", PUTTY],
  ["ssh-", PUBLIC_KEY],
  ["ecdsa-sha2-", PUBLIC_KEY],
  ["sk-", PUBLIC_KEY],
  ["---- BEGIN SSH2 PUBLIC KEY", PUBLIC_KEY],
  ["---- BEGIN SSH2 ENCRYPTED PRIVATE KEY", "Keys of this vendor are not read; convert it with ssh-keygen -i -f <file>"],
  ["-----BEGIN PUBLIC KEY-----", PUBLIC_KEY],
  ["-----BEGIN RSA PUBLIC KEY-----", PUBLIC_KEY],
  ["-----BEGIN CERTIFICATE-----", "This is a certificate; give the private key that belongs to it"],
  ["-----BEGIN EC PARAMETERS-----", "Leave out the EC PARAMETERS block before the private key"],
  ["-----BEGIN PGP", "OpenPGP keys cannot be used for SSH"],
];

/** Reads the armour of one private key, or says what to do instead. Looks at text only; no key is parsed. */
export function readArmour(text: string): Armour | string {
  if (text.length > MAX_KEY_CHARACTERS) return `Must not be longer than ${MAX_KEY_CHARACTERS} characters`;
  const trimmed = text.trim();
  const mistaken = MISTAKEN.find(([start]) => trimmed.startsWith(start));
  if (mistaken) return mistaken[1];
  const label = LABELS.find((name) => trimmed.startsWith(`-----BEGIN ${name}-----`));
  if (label === undefined) return "Must be a private key in PEM or OpenSSH armour, beginning with -----BEGIN … PRIVATE KEY-----";
  if (trimmed.split("-----BEGIN ").length !== 2) return "Must hold exactly one private key";
  const [first, ...rest] = trimmed.split(/\r?\n/);
  if (first !== `-----BEGIN ${label}-----` || rest.length < 2) return "Must keep the line breaks of the key file";
  if (rest.pop() !== `-----END ${label}-----`) return `Must end with the line -----END ${label}-----`;
  return readBody(label, rest);
}

function readBody(label: PrivateKeyLabel, lines: readonly string[]): Armour | string {
  const encrypted = lines[0]?.trim() === "Proc-Type: 4,ENCRYPTED";
  const cipher = encrypted ? (/^DEK-Info: ([A-Z0-9-]{1,32}),[0-9A-Fa-f]{16,32}$/.exec(lines[1]?.trim() ?? "")?.[1] ?? null) : null;
  if (encrypted && cipher === null) return "The encryption headers of the key are damaged";
  const base64 = lines.slice(encrypted ? 2 : 0).map((line) => line.trim()).join("");
  if (base64.length === 0 || base64.length % 4 !== 0 || !/^[A-Za-z0-9+/]+={0,2}$/.test(base64)) return "The key is damaged: its lines are not base64";
  return { label, cipher, bytes: Buffer.from(base64, "base64") };
}
