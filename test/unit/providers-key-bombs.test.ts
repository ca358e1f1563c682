import { generateKeyPairSync } from "node:crypto";
import ssh2 from "ssh2";
import { describe, expect, test } from "vitest";
import { bitsOf, elementsOf, INTEGER, wholeNumber } from "../../src/providers/der.ts";
import { MAX_PBKDF2_ITERATIONS } from "../../src/providers/key-limits.ts";
import { MAX_BCRYPT_ROUNDS } from "../../src/providers/key-openssh.ts";
import { checkPrivateKey, type KeyOpeners } from "../../src/providers/private-key.ts";
import { sshKeyPair } from "../support/ssh-keys.ts";

/** Openers that prove that no parser saw the key. */
const unreachable: KeyOpeners = {
  inline: () => expect.unreachable("parsed inline"),
  elsewhere: () => expect.unreachable("parsed in a worker"),
};
const opened: KeyOpeners = { inline: () => "opened", elsewhere: () => Promise.resolve("opened") };
const refusal = async (key: string): Promise<string> => (await checkPrivateKey(key, "passphrase", unreachable))?.message ?? "accepted";

const armour = (label: string, bytes: Buffer): string =>
  [`-----BEGIN ${label}-----`, ...(bytes.toString("base64").match(/.{1,64}/g) ?? []), `-----END ${label}-----`, ""].join("\n");
const bytesOf = (key: string): Buffer => Buffer.from(key.split("\n").filter((line) => !line.startsWith("-----")).join(""), "base64");
const u32 = (value: number): Buffer => Buffer.from([value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255]);

describe("OpenSSH keys", () => {
  const file = bytesOf(sshKeyPair("ed25519", { passphrase: "passphrase", cipher: "aes256-ctr", rounds: 16 }).private);
  const roundsAt = file.indexOf(Buffer.concat([u32(16)]), file.indexOf("bcrypt") + 6 + 8 + 16);
  const patched = (at: number, bytes: Buffer): string => {
    const copy = Buffer.from(file);
    bytes.copy(copy, at);
    return armour("OPENSSH PRIVATE KEY", copy);
  };

  test.each([MAX_BCRYPT_ROUNDS + 1, 1_000_000, 0xffff_ffff])("%i rounds of bcrypt are refused before any parser runs", async (rounds) => {
    expect(await refusal(patched(roundsAt, u32(rounds)))).toMatch(/more than 128 rounds/);
  });

  test("as many rounds as are allowed reach the parser, none do not", async () => {
    expect(await checkPrivateKey(patched(roundsAt, u32(MAX_BCRYPT_ROUNDS)), "passphrase", opened)).toBeNull();
    expect(await refusal(patched(roundsAt, u32(0)))).toMatch(/damaged/);
  });

  test("more than one key, unknown ciphers and derivations, and truncation anywhere are refused", async () => {
    expect(await refusal(patched(roundsAt + 4, u32(2)))).toMatch(/exactly one/);
    expect(await refusal(patched(roundsAt + 4, u32(0xffff_ffff)))).toMatch(/exactly one/);
    expect(await refusal(patched(file.indexOf("aes256-ctr"), Buffer.from("aes999-ctr")))).toMatch(/not supported/);
    expect(await refusal(patched(file.indexOf("bcrypt"), Buffer.from("scrypt")))).toMatch(/not supported/);
    const inner = file.length - 160;
    for (let length = 1; length < inner; length += 1) expect(await refusal(armour("OPENSSH PRIVATE KEY", file.subarray(0, length)))).not.toBe("accepted");
  });

  test("an RSA modulus of 65,536 bits is refused, in the public part and in the private one", async () => {
    const plain = bytesOf(ssh2.utils.generateKeyPairSync("rsa", { bits: 1024 }).private);
    const string = (content: Buffer | string): Buffer => Buffer.concat([u32(Buffer.from(content).length), Buffer.from(content)]);
    const head = Buffer.concat([Buffer.from("openssh-key-v1\0"), string("none"), string("none"), string(""), u32(1)]);
    expect(plain.subarray(0, head.length)).toEqual(head);
    const huge = string(Buffer.alloc(8_192, 0xff));
    const small = string(Buffer.alloc(128, 0xff));
    const build = (published: Buffer, own: Buffer): string => {
      const outer = Buffer.concat([string("ssh-rsa"), string("\x01\0\x01"), published]);
      const inner = Buffer.concat([u32(7), u32(7), string("ssh-rsa"), own]);
      return armour("OPENSSH PRIVATE KEY", Buffer.concat([head, string(outer), string(inner)]));
    };
    expect(await refusal(build(huge, small))).toMatch(/16384 bits/);
    expect(await refusal(build(small, huge))).toMatch(/16384 bits/);
    expect(await checkPrivateKey(build(small, small), "", opened)).toBeNull();
  });
});

