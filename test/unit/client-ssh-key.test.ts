import { generateKeyPairSync, type KeyObject } from "node:crypto";
import ssh2 from "ssh2";
import { expect, test } from "vitest";
import { sshPrivateKey } from "../../src/client/ssh-key.ts";
import { sshKeyPair } from "../support/ssh-keys.ts";

const PASSPHRASE = "test-only passphrase";
const keys: [string, KeyObject, string][] = [
  ["RSA", generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey, "ssh-rsa"],
  ["P-256", generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey, "ecdsa-sha2-nistp256"],
  ["Ed25519", generateKeyPairSync("ed25519").privateKey, "ssh-ed25519"],
];
const pkcs8 = (key: KeyObject, passphrase = "") =>
  key.export(passphrase === "" ? { format: "pem", type: "pkcs8" } : { format: "pem", type: "pkcs8", cipher: "aes-256-cbc", passphrase }).toString();

/** What ssh2 makes of a key; signs, so that the private half is proven to be the one of the public half. */
function opened(privateKey: string, passphrase?: string) {
  const key = ssh2.utils.parseKey(privateKey, passphrase);
  if (key instanceof Error) throw key;
  const message = Buffer.from("message");
  expect(key.verify(message, key.sign(message) as Buffer)).toBe(true);
  return key;
}

test.each(keys)("an %s key in PKCS#8 becomes one that ssh2 reads, with the same public half", (_, key, type) => {
  expect(ssh2.utils.parseKey(pkcs8(key))).toBeInstanceOf(Error);
  for (const passphrase of ["", PASSPHRASE]) {
    const made = sshPrivateKey({ privateKeyData: pkcs8(key, passphrase), privateKeyPassphrase: passphrase });
    expect(made.passphrase).toBeUndefined();
    expect(opened(made.privateKey).type).toBe(type);
  }
});

test("a key that is not PKCS#8 is passed on as it is, with its passphrase", () => {
  const { private: privateKeyData } = sshKeyPair("ed25519", { cipher: "aes256-ctr", passphrase: PASSPHRASE, rounds: 4 });
  const made = sshPrivateKey({ privateKeyData, privateKeyPassphrase: PASSPHRASE });
  expect(made).toEqual({ privateKey: privateKeyData, passphrase: PASSPHRASE });
  expect(opened(made.privateKey, made.passphrase).type).toBe("ssh-ed25519");
});

test("a wrong passphrase throws, and the error does not repeat it", () => {
  const [, key] = keys[0] as [string, KeyObject, string];
  const attempt = () => sshPrivateKey({ privateKeyData: pkcs8(key, PASSPHRASE), privateKeyPassphrase: "another-passphrase" });
  expect(attempt).toThrow();
  expect(attempt).not.toThrow(/another-passphrase/);
});
