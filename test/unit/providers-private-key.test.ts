import { generateKeyPairSync, type KeyObject } from "node:crypto";
import selfsigned from "selfsigned";
import ssh2 from "ssh2";
import { beforeAll, describe, expect, test } from "vitest";
import type { SecretDocument } from "../../src/domain/credential.ts";
import { accept, expose } from "../../src/providers/index.ts";
import { checkPrivateKey, keyOpeners } from "../../src/providers/private-key.ts";
import { sshKeyPair } from "../support/ssh-keys.ts";

const PASSPHRASE = "correct horse";
const { utils } = ssh2;
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
const p256 = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
const ed25519 = generateKeyPairSync("ed25519");

const OPTIONS = { now: new Date(0), fairness: "organization", signal: new AbortController().signal };
const check = (text: string, passphrase: string) => checkPrivateKey(text, passphrase, keyOpeners(OPTIONS));

const pem = (key: KeyObject, type: "pkcs1" | "pkcs8" | "sec1", cipher?: string): string =>
  (cipher === undefined ? key.export({ format: "pem", type }) : key.export({ format: "pem", type, cipher, passphrase: PASSPHRASE })).toString();
const openssh = (cipher?: string): string =>
  sshKeyPair("ed25519", cipher === undefined ? {} : { cipher, passphrase: PASSPHRASE, rounds: 1 }).private;

const AES = [128, 192, 256].flatMap((bits) => [`aes${bits}-ctr`, `aes${bits}-cbc`]);
const OPENSSH_CIPHERS = [...AES, "3des-cbc", "aes128-gcm@openssh.com", "aes256-gcm@openssh.com"];
const plain: readonly (readonly [string, string])[] = [
  ["an RSA key in PKCS#1", pem(rsa.privateKey, "pkcs1")],
  ["an RSA key in PKCS#8", pem(rsa.privateKey, "pkcs8")],
  ["an EC key in SEC1", pem(p256.privateKey, "sec1")],
  ["an EC key in PKCS#8", pem(p256.privateKey, "pkcs8")],
  ["an EC key on P-384", pem(generateKeyPairSync("ec", { namedCurve: "secp384r1" }).privateKey, "sec1")],
  ["an EC key on P-521", pem(generateKeyPairSync("ec", { namedCurve: "secp521r1" }).privateKey, "pkcs8")],
  ["an Ed25519 key in PKCS#8", pem(ed25519.privateKey, "pkcs8")],
  ["an Ed25519 key in OpenSSH armour", openssh()],
  ["an RSA key in OpenSSH armour", utils.generateKeyPairSync("rsa", { bits: 2048 }).private],
  ["an EC key in OpenSSH armour", utils.generateKeyPairSync("ecdsa", { bits: 384 }).private],
];
const encrypted: readonly (readonly [string, string])[] = [
  ["PKCS#8", pem(rsa.privateKey, "pkcs8", "aes-256-cbc")],
  ["PKCS#8 with Ed25519", pem(ed25519.privateKey, "pkcs8", "aes-128-cbc")],
  ["old PEM with AES", pem(rsa.privateKey, "pkcs1", "aes-128-cbc")],
  ["old PEM with triple DES", pem(p256.privateKey, "sec1", "des-ede3-cbc")],
  ...OPENSSH_CIPHERS.map((cipher) => [`OpenSSH with ${cipher}`, openssh(cipher)] as const),
];

describe("keys that are not encrypted", () => {
  test.each(plain)("%s is taken, with line ends of either kind, space around it, and a needless passphrase", async (_, key) => {
    for (const text of [key, key.trim(), `\n  ${key}\n\n`, key.replaceAll("\n", "\r\n")]) expect(await check(text, "")).toBeNull();
    expect(await check(key, "needless")).toBeNull();
  });

  test("the key is stored and handed out as given", async () => {
    const given: SecretDocument = { host: "h", username: "u", port: "2222", private_key_data: ` ${plain[1]?.[1]}`, private_key_passphrase: "" };
    const { document } = await accept("sftp", "key_file", given, OPTIONS);
    expect(document).toEqual({ ...given, port: 2222 });
    expect(expose("sftp", "key_file", document)).toEqual({
      secret: {
        $case: "sftpKey",
        value: { host: "h", port: 2222, username: "u", privateKeyData: given["private_key_data"], privateKeyPassphrase: "", hostKeyFingerprint: "" },
      },
      extra: {},
      expiresAt: null,
    });
  });
});

describe("encrypted keys", () => {
  test.each(encrypted)("%s opens with its passphrase only", async (_, key) => {
    const [right, wrong, missing] = await Promise.all([PASSPHRASE, "wrong", ""].map((passphrase) => check(key, passphrase)));
    expect(right).toBeNull();
    expect(wrong).toEqual({ key: "private_key_passphrase", type: "value_error", message: "The passphrase does not open the private key" });
    expect(missing).toEqual({ key: "private_key_passphrase", type: "missing", message: "The private key is encrypted; give its passphrase" });
  });

  test("a wrong passphrase is a fault of private_key_passphrase that quotes neither", async () => {
    const document = { host: "h", username: "u", private_key_data: encrypted[0]?.[1], private_key_passphrase: "C4NARY" };
    const refused = await accept("sftp", "key_file", document, OPTIONS).catch((error: unknown) => error);
    expect(refused).toMatchObject({ violations: [{ path: ["credentials", "private_key_passphrase"] }], cause: undefined });
    expect(JSON.stringify(refused)).not.toContain("C4NARY");
  });

  test("a key that was tampered with does not open", async () => {
    const lines = openssh("aes256-gcm@openssh.com").trim().split("\n");
    const bytes = Buffer.from(lines.slice(1, -1).join(""), "base64");
    bytes.writeUInt8(bytes.readUInt8(bytes.length - 1) ^ 1, bytes.length - 1);
    const tampered = [lines[0], bytes.toString("base64"), lines.at(-1)].join("\n");
    expect(await check(tampered, PASSPHRASE)).toMatchObject({ key: "private_key_passphrase" });
  });
});

