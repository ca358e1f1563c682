import { createCipheriv, createHmac, randomBytes } from "node:crypto";

/** A new Fernet key as other systems write it. */
export const newFernetKey = (): string => `${randomBytes(32).toString("base64url")}=`;

/** A token as another system would have made it. */
export function fernetToken(key: string, plaintext: string, { at = new Date(), iv = randomBytes(16) }: { at?: Date; iv?: Buffer } = {}): string {
  const raw = Buffer.from(key, "base64url");
  const head = Buffer.alloc(9);
  head.writeUInt8(0x80);
  head.writeBigUInt64BE(BigInt(Math.floor(at.getTime() / 1000)), 1);
  const cipher = createCipheriv("aes-128-cbc", raw.subarray(16), iv);
  const signed = Buffer.concat([head, iv, cipher.update(plaintext, "utf8"), cipher.final()]);
  const token = Buffer.concat([signed, createHmac("sha256", raw.subarray(0, 16)).update(signed).digest()]).toString("base64url");
  return token.padEnd(Math.ceil(token.length / 4) * 4, "=");
}
