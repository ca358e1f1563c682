import { createHash } from "node:crypto";
import ssh2 from "ssh2";
import type { AnyAuthMethod, Client, ConnectConfig, ParsedKey, Prompt, ServerHostKeyAlgorithm } from "ssh2";
import type { GuardedConnection } from "../../domain/check.ts";
import type { Reason } from "./doctor.ts";
import { Relay } from "./relay.ts";
import { ALGORITHMS, screenGreeting } from "./ssh-greeting.ts";
import type { Trial } from "./trial.ts";

/** Who logs in, and with what. */
export interface SshLogin {
  readonly username: string;
  readonly credential: { readonly kind: "password"; readonly password: string } | { readonly kind: "key"; readonly key: ParsedKey };
  /** `SHA256:` and unpadded base64; empty where the server is not pinned. */
  readonly hostKeyFingerprint: string;
  /** Algorithms of host keys to ask for, best first; all that are safe where not given. */
  readonly hostKeyAlgorithms?: readonly string[];
  /** Hears which the server has. */
  readonly offered?: (hostKeyAlgorithms: readonly string[]) => void;
}

/** Details: the fingerprint of a key that the server has proved to hold, and of one that it has only shown. */
const PROVEN = "host_key_fingerprint";
const UNPROVEN = "host_key_fingerprint_unproven";

/** Logs in over a connection; resolves with a client that is ready for sessions. A failure ends the trial. */
export async function logIn(connection: GuardedConnection, login: SshLogin, trial: Trial): Promise<Client> {
  const client = new ssh2.Client();
  const { promise, resolve } = Promise.withResolvers<void>();
  const screen = screenGreeting({
    identified(server) {
      trial.phase = "ssh_key_exchange";
      if (server !== null) trial.details["server"] = server;
    },
    offered: (hostKeys) => login.offered?.(hostKeys),
  });
  client.on("error", (error) => trial.fail(reasonOf(error, trial)));
  client.on("end", () => trial.closed());
  client.on("close", () => trial.closed());
  client.on("handshake", () => {
    // The server has signed the exchange with the key that it showed (RFC 4253 section 8).
    const shown = trial.details[UNPROVEN];
    delete trial.details[UNPROVEN];
    if (shown !== undefined) trial.details[PROVEN] = shown;
    if (trial.phase === "ssh_key_exchange") trial.phase = "ssh_authentication";
  });
  client.on("change password", () => trial.fail("ssh_password_change_required"));
  client.on("ready", () => {
    connection.authenticated();
    resolve();
  });
  client.connect(settings(login, new Relay(connection.stream, trial, screen), trial));
  await Promise.race([promise, trial.over]);
  return client;
}

/** Everything is said explicitly: the library's defaults include SHA-1, compression and accepting any host key. */
function settings(login: SshLogin, sock: Relay, trial: Trial): ConnectConfig {
  return {
    sock,
    username: login.username,
    ident: "flow_credentials",
    algorithms: {
      kex: [...ALGORITHMS.kex],
      serverHostKey: [...(login.hostKeyAlgorithms ?? ALGORITHMS.serverHostKey)] as ServerHostKeyAlgorithm[],
      cipher: [...ALGORITHMS.cipher],
      hmac: [...ALGORITHMS.hmac],
      compress: [...ALGORITHMS.compress],
    },
    hostVerifier: hostVerifier(login.hostKeyFingerprint, trial),
    authHandler: authentication(login, trial),
    readyTimeout: 0,
    keepaliveInterval: 0,
    agentForward: false,
  };
}

/**
 * Decides whether a host key is the pinned one; the only answer is a boolean, given at once, because the library takes
 * everything but `false` for consent, a promise included. Also a later key exchange must show the same key.
 */
export function hostVerifier(pinned: string, trial: Trial): (key: Buffer) => boolean {
  let expected = pinned;
  return (key) => {
    try {
      const fingerprint = `SHA256:${createHash("sha256").update(key).digest("base64").replace(/=+$/, "")}`;
      if (fingerprint !== trial.details[PROVEN]) trial.details[UNPROVEN] = fingerprint;
      trial.details["host_key_type"] = typeOf(key);
      trial.details["host_key_pinned"] = pinned !== "";
      if (expected === "") expected = fingerprint;
      if (fingerprint === expected) return true;
      trial.fail("host_key_changed");
    } catch {
      trial.fail("host_key_unreadable");
    }
    return false;
  };
}

