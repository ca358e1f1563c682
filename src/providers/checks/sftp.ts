import type { CheckIo, CheckResult } from "../../domain/check.ts";
import { failed } from "./doctor.ts";
import type { Pass } from "./passes.ts";
import { openSftp, tryFolder } from "./sftp-files.ts";
import { logIn, type SshLogin } from "./sftp-login.ts";
import { HOST_KEY_KINDS } from "./ssh-greeting.ts";
import { openSshKey } from "./ssh-key.ts";
import { CheckFailure, conduct, farewell } from "./trial.ts";

/** An SFTP server and how to log in. */
export interface SftpTarget {
  readonly host: string;
  readonly port: number;
  readonly username: string;
  /** `SHA256:` and unpadded base64; empty where the server is not pinned. */
  readonly hostKeyFingerprint: string;
  readonly credential:
    | { readonly kind: "password"; readonly password: string }
    | { readonly kind: "key"; readonly privateKeyData: string; readonly privateKeyPassphrase: string };
}

/**
 * Tests an SFTP server: verifies its host key, logs in, lists a folder, and writes, reads and removes a file there.
 * Never throws. An empty path means the user's home.
 */
export async function checkSftp(target: SftpTarget, io: CheckIo, testPath: string): Promise<CheckResult> {
  let login: SshLogin;
  let offered: readonly string[] = [];
  try {
    login = { username: target.username, hostKeyFingerprint: target.hostKeyFingerprint, credential: opened(target.credential), offered: (hostKeys) => (offered = hostKeys) };
  } catch (error) {
    return failed(error instanceof CheckFailure ? error.reason : "check_failed");
  }
  const first = await attempt(io, target, login, testPath);
  if (first.reason !== "host_key_changed") return first;
  // The server shows the first kind of key that we ask for and it has; the pinned one may be of another kind. Nothing is sent until it is the pinned one.
  for (const kind of HOST_KEY_KINDS.filter((algorithms) => algorithms.some((name) => offered.includes(name))).slice(1)) {
    const next = await attempt(io, target, { ...login, hostKeyAlgorithms: kind }, testPath, "sftp_pinned_key_is_not_first");
    if (next.details["host_key_pinned"] === true && next.details["host_key_fingerprint"] === target.hostKeyFingerprint) return next;
  }
  return first;
}

function attempt(io: CheckIo, target: SftpTarget, login: SshLogin, testPath: string, pass: Pass = "sftp_works"): Promise<CheckResult> {
  return conduct(io, target, "ssh_banner", async (connection, trial) => {
    const client = await logIn(connection, login, trial);
    const sftp = await openSftp(client, trial);
    await tryFolder(sftp, testPath === "" ? "." : testPath, trial);
    trial.succeed();
    const { promise, resolve } = Promise.withResolvers<void>();
    client.once("close", () => resolve());
    client.end();
    await farewell(promise);
    return trial.details["credential_checked"] === false ? "sftp_open_to_anyone" : pass;
  });
}

function opened(credential: SftpTarget["credential"]): SshLogin["credential"] {
  if (credential.kind === "password") return credential;
  return { kind: "key", key: openSshKey(credential.privateKeyData, credential.privateKeyPassphrase) };
}
