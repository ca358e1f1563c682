import { CheckFailure } from "./trial.ts";
import type { Screen } from "./relay.ts";

/** The algorithms that a test offers, best first; nothing with SHA-1, CBC, encrypt-and-MAC or compression. */
export const ALGORITHMS = {
  kex: [
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group18-sha512",
    "diffie-hellman-group14-sha256",
  ],
  serverHostKey: ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512", "rsa-sha2-256"],
  cipher: ["chacha20-poly1305@openssh.com", "aes256-gcm@openssh.com", "aes128-gcm@openssh.com", "aes256-ctr", "aes192-ctr", "aes128-ctr"],
  hmac: ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com"],
  compress: ["none"],
} as const;

/** Host keys that a server has one of each (RFC 4253 section 6.6), by the algorithms that sign with it. */
export const HOST_KEY_KINDS: readonly (readonly string[])[] = [
  ["ssh-ed25519"], ["ecdsa-sha2-nistp256"], ["ecdsa-sha2-nistp384"], ["ecdsa-sha2-nistp521"], ["rsa-sha2-512", "rsa-sha2-256"],
];

/** Ciphers that authenticate by themselves. */
const AUTHENTICATED: ReadonlySet<string> = new Set(ALGORITHMS.cipher.slice(0, 3));
/** How a server says that it follows strict key exchange (section 1.10 of OpenSSH's PROTOCOL). */
const STRICT = "kex-strict-s-v00@openssh.com";

/** Most bytes up to the end of the server's identification, and most of its first packet (RFC 4253 sections 4.2 and 6.1). */
const MAX_GREETING = 8 * 1024;
const MAX_PACKET = 35_000;
const KEXINIT = 20;

/** What is told of what the server says before any key is exchanged. */
export interface Greeting {
  /** The server has identified itself; `server` names product and version where both are known ones. */
  identified(server: string | null): void;
  /** The server has made its offer; these are the algorithms of its host keys, those that are not safe included. */
  offered(hostKeys: readonly string[]): void;
}

/**
 * Reads a server's identification and its offer of algorithms (RFC 4253 sections 4.2 and 7.1), which come in clear, and
 * refuses whoever is no SSH server, shares no safe algorithm, or lacks strict key exchange. Whoever changes the offer on
 * its way changes the hash that the server signs.
 */
export function screenGreeting(told: Greeting): Screen {
  let held = Buffer.alloc(0);
  let identified = false;
  let offered = false;
  return (chunk) => {
    if (offered) return chunk;
    held = Buffer.concat([held, chunk]);
    if (!identified) {
      const line = identification(held);
      if (line === null) return Buffer.alloc(0);
      identified = true;
      told.identified(productOf(line.text));
      held = held.subarray(line.end);
      // Some servers make their offer only after ours, which waits for this line.
      return Buffer.concat([Buffer.from(line.text, "latin1"), offer()]);
    }
    return offer();
  };

  /** What is held, once it begins with an offer that is fit. */
  function offer(): Buffer {
    const packet = packetOf(held);
    if (packet === null) return Buffer.alloc(0);
    told.offered(judge(packet));
    offered = true;
    return held;
  }
}

/** The line `SSH-2.0-…` and where it ends; null while it is not there. Servers may send other lines first. */
function identification(held: Buffer): { readonly text: string; readonly end: number } | null {
  const text = held.subarray(0, MAX_GREETING).toString("latin1");
  if (text.startsWith("HTTP/")) throw new CheckFailure("http_instead_of_ssh");
  if (/^[\x15\x16]\x03/.test(text)) throw new CheckFailure("tls_instead_of_ssh");
  if (/^220[ -]/.test(text)) throw new CheckFailure("ftp_instead_of_ssh");
  if (/^(?:Exceeded MaxStartups|Not allowed at this time)/.test(text)) throw new CheckFailure("ssh_too_many_connections");
  const line = /(?:^|\n)(SSH-(\d{1,3}\.\d{1,3})-[^\r\n]{0,246}\r?\n)/.exec(text);
  if (line !== null) {
    if (line[2] !== "2.0" && line[2] !== "1.99") throw new CheckFailure("ssh_version_too_old");
    return { text: line[1] ?? "", end: line.index + line[0].length };
  }
  const begin = /(?:^|\n)SSH-[^\n]{252}/.test(text);
  if (begin || held.length >= MAX_GREETING || text.includes("\0")) throw new CheckFailure("not_an_ssh_server");
  return null;
}

