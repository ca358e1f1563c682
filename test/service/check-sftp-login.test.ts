import { generateKeyPairSync, sign } from "node:crypto";
import { connect } from "node:net";
import ssh2 from "ssh2";
import { describe, expect, test } from "vitest";
import { hostVerifier, logIn } from "../../src/providers/checks/sftp-login.ts";
import { checkSftp, type SftpTarget } from "../../src/providers/checks/sftp.ts";
import { Trial } from "../../src/providers/checks/trial.ts";
import { canary } from "../support/canary.ts";
import { abortWhenQuiet, directIo, shows } from "../support/hostile-dialer.ts";
import { acceptAll, type SshScript, sshServer } from "../support/hostile-ssh.ts";
import { generateKey } from "../support/sshd.ts";

const PASSWORD = canary("password");
const password = { kind: "password", password: PASSWORD } as const;
const { privateKey } = generateKeyPairSync("ed25519");
const key = { kind: "key", privateKeyData: privateKey.export({ format: "pem", type: "pkcs8" }).toString(), privateKeyPassphrase: "" } as const;
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({ format: "pem", type: "pkcs1" }).toString();
const target = (port: number, credential: SftpTarget["credential"] = password, hostKeyFingerprint = ""): SftpTarget => ({ host: "127.0.0.1", port, username: "user", hostKeyFingerprint, credential });

type Login = NonNullable<SshScript["login"]>;
/** Says which methods there are, and then does something about the first login. */
const offering = (methods: string[], then: Login): Login => (attempt, connection, socket) => {
  if (attempt.method === "none") attempt.reject(methods as never);
  else then(attempt, connection, socket);
};
const asking = (...rounds: { prompt: string; echo: boolean }[][]): Login =>
  offering(["keyboard-interactive"], (attempt) => {
    if (attempt.method !== "keyboard-interactive") return attempt.reject();
    const ask = (round: number): void => {
      const prompts = rounds[round];
      if (prompts === undefined) attempt.accept();
      else attempt.prompt(prompts, "canary-title", "canary-instructions", () => ask(round + 1));
    };
    ask(0);
  });
const HIDDEN = { prompt: "Password: ", echo: false };

/** What a server does at the login, with which credential, how the test ends, and which methods were tried. */
const CASES: readonly (readonly [what: string, login: Login, credential: SftpTarget["credential"], reason: string, methods: string])[] = [
  ["refuses the password", offering(["password"], (a) => a.reject(["password"])), password, "ssh_password_refused", "none password"],
  ["refuses the password and offers questions too", offering(["password", "keyboard-interactive"], (a) => a.reject(["password", "keyboard-interactive"])), password, "ssh_password_refused", "none password"],
  ["takes keys only", offering(["publickey"], acceptAll), password, "ssh_password_not_offered", "none"],
  ["takes passwords only", offering(["password"], acceptAll), key, "ssh_key_not_offered", "none"],
  ["refuses the key", offering(["publickey"], (a) => a.reject(["publickey"])), key, "ssh_key_refused", "none publickey"],
  ["wants a second factor after the password", offering(["password"], (a) => a.reject(["keyboard-interactive"], true)), password, "ssh_more_factors_required", "none password"],
  ["wants a second factor after the key", offering(["publickey"], (a) => a.reject(["password"], true)), key, "ssh_more_factors_required", "none publickey"],
  ["asks for a code after the password", asking([HIDDEN], [{ prompt: "Code: ", echo: true }]), password, "ssh_more_factors_required", "none keyboard-interactive"],
  ["asks two questions", asking([HIDDEN, HIDDEN]), password, "ssh_prompt_unexpected", "none keyboard-interactive"],
  ["asks a question that is shown", asking([{ prompt: "Name: ", echo: true }]), password, "ssh_prompt_unexpected", "none keyboard-interactive"],
  ["asks for a new password", offering(["password"], (a) => a.method === "password" && a.requestChange("canary", () => {})), password, "ssh_password_change_required", "none password"],
  ["hangs up at the password", offering(["password"], (_a, _c, socket) => socket.end()), password, "ssh_authentication_closed", "none password"],
  ["is silent at the password", offering(["password"], () => {}), password, "ssh_authentication_timed_out", "none password"],
  ["is silent at the first question", () => {}, password, "ssh_authentication_timed_out", "none"],
  ["counts too many failures", offering(["password"], (_a, connection) => disconnect(connection, 2, "Too many authentication failures")), password, "ssh_too_many_failures", "none password"],
  ["knows no further method", offering(["password"], (_a, connection) => disconnect(connection, 14, "canary")), password, "ssh_too_many_failures", "none password"],
  ["is full", (_a, connection) => disconnect(connection, 12, "canary"), password, "ssh_too_many_connections", "none"],
  ["does not like our address", (_a, connection) => disconnect(connection, 1, "canary"), password, "ssh_host_not_allowed", "none"],
  ["does not like the user", (attempt, connection) => (attempt.method === "none" ? attempt.reject(["password"]) : disconnect(connection, 1, "canary")), password, "ssh_authentication_closed", "none password"],
  ["disconnects for its own reasons", (_a, connection) => disconnect(connection, 7, "canary\u001b[31m\r\n"), password, "ssh_authentication_closed", "none"],
];

