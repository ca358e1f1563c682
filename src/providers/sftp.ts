import { z } from "zod";
import type { SecretDocument } from "../domain/credential.ts";
import { checkSftp, type SftpTarget } from "./checks/sftp.ts";
import { host, hostKeyFingerprint, identifier, port, secretOrEmpty, secretText } from "./fields.ts";
import { checkPrivateKey, keyOpeners } from "./private-key.ts";
import type { CredentialShape, Provider } from "./provider.ts";
import { numberAt, shape, textAt } from "./shape.ts";
import { fault } from "./structure.ts";

/** The port of SSH (RFC 4253 section 4.1). */
const SSH_PORT = 22;

const server = {
  host: host(),
  port: port(SSH_PORT).optional(),
  username: identifier("User name", "User to log in as"),
  host_key_fingerprint: hostKeyFingerprint().optional(),
};

const targetOf = (document: SecretDocument, credential: SftpTarget["credential"]): SftpTarget => ({
  host: textAt(document, "host"),
  port: numberAt(document, "port", SSH_PORT),
  username: textAt(document, "username"),
  hostKeyFingerprint: textAt(document, "host_key_fingerprint"),
  credential,
});

const passwordShape = shape({
  schema: z
    .looseObject({ ...server, password: secretText("Password", "The user's password") })
    .meta({ title: "SFTP with a password", description: "User name and password of an SFTP server" }),
  secret: (document) => ({
    $case: "sftpPassword",
    value: {
      host: textAt(document, "host"),
      port: numberAt(document, "port", SSH_PORT),
      username: textAt(document, "username"),
      password: textAt(document, "password"),
      hostKeyFingerprint: textAt(document, "host_key_fingerprint"),
    },
  }),
});

const userPassword: CredentialShape = {
  ...passwordShape,
  check: (document, io, { testPath }) => checkSftp(targetOf(document, { kind: "password", password: textAt(document, "password") }), io, testPath),
};

const keyShape = shape({
  schema: z
    .looseObject({
      ...server,
      private_key_data: secretText("Private key", "The private key, in PEM or OpenSSH armour"),
      private_key_passphrase: secretOrEmpty("Passphrase", "What the private key is encrypted with; leave out for a key that is not").optional(),
    })
    .meta({ title: "SFTP with a private key", description: "User name and private key of an SFTP server" }),
  async check(document, options) {
    const refused = await checkPrivateKey(textAt(document, "private_key_data"), textAt(document, "private_key_passphrase"), keyOpeners(options));
    return refused === null ? [] : [fault(refused.key, refused.type, refused.message)];
  },
  secret: (document) => ({
    $case: "sftpKey",
    value: {
      host: textAt(document, "host"),
      port: numberAt(document, "port", SSH_PORT),
      username: textAt(document, "username"),
      privateKeyData: textAt(document, "private_key_data"),
      privateKeyPassphrase: textAt(document, "private_key_passphrase"),
      hostKeyFingerprint: textAt(document, "host_key_fingerprint"),
    },
  }),
});

const keyFile: CredentialShape = {
  ...keyShape,
  check(document, io, { testPath }) {
    const [privateKeyData, privateKeyPassphrase] = [textAt(document, "private_key_data"), textAt(document, "private_key_passphrase")];
    return checkSftp(targetOf(document, { kind: "key", privateKeyData, privateKeyPassphrase }), io, testPath);
  },
};

/** SFTP servers (SSH File Transfer Protocol). */
export const sftp: Provider = {
  provider: "sftp",
  displayName: "SFTP",
  description: "Files on an SFTP server",
  category: "storage",
  types: { user_password: userPassword, key_file: keyFile },
};
