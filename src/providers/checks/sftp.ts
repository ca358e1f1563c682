import type { CheckIo, CheckResult } from "../../domain/check.ts";
import { failed } from "./doctor.ts";
import { openSftp, tryFolder } from "./sftp-files.ts";
import { logIn, type SshLogin } from "./sftp-login.ts";
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
  try {
    login = { username: target.username, hostKeyFingerprint: target.hostKeyFingerprint, credential: opened(target.credential) };
  } catch (error) {
    return failed(error instanceof CheckFailure ? error.reason : "check_failed");
  }
  return conduct(io, target, "ssh_banner", async (connection, trial) => {
    const client = await logIn(connection, login, trial);
    const sftp = await openSftp(client, trial);
    await tryFolder(sftp, testPath === "" ? "." : testPath, trial);
    trial.succeed();
    const { promise, resolve } = Promise.withResolvers<void>();
    client.once("close", () => resolve());
    client.end();
    await farewell(promise);
    return trial.details["credential_checked"] === false ? "sftp_open_to_anyone" : "sftp_works";
  });
}

function opened(credential: SftpTarget["credential"]): SshLogin["credential"] {
  if (credential.kind === "password") return credential;
  return { kind: "key", key: openSshKey(credential.privateKeyData, credential.privateKeyPassphrase) };
}