/** Sends the message that ends a connection (RFC 4253 section 11.1), which the library keeps to itself. */
function disconnect(connection: unknown, code: number, text: string): void {
  const { _protocol: protocol } = connection as { _protocol: { _packetRW: { write: Packets }; _cipher: { encrypt(packet: Buffer): void } } };
  const words = Buffer.from(text);
  const { _packetRW: { write }, _cipher: cipher } = protocol;
  const packet = write.alloc(13 + words.length);
  packet[write.allocStart] = 1;
  packet.writeUInt32BE(code, write.allocStart + 1);
  packet.writeUInt32BE(words.length, write.allocStart + 5);
  words.copy(packet, write.allocStart + 9);
  packet.writeUInt32BE(0, write.allocStart + 9 + words.length);
  cipher.encrypt(write.finalize(packet));
}
interface Packets {
  readonly allocStart: number;
  alloc(size: number): Buffer;
  finalize(packet: Buffer): Buffer;
}

describe("a server that, at the login,", () => {
  test.each(CASES)("%s is told apart", async (_, login, credential, reason, methods) => {
    await using server = await sshServer({ login });
    const io = directIo();
    if (reason.endsWith("_timed_out")) abortWhenQuiet(io, server);
    const result = await checkSftp(target(server.port, credential), io, "/");
    expect(result).toMatchObject({ success: false, reason });
    expect(result.details["host_key_fingerprint"]).toMatch(/^SHA256:/);
    expect(server.methods.filter((method, at, all) => method !== all[at - 1]).join(" ")).toBe(methods);
    expect([io.open(), shows(result, "canary")]).toEqual([0, false]);
  });

  test("takes RSA keys with SHA-2 gets one, and one that may only know SHA-1 gets no signature", async () => {
    const login = offering(["publickey"], acceptAll);
    const credential = { ...key, privateKeyData: rsa };
    await using modern = await sshServer({ login });
    expect(await checkSftp(target(modern.port, credential), directIo(), "/")).toMatchObject({ success: true });
    await using old = await sshServer({ silentAboutSignatures: true, login: offering(["publickey"], (attempt) => attempt.method === "publickey" && attempt.accept()) });
    expect(await checkSftp(target(old.port, credential), directIo(), "/")).toMatchObject({ success: false, reason: "ssh_rsa_sha2_missing" });
    expect(old.methods).toEqual(["none", "publickey"]);
  });

  test("asks for a hidden password hears it once, and lets us in", async () => {
    await using server = await sshServer({ login: asking([HIDDEN], []) });
    const result = await checkSftp(target(server.port), directIo(), "/");
    expect(result).toMatchObject({ success: true, reason: "ok", details: { credential_checked: true, can_write: true } });
  });

  test("asks for nothing is reported, and gets no password", async () => {
    await using server = await sshServer({ login: (attempt) => attempt.accept() });
    const result = await checkSftp(target(server.port), directIo(), "/");
    expect(result).toMatchObject({ success: true, details: { credential_checked: false }, message: expect.stringContaining("no credential") });
    expect([server.methods, server.passwords]).toEqual([["none"], []]);
  });
});