const rsa = generateKeyPairSync("rsa", { modulusLength: 1024 }).privateKey;
const encryptedDer = rsa.export({ format: "der", type: "pkcs8", cipher: "aes-256-cbc", passphrase: "passphrase" });

describe("encrypted PKCS#8 keys", () => {
  const tlv = (tag: number, ...contents: readonly Buffer[]): Buffer => {
    const content = Buffer.concat(contents);
    const length = content.length < 128 ? Buffer.from([content.length]) : Buffer.from([0x82, content.length >> 8, content.length & 255]);
    return Buffer.concat([Buffer.from([tag]), length, content]);
  };
  const integer = (value: number): Buffer => tlv(2, Buffer.concat([Buffer.from([0]), u32(value)]));
  const oid = (hex: string): Buffer => tlv(6, Buffer.from(hex, "hex"));
  const seq = (...parts: readonly Buffer[]): Buffer => tlv(0x30, ...parts);
  const salt = tlv(4, Buffer.alloc(8));
  const cipher = seq(oid("60864801650304012a"), tlv(4, Buffer.alloc(16)));
  const PBES2 = "2a864886f70d01050d";
  const key = (derivation: Buffer, scheme = PBES2): string =>
    armour("ENCRYPTED PRIVATE KEY", seq(seq(oid(scheme), seq(derivation, cipher)), tlv(4, Buffer.alloc(64))));
  const pbkdf2 = (...limits: readonly Buffer[]): Buffer => seq(oid("2a864886f70d01050c"), seq(salt, ...limits));
  const scrypt = (n: number, r: number, p: number): Buffer => seq(oid("2b06010401da47040b"), seq(salt, integer(n), integer(r), integer(p)));

  test("a real one passes the limits, so the crafted ones below are refused for what they ask", async () => {
    expect(await checkPrivateKey(armour("ENCRYPTED PRIVATE KEY", encryptedDer), "passphrase", opened)).toBeNull();
    expect(await checkPrivateKey(key(pbkdf2(integer(MAX_PBKDF2_ITERATIONS))), "passphrase", opened)).toBeNull();
    expect(await checkPrivateKey(key(scrypt(16_384, 8, 1)), "passphrase", opened)).toBeNull();
  });

  test("too many iterations of PBKDF2 are refused before any parser runs", async () => {
    for (const iterations of [MAX_PBKDF2_ITERATIONS + 1, 1_000_000_000]) expect(await refusal(key(pbkdf2(integer(iterations))))).toMatch(/too much work/);
    expect(await refusal(key(pbkdf2(tlv(2, Buffer.alloc(32, 0x7f)))))).toMatch(/too much work/);
    for (const odd of [
      integer(0), tlv(2, Buffer.from([0xff])), tlv(2, Buffer.alloc(0)), tlv(4, Buffer.from([1])),
    ]) {
      expect(await refusal(key(pbkdf2(odd)))).toMatch(/damaged/);
    }
  });

  test("scrypt that takes much memory or time is refused", async () => {
    for (const [n, r, p] of [
      [2 ** 20, 8, 1], [2, 2 ** 30, 1], [16_384, 8, 17], [2 ** 31, 2 ** 31, 1],
    ] as const) {
      expect(await refusal(key(scrypt(n, r, p)))).toMatch(/too much work/);
    }
  });

  test("old schemes, unknown derivations, nested PKCS#12 and indefinite lengths are refused", async () => {
    expect(await refusal(key(pbkdf2(integer(1)), "2a864886f70d010503"))).toMatch(/not supported/);
    expect(await refusal(key(seq(oid("2a03"), seq(salt, integer(1)))))).toMatch(/not supported/);
    const pkcs12 = seq(integer(3), seq(oid("2a864886f70d010701"), tlv(0xa0, tlv(4, Buffer.alloc(32)))));
    for (const label of [
      "ENCRYPTED PRIVATE KEY", "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY",
    ]) {
      expect(await refusal(armour(label, pkcs12))).not.toBe("accepted");
    }
    const indefinite = Buffer.concat([Buffer.from([0x30, 0x80]), encryptedDer.subarray(4), Buffer.alloc(2)]);
    expect(await refusal(armour("ENCRYPTED PRIVATE KEY", indefinite))).toMatch(/damaged/);
    for (let length = 0; length < encryptedDer.length; length += 7) {
      expect(await refusal(armour("ENCRYPTED PRIVATE KEY", encryptedDer.subarray(0, length)))).not.toBe("accepted");
    }
  });

  test("an RSA modulus of 65,536 bits is refused in PKCS#1 and in PKCS#8", async () => {
    const bomb = seq(tlv(2, Buffer.from([0])), tlv(2, Buffer.concat([Buffer.from([0]), Buffer.alloc(8_192, 0xff)])), integer(65_537));
    expect(await refusal(armour("RSA PRIVATE KEY", bomb))).toMatch(/16384 bits/);
    const wrapped = seq(tlv(2, Buffer.from([0])), seq(oid("2a864886f70d010101"), Buffer.from([5, 0])), tlv(4, bomb));
    expect(await refusal(armour("PRIVATE KEY", wrapped))).toMatch(/16384 bits/);
  });

  test("a curve that is written out instead of named is refused", async () => {
    const explicit = seq(tlv(2, Buffer.from([1])), tlv(4, Buffer.alloc(32, 1)), tlv(0xa0, seq(integer(1), seq(oid("2a8648ce3d0101"), integer(7)))));
    expect(await refusal(armour("EC PRIVATE KEY", explicit))).toMatch(/P-256/);
  });
});

