import { createServer, type Socket } from "node:net";
import pg from "pg";
import { Client as SshClient, Server as SshServer } from "ssh2";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createDialer, type DialLimits } from "../../src/egress/dialer.ts";
import { createAddressPolicy } from "../../src/egress/policy.ts";
import type { GuardedSocket } from "../../src/egress/socket.ts";
import { startTcp } from "../support/egress.ts";
import { sshKeyPair } from "../support/ssh-keys.ts";

const policy = createAddressPolicy({ profile: "development", allow: ["127.0.0.0/8"] });
const dial = (port: number, limits: Partial<DialLimits> = {}): Promise<GuardedSocket> => createDialer({ policy }).dial({ host: "127.0.0.1", port }, { limits });

describe("ssh2 on a guarded socket", () => {
  let port = 0;
  const server = new SshServer({ hostKeys: [sshKeyPair("ed25519").private] }, (client) => {
    client.on("authentication", (context) => (context.method === "password" && context.password === "right" ? context.accept() : context.reject(["password"])));
    client.on("error", () => {});
  });
  beforeAll(
    () =>
      new Promise<void>((resolve) => {
        server.listen(0, "127.0.0.1", () => {
          port = (server.address() as { port: number }).port;
          resolve();
        });
      }),
  );
  afterAll(
    () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
      }),
  );

  const login = (sock: GuardedSocket, password: string) =>
    new Promise<string>((resolve) => {
      const client = new SshClient();
      client.on("ready", () => resolve("ready")).on("error", (error) => resolve(sock.failure?.reason ?? String(error.level)));
      client.connect({ sock, username: "u", password, hostVerifier: () => true });
    });

  test("logs in, and is refused with a wrong password", async () => {
    await using first = await dial(port);
    expect(await login(first, "right")).toBe("ready");
    expect(first.received).toBeGreaterThan(500);
    await using second = await dial(port);
    expect(await login(second, "wrong")).toBe("client-authentication");
  });

  test("is cut off at the byte cap and at the deadline", async () => {
    await using capped = await dial(port, { beforeAuthenticated: 100 });
    expect(await login(capped, "right")).toBe("too-many-bytes");
    await using silent = await startTcp(() => {});
    await using late = await dial(silent.port, { totalMs: 200 });
    expect(await login(late, "right")).toBe("deadline");
  });
});

describe("pg on a guarded socket", () => {
  const message = (type: string, body: Buffer = Buffer.alloc(0)): Buffer => {
    const head = Buffer.alloc(5);
    head.write(type);
    head.writeInt32BE(body.length + 4, 1);
    return Buffer.concat([head, body]);
  };
  const ready = message("Z", Buffer.from("I"));
  /** As much of PostgreSQL as one empty query needs. */
  const serve = (socket: Socket, flood = false) => {
    socket.once("data", () => {
      socket.write(Buffer.concat([message("R", Buffer.alloc(4)), ready]));
      socket.on("data", () => {
        if (flood) while (socket.writable && socket.write(message("N", Buffer.alloc(60_000))));
        else socket.write(Buffer.concat([message("I"), ready]));
      });
    });
  };
  const clientOn = (socket: GuardedSocket) => {
    const client = new pg.Client({ host: "db.example", port: 5432, user: "u", password: "p", database: "d", ssl: false, stream: () => socket });
    client.on("error", () => {});
    return client;
  };

  test("connects without dialling itself, and queries", async () => {
    await using server = await startTcp((socket) => serve(socket), createServer());
    await using socket = await dial(server.port);
    const client = clientOn(socket);
    await client.connect();
    socket.authenticated();
    expect((await client.query("")).rows).toEqual([]);
    await client.end();
    expect([socket.failure, server.seen.accepted]).toEqual([undefined, 1]);
  });

  test("is cut off by a server that floods it", async () => {
    await using server = await startTcp((socket) => serve(socket, true));
    await using socket = await dial(server.port);
    const client = clientOn(socket);
    await client.connect();
    await expect(client.query("")).rejects.toThrow();
    expect(socket.failure?.reason).toBe("too-many-bytes");
  });
});
