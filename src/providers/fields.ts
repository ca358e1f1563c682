import { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { domainToASCII } from "node:url";
import { z } from "zod";

/** Longest name in the DNS as text, without the final dot (RFC 1035 section 2.3.4). */
const MAX_HOST_CHARACTERS = 253;
/** Most certificates, and most text, of one `ca_certificate`. */
const MAX_CERTIFICATES = 16;
const MAX_CERTIFICATE_CHARACTERS = 32 * 1024;

const NOT_TEXT = "Must be text";
const EMPTY = "Must not be empty or blank";

const filled = () => z.string(NOT_TEXT).regex(/\S/, EMPTY);
const withoutNul = () => filled().refine((text) => !text.includes("\0"), "Must not contain a NUL character");
/** What the catalog says of a secret field: it is written, never shown. */
const asSecret = (title: string, description: string) => ({ title, description, writeOnly: true, format: "password" });

/** Text that is not secret and in which a NUL has no meaning, such as a user name. */
export const identifier = (title: string, description: string) => withoutNul().meta({ title, description });

/** Secret text of any characters. */
export const secretText = (title: string, description: string) => filled().meta(asSecret(title, description));

/** Secret text for a protocol that ends its strings with a NUL. */
export const secretLine = (title: string, description: string) => withoutNul().meta(asSecret(title, description));

/** Secret text that may also be empty, which says that there is none. */
export const secretOrEmpty = (title: string, description: string) => z.string(NOT_TEXT).meta(asSecret(title, description));

const printable = () => filled().regex(/^[\x20-\x7e]*$/, "Must be printable ASCII");

/** Text of a protocol that carries it in a header: printable ASCII, as RFC 6749 appendix A has it. */
export const word = (title: string, description: string) => printable().meta({ title, description });

/** As `word`, secret. */
export const secretWord = (title: string, description: string) => printable().meta(asSecret(title, description));

/** Whether a text can be a host: an IP address without brackets or zone, or a name of letters, digits, `-` and `_`. */
export function isHost(text: string): boolean {
  if (text.length === 0 || text.length > MAX_HOST_CHARACTERS + 1) return false;
  if (isIP(text) !== 0) return !text.includes("%");
  // The conversion of names beyond ASCII drops characters that cannot be seen; two texts must not mean one host.
  if (/[\s\p{C}]/u.test(text)) return false;
  const name = /^[\x21-\x7e]+$/.test(text) ? text : domainToASCII(text);
  const labels = name.replace(/\.$/, "").split(".");
  return name.length <= MAX_HOST_CHARACTERS + 1 && labels.every((part) => /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/i.test(part));
}

/** A host name or IP address. Whether it may be reached is decided where it is dialled. */
export const host = (title = "Host") =>
  filled()
    .refine(isHost, "Must be a host name or an IP address, without scheme, user, port or path")
    .meta({ title, description: "Host name or IP address" });

const PORT = "Must be a port, a whole number from 1 to 65535";

const portNumber = () => z.int(PORT).min(1, PORT).max(65_535, PORT);

/** A TCP port as a number or as digits; becomes a number. */
export const port = (preset: number) =>
  z
    .union([portNumber(), z.string(PORT).regex(/^\d{1,5}$/, PORT)], PORT)
    .transform(Number)
    .pipe(portNumber())
    .meta({ title: "Port", description: `TCP port, 1 to 65535, as a number or as digits; ${preset} unless given` });

/** The SHA-256 fingerprint of an SSH host key as OpenSSH prints it: 256 bits are 43 characters, of which the last carries four. */
export const hostKeyFingerprint = () =>
  z
    .string(NOT_TEXT)
    .regex(/^SHA256:[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]$/, "Must be SHA256: and 43 characters of base64, as ssh-keygen -l prints it")
    .meta({ title: "Host key fingerprint", description: "SHA-256 fingerprint of the server's host key; the server is not pinned without it" });

/** libpq's names for how far a connection is secured, weakest first. */
export const SSL_MODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] as const;

/** One of `SSL_MODES`. */
export const sslmode = () =>
  z
    .enum(SSL_MODES, `Must be one of ${SSL_MODES.join(", ")}`)
    .meta({ title: "SSL mode", description: "libpq's sslmode: how far the connection is encrypted and the server verified", default: "prefer" });

const BEGIN = "-----BEGIN CERTIFICATE-----";
const END = "-----END CERTIFICATE-----";

/** Whether a text holds certificates in PEM (RFC 7468 section 5), and nothing else that is armoured. */
export function isCertificates(text: string): boolean {
  if (text.length > MAX_CERTIFICATE_CHARACTERS || text.split("-----BEGIN ").length !== text.split(BEGIN).length) return false;
  let count = 0;
  for (let from = text.indexOf(BEGIN); from !== -1; from = text.indexOf(BEGIN, from + 1)) {
    const end = text.indexOf(END, from);
    if (end === -1 || ++count > MAX_CERTIFICATES || !isCertificate(text.slice(from, end + END.length))) return false;
  }
  return count > 0;
}

function isCertificate(pem: string): boolean {
  try {
    return new X509Certificate(pem).raw.length > 0;
  } catch {
    return false;
  }
}

/** Certificates of the authorities that sign the server's, in PEM. */
export const caCertificate = () =>
  filled()
    .refine(isCertificates, `Must be one to ${MAX_CERTIFICATES} certificates in PEM, without a private key`)
    .meta({ title: "CA certificate", description: "Certificate authority that signs the server's certificate, in PEM" });

/** The name of an AWS region. */
export const region = () =>
  z
    .string(NOT_TEXT)
    .regex(/^[a-z]{2,8}(?:-[a-z]{2,16}){1,3}-\d{1,2}$/, "Must be an AWS region such as eu-central-1")
    .meta({ title: "Region", description: "AWS region, for example eu-central-1" });
