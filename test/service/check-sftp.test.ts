import { chmodSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { checkSftp, type SftpTarget } from "../../src/providers/checks/sftp.ts";
import { providers } from "../../src/providers/index.ts";
import { directIo, shows } from "../support/hostile-dialer.ts";
import { mountable, mountDisk } from "../support/mount.ts";
import { generateKey, type Sshd, sshdAvailable, startSshd } from "../support/sshd.ts";

describe.runIf(await sshdAvailable())("a real OpenSSH server", () => {
  let server: Sshd;
  beforeAll(async () => {
    server = await startSshd({ files: { "a.txt": "content" } });
  });
  afterAll(() => server.stop());

  const check = async (changes: Partial<SftpTarget> = {}, testPath = server.path("")) => {
    const io = directIo({ maxBytes: 64 * 1024 });
    const credential = { kind: "password", password: server.password } as const;
    const result = await checkSftp({ host: server.host, port: server.port, username: server.username, hostKeyFingerprint: "", credential, ...changes }, io, testPath);
    expect([io.open(), shows(result, server.password), shows(result, server.username)]).toEqual([0, false, false]);
    return result;
  };

  test("passes with its password, and leaves nothing behind", async () => {
    expect(await check({ hostKeyFingerprint: server.hostKeyFingerprint })).toEqual({
      success: true,
      layer: null,
      reason: "ok",
      message: "The login works, and files can be listed, written and removed.",
      nextStep: "",
      details: {
        server: expect.stringMatching(/^OpenSSH \d+\.\d+$/),
        host_key_fingerprint: server.hostKeyFingerprint,
        host_key_type: "ssh-ed25519",
        host_key_pinned: true,
        credential_checked: true,
        can_list: true,
        can_write: true,
        can_read: true,
      },
    });
    expect(readdirSync(server.path(""))).toEqual(["a.txt"]);
  });

  test.each(["ed25519", "rsa"] as const)("passes with a key of kind %s and its passphrase once it is authorized, and not before", async (kind) => {
    const { privateKey, publicKey } = await generateKey(kind, "correct horse");
    const credential = { kind: "key", privateKeyData: privateKey, privateKeyPassphrase: "correct horse" } as const;
    expect(await check({ credential })).toMatchObject({ success: false, layer: "auth", reason: "ssh_key_refused" });
    await server.addAuthorizedKey(publicKey);
    expect(await check({ credential })).toMatchObject({ success: true });
    expect(await check({ credential: { ...credential, privateKeyPassphrase: "wrong" } })).toMatchObject({ reason: "key_passphrase_wrong" });
  });

  test("is reached through the provider", async () => {
    const document = { host: server.host, port: server.port, username: server.username, password: server.password };
    const result = await providers.sftp.types.user_password?.check?.(document, directIo(), { testPath: server.path("") });
    expect(result).toMatchObject({ success: true, details: { host_key_pinned: false } });
  });

  test("tells a wrong password, an unknown user and another host key apart from success", async () => {
    const wrong = { kind: "password", password: "wrong" } as const;
    expect(await check({ credential: wrong })).toMatchObject({ layer: "auth", reason: "ssh_password_refused" });
    expect(await check({ username: "nobody-here" })).toMatchObject({ layer: "auth", reason: "ssh_password_refused" });
    expect(await check({ hostKeyFingerprint: `SHA256:${"A".repeat(43)}` })).toMatchObject({
      layer: "host_key",
      reason: "host_key_changed",
      details: { host_key_fingerprint_unproven: server.hostKeyFingerprint, credential_checked: false },
    });
  });

  test("tells what is wrong with a folder", async () => {
    expect(await check({}, server.path("missing"))).toMatchObject({ layer: "authorization", reason: "sftp_path_missing" });
    expect(await check({}, server.path("a.txt"))).toMatchObject({ layer: "authorization", reason: "sftp_path_not_a_folder" });
    expect(await check({}, "/")).toMatchObject({ layer: "authorization", reason: "sftp_write_not_permitted", details: { can_list: true, can_write: false } });
    expect(await check({}, "/root")).toMatchObject({ layer: "authorization", reason: "sftp_list_not_permitted" });
    expect(await check({}, "/dev/shm\0/x")).toMatchObject({ reason: "sftp_path_missing" });
    expect(await check({}, "/proc")).toMatchObject({ success: false, layer: "authorization" });
  });

  test("tells a folder that can be written but not listed", async () => {
    const folder = server.path("drop");
    mkdirSync(folder);
    chmodSync(folder, 0o733);
    expect(await check({}, folder)).toMatchObject({ reason: "sftp_list_not_permitted" });
    rmSync(folder, { recursive: true });
  });

  test.runIf(mountable())("tells a disk that is full and one that is read-only, which the protocol both calls a failure", async () => {
    await using disk = mountDisk(server.path("mounted"));
    disk.fill();
    expect(await check({}, disk.folder)).toMatchObject({ layer: "authorization", reason: "sftp_disk_full" });
    await disk.protect();
    expect(await check({}, disk.folder)).toMatchObject({ layer: "authorization", reason: "sftp_read_only" });
  });

  test("passes two hundred rounds of failing tests without a connection left open", async () => {
    for (let round = 0; round < 20; round += 1) {
      const results = await Promise.all(Array.from({ length: 10 }, () => check({ hostKeyFingerprint: `SHA256:${"A".repeat(43)}` })));
      // A server that is asked by many at once turns some away, which is told apart too.
      for (const { reason } of results) expect(["host_key_changed", "ssh_banner_closed", "ssh_too_many_connections"]).toContain(reason);
    }
  });
});