describe("what is no private key", () => {
  const key = plain[0]?.[1] ?? "";
  const publicPem = rsa.publicKey.export({ format: "pem", type: "spki" }).toString();
  let certificate = "";
  beforeAll(async () => {
    certificate = (await selfsigned.generate([{ name: "commonName", value: "x" }])).cert;
  });
  const advice = async (text: string): Promise<string> => {
    const fault = await check(text, "");
    expect(fault).toMatchObject({ key: "private_key_data", type: "value_error" });
    return fault?.message ?? "";
  };

  test("public keys, certificates and PuTTY keys are refused with what to do instead", async () => {
    expect(await advice(publicPem)).toMatch(/public key; give the private key/);
    expect(await advice(utils.generateKeyPairSync("ed25519").public)).toMatch(/public key; give the private key/);
    expect(await advice(certificate)).toMatch(/certificate/);
    expect(await advice("PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n")).toMatch(/PuTTYgen/);
    expect(await advice("-----BEGIN PGP PRIVATE KEY BLOCK-----\n")).toMatch(/OpenPGP/);
  });

  test("text without armour, with two keys, without line breaks or end, or with broken base64 is refused", async () => {
    for (const text of [
      "hello", "MIIEvQ", `${key}${key}`, key.replaceAll("\n", ""), key.replaceAll("\n", "\\n"), key.slice(0, -40), `x${key}`, `${key}x`,
    ]) {
      await advice(text);
    }
    for (const text of [
      key.replace("A", "*"), key.replace(/\n.*\n-----END/, "\n-----END"), key.replace("RSA PRIVATE", "EC PRIVATE"),
      key.replaceAll("RSA PRIVATE", "EC PRIVATE"),
    ]) {
      await advice(text);
    }
    for (const text of [
      key.replaceAll("RSA PRIVATE", "PRIVATE"), key.replaceAll("RSA PRIVATE", "OPENSSH PRIVATE"),
      key.replaceAll("RSA PRIVATE", "ENCRYPTED PRIVATE"),
    ]) {
      await advice(text);
    }
  });

  test("keys that SSH cannot use are refused", async () => {
    for (const other of [
      generateKeyPairSync("ec", { namedCurve: "secp256k1" }), generateKeyPairSync("x25519"), generateKeyPairSync("ed448"),
      generateKeyPairSync("rsa-pss", { modulusLength: 1024 }),
    ]) {
      expect(await advice(pem(other.privateKey, "pkcs8"))).toMatch(/SSH can use/);
    }
    const hidden = pem(generateKeyPairSync("x25519").privateKey, "pkcs8", "aes-256-cbc");
    expect(await check(hidden, PASSPHRASE)).toMatchObject({ key: "private_key_data" });
    const head = Buffer.concat([Buffer.from("openssh-key-v1\0"), ...["none", "none", ""].map(sshString), Buffer.from([0, 0, 0, 1])]);
    const security = Buffer.concat([head, sshString(sshString("sk-ssh-ed25519@openssh.com")), sshString("")]);
    expect(await advice(`-----BEGIN OPENSSH PRIVATE KEY-----\n${security.toString("base64")}\n-----END OPENSSH PRIVATE KEY-----\n`)).toMatch(/security key/);
  });

  test("ca_certificate is certificates and nothing else", async () => {
    const fields = { host: "h", username: "u", password: "p", database: "d" };
    const taken = async (ca_certificate: string) => {
      const { document } = await accept("postgresql", "user_password", { ...fields, ca_certificate }, OPTIONS);
      return document["ca_certificate"];
    };
    for (const text of [certificate, `${certificate}\n# another\n${certificate}`]) expect(await taken(text)).toBe(text);
    for (const text of [
      "x", "/etc/ssl/ca.pem", key, `${certificate}${key}`, certificate.replace("M", "*"), certificate.slice(0, -30),
      certificate.repeat(17), `${certificate}${" ".repeat(40_000)}`,
    ]) {
      await expect(taken(text)).rejects.toMatchObject({ violations: [{ path: ["credentials", "ca_certificate"] }] });
    }
  });
});

describe("encrypted keys of several organizations", () => {
  const document = { host: "h", username: "u", private_key_data: encrypted[0]?.[1] ?? "", private_key_passphrase: PASSPHRASE };

  test("are opened in turns: one that posts too many is refused, another is not", async () => {
    const post = (fairness: string) => accept("sftp", "key_file", document, { ...OPTIONS, fairness }).then(() => "taken", (error: { reason: string }) => error.reason);
    expect(await Promise.all(["a", "a", "a", "a", "a", "b"].map(post))).toEqual(["taken", "taken", "taken", "OVERLOADED", "OVERLOADED", "taken"]);
  });

  test("are not opened for a caller who has gone", async () => {
    const gone = { ...OPTIONS, signal: AbortSignal.abort(new Error("gone")) };
    await expect(accept("sftp", "key_file", document, gone)).rejects.toThrow("gone");
  });
});

function sshString(content: string | Buffer): Buffer {
  const bytes = Buffer.from(content);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}