describe("a host key", () => {
  test("that the server shows but cannot sign with is told as unproven, and no login is tried", async () => {
    const shown = ssh2.utils.parseKey(generateKeyPairSync("ec", { namedCurve: "prime256v1" }).privateKey.export({ format: "pem", type: "sec1" }).toString());
    const held = generateKeyPairSync("ec", { namedCurve: "prime256v1" }).privateKey;
    if (shown instanceof Error) throw shown;
    shown.sign = (data) => sign("sha256", Buffer.from(data), held);
    await using server = await sshServer({ config: { hostKeys: [{ key: shown as never, passphrase: "" }] } });
    const { success, reason, details } = await checkSftp(target(server.port), directIo(), "/");
    expect([success, reason, details["host_key_fingerprint"]]).toEqual([false, "ssh_key_exchange_failed", undefined]);
    expect(details["host_key_fingerprint_unproven"]).toMatch(/^SHA256:/);
    expect(server.methods).toEqual([]);
  });

  test("that is the pinned one is accepted, and another one ends the test before any login", async () => {
    await using server = await sshServer();
    const first = await checkSftp(target(server.port), directIo(), "/");
    const pinned = String(first.details["host_key_fingerprint"]);
    expect(first.details).toMatchObject({ host_key_pinned: false, host_key_type: "ecdsa-sha2-nistp256" });
    const second = await checkSftp(target(server.port, password, pinned), directIo(), "/");
    expect(second).toMatchObject({ success: true, details: { host_key_pinned: true, host_key_fingerprint: pinned } });
    expect(second.details).not.toHaveProperty("host_key_fingerprint_unproven");
    const tried = server.methods.length;
    const third = await checkSftp(target(server.port, password, `SHA256:${"A".repeat(43)}`), directIo(), "/");
    expect(third).toMatchObject({ success: false, layer: "host_key", reason: "host_key_changed", details: { host_key_fingerprint_unproven: pinned } });
    expect(third.details).not.toHaveProperty("host_key_fingerprint");
    expect(server.methods).toHaveLength(tried);
  });

  test("is judged at once and with a boolean only, whatever it holds; what cannot be read is refused", () => {
    const trial = new Trial("ssh_key_exchange");
    const verify = hostVerifier("", trial);
    expect(verify(Buffer.from("\0\0\0\x0bssh-ed25519"))).toBe(true);
    expect(verify(Buffer.from("\0\0\0\x0bssh-ed2551X"))).toBe(false);
    expect(trial.failure?.reason).toBe("host_key_changed");
    for (const bad of [Buffer.alloc(0), Buffer.alloc(3), null, undefined]) {
      const other = new Trial("ssh_key_exchange");
      expect(hostVerifier("", other)(bad as never)).toBe(false);
      expect(other.failure?.reason).toBe("host_key_unreadable");
    }
  });
});

describe("a verifier that", () => {
  /** Logs in with what a test uses, but for the details, into which nothing looks before the verifier does; every look does this. */
  const loggedIn = async (port: number, fault: () => never) => {
    const trial = new Trial("ssh_banner");
    const details = new Proxy({}, { get: fault, set: () => true });
    Object.defineProperty(trial, "details", { value: details });
    const socket = connect(port, "127.0.0.1");
    const connection = { stream: socket, authenticated() {} };
    try {
      return await Promise.race([logIn(connection, { username: "user", hostKeyFingerprint: "", credential: password }, trial), trial.over]).then(() => "in", () => trial.failure?.reason);
    } finally {
      socket.destroy();
    }
  };

  test.each<readonly [string, () => never]>([
    ["throws", () => { throw new Error("canary"); }],
    ["throws nothing at all", () => { throw undefined; }],
    ["throws a promise", () => { throw Promise.resolve(true); }],
  ])("%s sends no packet of authentication", async (_, fault) => {
    await using server = await sshServer({ login: acceptAll });
    expect([await loggedIn(server.port, fault), server.methods, server.passwords]).toEqual(["host_key_unreadable", [], []]);
  });

  test("is the library's is believed in everything but false, which is why ours gives nothing else", async () => {
    await using server = await sshServer({ login: acceptAll });
    const client = new ssh2.Client();
    const ready = new Promise((resolve, reject) => client.once("ready", () => resolve("in")).once("error", reject));
    client.connect({ host: "127.0.0.1", port: server.port, username: "user", password: PASSWORD, hostVerifier: (() => Promise.resolve(false)) as never });
    expect(await ready).toBe("in");
    client.destroy();
    expect(hostVerifier("", new Trial("ssh_key_exchange"))(Buffer.from("\0\0\0\x0bssh-ed25519"))).toBe(true);
  });
});

describe("a private key", () => {
  test("that cannot be used ends the test before a connection is made", async () => {
    const locked = (await generateKey("ed25519", "correct horse")).privateKey;
    const ecdsa = generateKeyPairSync("ec", { namedCurve: "secp256k1" }).privateKey.export({ format: "pem", type: "sec1" }).toString();
    const cases: readonly (readonly [data: string, passphrase: string, reason: string])[] = [
      ["ssh-ed25519 AAAA", "", "key_unreadable"],
      [`${"x".repeat(1024 * 1024)}`, "", "key_unreadable"],
      [ecdsa, "", "key_unusable"],
      [locked, "", "key_passphrase_missing"],
      [locked, canary("passphrase"), "key_passphrase_wrong"],
    ];
    for (const [privateKeyData, privateKeyPassphrase, reason] of cases) {
      const result = await checkSftp(target(9, { kind: "key", privateKeyData, privateKeyPassphrase }), directIo(), "/");
      expect([result.reason, shows(result, "canary")]).toEqual([reason, false]);
    }
  });
});
