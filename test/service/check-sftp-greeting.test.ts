import type { Socket } from "node:net";
import { describe, expect, test } from "vitest";
import { checkSftp } from "../../src/providers/checks/sftp.ts";
import { canary } from "../support/canary.ts";
import { abortWhenQuiet, directIo, shows } from "../support/hostile-dialer.ts";
import { BANNER, kexInit, packet } from "../support/hostile-ssh.ts";
import { drip, flood, listen } from "../support/hostile-tcp.ts";

const says = (...parts: readonly (string | Buffer)[]) => (socket: Socket) => {
  for (const part of parts) socket.write(part);
};
const thenEnds = (...parts: readonly (string | Buffer)[]) => (socket: Socket) => {
  says(...parts)(socket);
  socket.end();
};

/** What a server does before any login, and how the test ends; a word with `timed_out` needs the deadline. */
const CASES: readonly (readonly [what: string, script: (socket: Socket) => void, reason: string])[] = [
  ["says nothing", () => {}, "ssh_banner_timed_out"],
  ["hangs up at once", (socket) => socket.end(), "ssh_banner_closed"],
  ["cuts off", (socket) => void setTimeout(() => socket.resetAndDestroy(), 20), "ssh_banner_closed"],
  ["greets for ever", (socket) => flood(socket, `${"welcome ".repeat(20)}\r\n`), "not_an_ssh_server"],
  ["greets for ever without an end of line", (socket) => flood(socket, "x".repeat(1000)), "not_an_ssh_server"],
  ["greets letter by letter", (socket) => drip(socket, "welcome"), "ssh_banner_timed_out"],
  ["introduces itself letter by letter and never ends", (socket) => drip(socket, "SSH-2.0-"), "ssh_banner_timed_out"],
  ["introduces itself with an endless line", (socket) => flood(socket, `SSH-2.0-${"x".repeat(300)}`), "not_an_ssh_server"],
  ["is a web server", thenEnds("HTTP/1.1 400 Bad Request\r\nServer: canary\r\n\r\n"), "http_instead_of_ssh"],
  ["speaks TLS", thenEnds(Buffer.from([0x15, 3, 1, 0, 2, 2, 10])), "tls_instead_of_ssh"],
  ["is an FTP server", says("220 Welcome to canary FTP\r\n"), "ftp_instead_of_ssh"],
  ["is a MySQL server", says(Buffer.from("J\0\0\0\n8.0.36\0", "latin1")), "not_an_ssh_server"],
  ["speaks SSH 1.5", says("SSH-1.5-OpenSSH_2.0\r\n"), "ssh_version_too_old"],
  ["is out of connections", thenEnds("Exceeded MaxStartups\r\n"), "ssh_too_many_connections"],
  ["penalises our address", thenEnds("Not allowed at this time\r\n"), "ssh_too_many_connections"],
  ["introduces itself and is silent", says(BANNER), "ssh_key_exchange_timed_out"],
  ["introduces itself and hangs up", thenEnds(BANNER), "ssh_key_exchange_closed"],
  ["announces a packet of 2 GiB", says(BANNER, Buffer.from([0x7f, 255, 255, 255, 4, 20])), "ssh_protocol_broken"],
  ["announces a packet without content", says(BANNER, Buffer.from([0, 0, 0, 1, 4, 20])), "ssh_protocol_broken"],
  ["makes an offer that is cut short", says(BANNER, packet(Buffer.from([20, 1, 2, 3]))), "ssh_protocol_broken"],
  ["makes an offer whose lists overrun it", says(BANNER, packet(Buffer.concat([Buffer.from([20]), Buffer.alloc(16), Buffer.from([255, 255, 255, 255])]))), "ssh_protocol_broken"],
  ["offers SHA-1 key exchange only", says(BANNER, kexInit({ kex: ["diffie-hellman-group14-sha1", "diffie-hellman-group1-sha1"] })), "ssh_no_common_key_exchange"],
  ["offers ssh-rsa and DSA host keys only", says(BANNER, kexInit({ hostKey: ["ssh-rsa", "ssh-dss"] })), "ssh_no_common_host_key"],
  ["offers CBC and RC4 only", says(BANNER, kexInit({ cipher: ["aes128-cbc", "3des-cbc", "arcfour"] })), "ssh_no_common_cipher"],
  ["authenticates messages with SHA-1 only", says(BANNER, kexInit({ cipher: ["aes128-ctr"], mac: ["hmac-sha1", "hmac-md5"] })), "ssh_no_common_mac"],
  ["insists on compression", says(BANNER, kexInit({ compress: ["zlib"] })), "ssh_no_common_compression"],
  ["lacks strict key exchange", says(BANNER, kexInit({ kex: ["curve25519-sha256"] })), "ssh_strict_key_exchange_missing"],
  ["sends another packet first", says(BANNER, packet(Buffer.from([2, 0, 0, 0, 0])), kexInit()), "ssh_strict_key_exchange_missing"],
  ["makes a good offer and is silent", says(BANNER, kexInit()), "ssh_key_exchange_timed_out"],
  ["makes a good offer and hangs up", thenEnds(BANNER, kexInit()), "ssh_key_exchange_closed"],
  ["answers the key exchange with nonsense", says(BANNER, kexInit(), packet(Buffer.concat([Buffer.from([31]), Buffer.alloc(64, 9)]))), "ssh_key_exchange_failed"],
  ["announces 2 GiB inside the key exchange", says(BANNER, kexInit(), Buffer.from([0x7f, 255, 255, 255, 4, 31, 0, 0])), "ssh_key_exchange_failed"],
];

describe("a server that, before any login,", () => {
  test.each(CASES)("%s is told apart, hears no secret, and leaves nothing open", async (_, script, reason) => {
    const late = reason.endsWith("_timed_out");
    const password = canary("password");
    await using server = await listen(script);
    const io = directIo({ maxBytes: 64 * 1024 });
    if (late) abortWhenQuiet(io, server);
    const target = { host: "127.0.0.1", port: server.port, username: canary("user"), hostKeyFingerprint: "", credential: { kind: "password", password } } as const;
    const result = await checkSftp(target, io, "/");
    expect(result).toMatchObject({ success: false, reason, message: expect.stringMatching(/\.$/), nextStep: expect.stringMatching(/\.$/) });
    expect(result.layer === "timeout").toBe(late);
    expect(io.open()).toBe(0);
    expect([shows(result, "canary"), server.heard().includes(password), server.heard().includes(target.username)]).toEqual([false, false, false]);
  });

  test("offers what is safe and what is not is asked only for what is safe", async () => {
    await using server = await listen(says(BANNER));
    const io = directIo();
    abortWhenQuiet(io, server);
    await checkSftp({ host: "127.0.0.1", port: server.port, username: "u", hostKeyFingerprint: "", credential: { kind: "password", password: "p" } }, io, "/");
    const heard = server.heard().toString("latin1");
    expect(heard).toContain("kex-strict-c-v00@openssh.com");
    expect(heard.match(/sha1|md5|cbc|ssh-rsa|ssh-dss|zlib|arcfour|hmac-sha2-256,|group1-/)).toBeNull();
  });

  test("a test whose time is up already does not dial", async () => {
    const io = directIo();
    io.abort();
    const result = await checkSftp({ host: "127.0.0.1", port: 9, username: "u", hostKeyFingerprint: "", credential: { kind: "password", password: "p" } }, io, "/");
    expect(result).toMatchObject({ success: false, layer: "timeout", reason: "deadline_exceeded" });
  });
});