/** The name of the key's kind (RFC 4253 section 6.6); only those that were offered are repeated. */
function typeOf(key: Buffer): string {
  const name = key.subarray(4, 4 + key.readUInt32BE(0)).toString("latin1");
  return [...ALGORITHMS.serverHostKey, "ssh-rsa"].find((known) => known === name) ?? "unknown";
}

/**
 * Asks first which methods there are (RFC 4252 section 5.2), then presents the credential once, by one method. The
 * credential is not sent to a server that does not ask for it.
 */
function authentication({ username, credential }: SshLogin, trial: Trial): NonNullable<ConnectConfig["authHandler"]> {
  let offered: readonly string[] | null = null;
  let presented = false;
  trial.details["credential_checked"] = false;
  return (methods, partial, next) => {
    if (methods === null) return next({ type: "none", username });
    if (partial) return trial.fail("ssh_more_factors_required");
    if (presented) {
      // The library goes on without having asked the server where it shares no signature algorithm with it.
      const unasked = methods === offered;
      return trial.fail(unasked ? "ssh_rsa_sha2_missing" : credential.kind === "password" ? "ssh_password_refused" : "ssh_key_refused");
    }
    const method = methodFor(username, credential, methods, trial);
    if (method === null) return trial.fail(credential.kind === "password" ? "ssh_password_not_offered" : "ssh_key_not_offered");
    [offered, presented] = [methods, true];
    trial.details["credential_checked"] = true;
    next(method);
  };
}

function methodFor(username: string, credential: SshLogin["credential"], offered: readonly string[], trial: Trial): AnyAuthMethod | null {
  if (credential.kind === "key") {
    return offered.includes("publickey") ? { type: "publickey", username, key: withoutSha1(credential.key, trial) } : null;
  }
  const { password } = credential;
  if (offered.includes("password")) return { type: "password", username, password };
  return offered.includes("keyboard-interactive") ? { type: "keyboard-interactive", username, prompt: prompter(password, trial) } : null;
}

/** An RSA key signs with SHA-1 where the server names no other way (RFC 8332 section 3.3); this one does not. */
function withoutSha1(key: ParsedKey, trial: Trial): ParsedKey {
  const sign = key.sign.bind(key);
  key.sign = (data, algorithm) => {
    if (algorithm !== "sha1") return sign(data, algorithm);
    trial.fail("ssh_rsa_sha2_missing");
    throw new TypeError("SHA-1 is not used");
  };
  return key;
}

/** Answers one hidden question with the password, once (RFC 4256 section 3.2). */
function prompter(password: string, trial: Trial) {
  let answered = false;
  return (_name: string, _instructions: string, _language: string, prompts: Prompt[], finish: (responses: string[]) => void): void => {
    if (answered) return trial.fail("ssh_more_factors_required");
    if (prompts.length !== 1 || prompts[0]?.echo === true) return trial.fail("ssh_prompt_unexpected");
    answered = true;
    finish([password]);
  };
}

/** Reasons of a server to disconnect (RFC 4253 section 11.1). */
const HOST_NOT_ALLOWED = 1;
const DISCONNECTS: Readonly<Record<number, Reason>> = { [HOST_NOT_ALLOWED]: "ssh_host_not_allowed", 12: "ssh_too_many_connections", 14: "ssh_too_many_failures" };

/** What an error of the library means. Its words are compared with known ones and never repeated. */
function reasonOf(error: Error & { level?: string; code?: unknown }, trial: Trial): Reason {
  const { phase } = trial;
  if (typeof error.code === "number") {
    const known = DISCONNECTS[error.code];
    // Once it has seen the credential, a server does not mean our address by the first of them.
    if (known !== undefined && (error.code !== HOST_NOT_ALLOWED || trial.details["credential_checked"] !== true)) return known;
    if (/too many authentication failures/i.test(error.message)) return "ssh_too_many_failures";
    return `${phase}_closed`;
  }
  if (error.level === "client-socket" || error.message === "Connection lost before handshake") return `${phase}_closed`;
  if (error.level === "handshake") return "ssh_key_exchange_failed";
  return phase === "ssh_key_exchange" ? "ssh_key_exchange_failed" : "ssh_protocol_broken";
}
