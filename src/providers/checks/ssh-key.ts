import { createPrivateKey, type KeyObject, randomBytes } from "node:crypto";
import ssh2 from "ssh2";
import type { ParsedKey } from "ssh2";
import { readArmour } from "../key-armour.ts";
import { MAX_MODULUS_BITS, TOO_LARGE, UNUSABLE } from "../key-form.ts";
import { inspectKey } from "../key-limits.ts";
import { CheckFailure } from "./trial.ts";

/** Kinds of keys that a test uses; DSA signs with SHA-1 only. */
const KINDS: ReadonlySet<string> = new Set(["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"]);

/**
 * Opens a private key for the SSH library. The limits on its size and on the work of opening it are looked at first.
 * Throws CheckFailure. Blocks for as long as the key's encryption takes.
 */
export function openSshKey(text: string, passphrase: string): ParsedKey {
  const armour = readArmour(text);
  if (typeof armour === "string") throw new CheckFailure("key_unreadable");
  const form = inspectKey(armour);
  if (form === UNUSABLE || form === TOO_LARGE) throw new CheckFailure("key_unusable");
  if (typeof form === "string") throw new CheckFailure("key_unreadable");
  if (form.encrypted && passphrase === "") throw new CheckFailure("key_passphrase_missing");
  const key = form.kind === "pkcs8" ? parsed(fromPkcs8(text.trim(), passphrase)) : parsed(text, passphrase);
  if (key === null) throw new CheckFailure(form.encrypted ? "key_passphrase_wrong" : "key_unreadable");
  if (!KINDS.has(key.type) || bitsOf(key) > MAX_MODULUS_BITS) throw new CheckFailure("key_unusable");
  return key;
}

function parsed(text: string | null, passphrase = ""): ParsedKey | null {
  if (text === null) return null;
  try {
    const key = ssh2.utils.parseKey(text, passphrase === "" ? undefined : passphrase);
    return key instanceof Error || !key.isPrivateKey() ? null : key;
  } catch {
    // The parser lets exceptions of the big-number and curve code through.
    return null;
  }
}

function bitsOf(key: ParsedKey): number {
  try {
    return createPrivateKey(key.getPrivatePEM()).asymmetricKeyDetails?.modulusLength ?? 0;
  } catch {
    return 0;
  }
}

/** The library knows no PKCS#8 (RFC 5958); such a key is written anew, without encryption, for the memory of this process only. */
function fromPkcs8(text: string, passphrase: string): string | null {
  try {
    const key = createPrivateKey({ key: text, passphrase });
    if (key.asymmetricKeyType === "rsa") return key.export({ format: "pem", type: "pkcs1" }).toString();
    if (key.asymmetricKeyType === "ec") return key.export({ format: "pem", type: "sec1" }).toString();
    return key.asymmetricKeyType === "ed25519" ? openSshArmour(key) : null;
  } catch {
    return null;
  }
}

/** A length-prefixed string (RFC 4251 section 5). */
function field(bytes: Buffer | string): Buffer {
  const content = Buffer.from(bytes);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(content.length);
  return Buffer.concat([length, content]);
}

/** An Ed25519 key in OpenSSH's own format (PROTOCOL.key in its sources), which alone can hold one. */
function openSshArmour(key: KeyObject): string {
  const { d = "", x = "" } = key.export({ format: "jwk" });
  const [seed, publicKey] = [Buffer.from(d, "base64url"), Buffer.from(x, "base64url")];
  const [name, check] = [field("ssh-ed25519"), randomBytes(4)];
  const content = Buffer.concat([check, check, name, field(publicKey), field(Buffer.concat([seed, publicKey])), field("")]);
  const padding = Buffer.from(Array.from({ length: (8 - (content.length % 8)) % 8 }, (_, at) => at + 1));
  const one = Buffer.from([0, 0, 0, 1]);
  const head = Buffer.concat([Buffer.from("openssh-key-v1\0"), field("none"), field("none"), field(""), one]);
  const whole = Buffer.concat([head, field(Buffer.concat([name, field(publicKey)])), field(Buffer.concat([content, padding]))]);
  const lines = whole.toString("base64").match(/.{1,70}/g) ?? [];
  return ["-----BEGIN OPENSSH PRIVATE KEY-----", ...lines, "-----END OPENSSH PRIVATE KEY-----", ""].join("\n");
}