describe("size and nonsense", () => {
  test("a megabyte of PEM is refused by its length", async () => {
    for (const text of [
      armour("RSA PRIVATE KEY", Buffer.alloc(1_000_000, 1)), `-----BEGIN RSA PRIVATE KEY-----\n${"a: b\n".repeat(200_000)}`,
      "-----BEGIN ".repeat(100_000),
    ]) {
      expect(await refusal(text)).toMatch(/longer than 16384/);
    }
  });

  test("headers that would make a parser backtrack are refused as text", async () => {
    expect(await refusal(`-----BEGIN RSA PRIVATE KEY-----\n${"a: b\n".repeat(3_000)}x\n-----END RSA PRIVATE KEY-----`)).toMatch(/base64/);
    const idea = `Proc-Type: 4,ENCRYPTED\nDEK-Info: IDEA-CBC,${"0".repeat(16)}\n\nAAAA`;
    expect(await refusal(`-----BEGIN RSA PRIVATE KEY-----\n${idea}\n-----END RSA PRIVATE KEY-----`)).toMatch(/not supported/);
    expect(await refusal("-----BEGIN PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: x\n\nAAAA\n-----END PRIVATE KEY-----")).toMatch(/headers/);
  });

  test("the reader of DER takes definite lengths and single-byte tags only", () => {
    for (const hex of ["30", "3080", "3085ffffffffff", "3084ffffffff", "1f8100", "300200", "0201"]) expect(elementsOf(Buffer.from(hex, "hex")), hex).toBeNull();
    expect(elementsOf(Buffer.alloc(40))).toBeNull();
    expect(wholeNumber({ tag: INTEGER, content: Buffer.from("0001", "hex") })).toBe(1);
    expect(wholeNumber({ tag: INTEGER, content: Buffer.from("01000000000000", "hex") })).toBe(Number.POSITIVE_INFINITY);
    expect(bitsOf(Buffer.from("000080", "hex"))).toBe(8);
  });
});
