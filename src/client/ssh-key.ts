import { createPrivateKey, type KeyObject, randomBytes } from "node:crypto";

/** A private key as SSH libraries take it. */
export interface SshPrivateKey {
  /** PEM (PKCS#1, SEC 1) or OpenSSH armour. */
  readonly privateKey: string;
  /** What it is encrypted with; absent where it is not. */
  readonly passphrase?: string;
}

const PKCS8 = /-----BEGIN (?:ENCRYPTED )?PRIVATE KEY-----/;

/**
 * Gives a resolved SFTP key the form that SSH libraries read. `ssh2` knows no PKCS#8 (RFC 5958), which is what
 * `openssl genpkey` and many consoles write: such a key is opened here and written anew, without encryption, for the
 * memory of this process only. Every other key is passed on as it is. Throws where a PKCS#8 key does not open.
 */
export function sshPrivateKey(key: { readonly privateKeyData: string; readonly privateKeyPassphrase: string }): SshPrivateKey {
  const { privateKeyData, privateKeyPassphrase: passphrase } = key;
  if (!PKCS8.test(privateKeyData)) return passphrase === "" ? { privateKey: privateKeyData } : { privateKey: privateKeyData, passphrase };
  return { privateKey: rewritten(createPrivateKey({ key: privateKeyData, passphrase })) };
}

function rewritten(key: KeyObject): string {
  switch (key.asymmetricKeyType) {
    case "rsa":
      return key.export({ format: "pem", type: "pkcs1" }).toString();
    case "ec":
      return key.export({ format: "pem", type: "sec1" }).toString();
    case "ed25519":
      return openSsh(key);
    default:
      throw new TypeError("this kind of key is not used with SSH");
  }
}

/** A length-prefixed string (RFC 4251 section 5). */
function field(bytes: Buffer | string): Buffer {
  const content = Buffer.from(bytes);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(content.length);
  return Buffer.concat([length, content]);
}

/** The number of keys in the file, which is always one. */
const ONE = Buffer.from([0, 0, 0, 1]);

/** An Ed25519 key in OpenSSH's own format (PROTOCOL.key in its sources), which alone can hold one. */
function openSsh(key: KeyObject): string {
  const { d = "", x = "" } = key.export({ format: "jwk" });
  const [seed, publicKey] = [Buffer.from(d, "base64url"), Buffer.from(x, "base64url")];
  const name = field("ssh-ed25519");
  const check = randomBytes(4);
  const content = Buffer.concat([check, check, name, field(publicKey), field(Buffer.concat([seed, publicKey])), field("")]);
  const padding = Buffer.from(Array.from({ length: (8 - (content.length % 8)) % 8 }, (_, at) => at + 1));
  const whole = Buffer.concat([
    Buffer.from("openssh-key-v1\0"),
    field("none"),
    field("none"),
    field(""),
    ONE,
    field(Buffer.concat([name, field(publicKey)])),
    field(Buffer.concat([content, padding])),
  ]);
  const lines = whole.toString("base64").match(/.{1,70}/g) ?? [];
  return ["-----BEGIN OPENSSH PRIVATE KEY-----", ...lines, "-----END OPENSSH PRIVATE KEY-----", ""].join("\n");
}