/** Servers whose name and version are worth showing; anything else a server says is not repeated. */
const PRODUCTS = /^SSH-[\d.]+-(OpenSSH|dropbear|AWS_SFTP|mod_sftp|libssh|SFTPGo|ProFTPD|CrushFTPSSHD|Cerberus|Bitvise|WS_FTP|CoreFTP|Titan)[_/-]?(\d{1,4}(?:\.\d{1,4}){0,3})?/;

function productOf(line: string): string | null {
  const [, name, version] = PRODUCTS.exec(line) ?? [];
  if (name === undefined) return null;
  return version === undefined ? name : `${name} ${version}`;
}

/** The payload of the first packet (RFC 4253 section 6), null while it is incomplete. */
function packetOf(bytes: Buffer): Buffer | null {
  if (bytes.length < 5) return null;
  const length = bytes.readUInt32BE(0);
  const padding = bytes.readUInt8(4);
  if (length > MAX_PACKET || length < padding + 2) throw new CheckFailure("ssh_protocol_broken");
  return bytes.length < 4 + length ? null : bytes.subarray(5, 4 + length - padding);
}

/** Compares the server's offer with ours as RFC 4253 section 7.1 does; gives the algorithms of its host keys. */
function judge(payload: Buffer): readonly string[] {
  // A server that greets with another packet cannot follow strict key exchange.
  if (payload[0] !== KEXINIT) throw new CheckFailure("ssh_strict_key_exchange_missing");
  const [kex, hostKeys, ciphersOut, ciphersIn, macsOut, macsIn, compressionOut, compressionIn] = namesOf(payload);
  if (kex === undefined || compressionIn === undefined) throw new CheckFailure("ssh_protocol_broken");
  const [common, cipherOut, cipherIn] = [chosen(ALGORITHMS.kex, kex), chosen(ALGORITHMS.cipher, ciphersOut), chosen(ALGORITHMS.cipher, ciphersIn)];
  if (common === undefined) throw new CheckFailure("ssh_no_common_key_exchange");
  if (chosen(ALGORITHMS.serverHostKey, hostKeys) === undefined) throw new CheckFailure("ssh_no_common_host_key");
  if (cipherOut === undefined || cipherIn === undefined) throw new CheckFailure("ssh_no_common_cipher");
  const authenticated = (cipher: string, macs: readonly string[] | undefined) => AUTHENTICATED.has(cipher) || chosen(ALGORITHMS.hmac, macs) !== undefined;
  if (!authenticated(cipherOut, macsOut) || !authenticated(cipherIn, macsIn)) throw new CheckFailure("ssh_no_common_mac");
  if (![compressionOut, compressionIn].every((names) => chosen(ALGORITHMS.compress, names) !== undefined)) throw new CheckFailure("ssh_no_common_compression");
  if (!kex.includes(STRICT)) throw new CheckFailure("ssh_strict_key_exchange_missing");
  return hostKeys ?? [];
}

const chosen = (ours: readonly string[], theirs: readonly string[] | undefined): string | undefined => ours.find((name) => theirs?.includes(name));

/** The name lists of an offer: after the number of the message and sixteen random bytes. */
function namesOf(payload: Buffer): string[][] {
  const lists: string[][] = [];
  for (let at = 17; lists.length < 8 && at + 4 <= payload.length; ) {
    const end = at + 4 + payload.readUInt32BE(at);
    if (end > payload.length) break;
    lists.push(payload.subarray(at + 4, end).toString("latin1").split(","));
    at = end;
  }
  return lists;
}
