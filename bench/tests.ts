/**
 * Measures what other calls notice of connection tests: ResolveCredential alone, and beside as many tests as the service runs at a time, which
 * meet servers that want the better of them and so end and begin without a pause. Rounds alternate; the ratio of a round is what to compare.
 *
 *   npm run bench -- tests [--seconds 60] [--rounds 3]
 */
import { createServer, type AddressInfo, type Socket } from "node:net";
import { Client, credentials } from "@grpc/grpc-js";
import { TestSftpConnectionRequest, TestSftpConnectionResponse } from "../gen/flow/credentials/v1/credential_service.ts";
import { type Beside, measureBeside } from "./lib/beside.ts";
import { resolveCredential } from "./lib/loads.ts";
import type { Measured } from "./lib/process.ts";
import type { World } from "./lib/world.ts";

const PATH = "/flow.credentials.v1.CredentialService/TestSftpConnection";
/** The service's own bound. */
const TESTS_AT_A_TIME = 16;

/** What is set so that nothing but the number of tests at a time bounds them. */
export const TEST_SETTINGS = { CREDENTIALS_EGRESS_ALLOW: "127.0.0.0/8", CREDENTIALS_TESTS_BURST: "1000", CREDENTIALS_TEST_REFILL_MS: "10" } as const;

/** Runs the rounds. The world must be filled. */
export async function measureTests(world: World, service: Measured, seconds: number, rounds: number): Promise<Beside & { readonly tests: number }> {
  await using hostile = await hostileServers();
  let tests = 0;
  const beside = await measureBeside(resolveCredential(world, service), seconds / (2 * rounds + 1), rounds, async () => {
    const going = startTests(world, service, hostile.ports);
    return {
      async [Symbol.asyncDispose]() {
        tests += going.ended();
        await going[Symbol.asyncDispose]();
      },
    };
  });
  return { ...beside, tests };
}

/** Servers that greet with what is no SSH, that announce too much, and that say nothing. */
async function hostileServers(): Promise<AsyncDisposable & { readonly ports: readonly number[] }> {
  const scripts: readonly ((socket: Socket) => void)[] = [
    (socket) => socket.write("welcome ".repeat(2_000)),
    (socket) => socket.write(Buffer.concat([Buffer.from("SSH-2.0-x\r\n"), Buffer.from([0x7f, 255, 255, 255, 4, 20])])),
    () => {},
  ];
  const sockets = new Set<Socket>();
  const servers = await Promise.all(
    scripts.map(async (script) => {
      const server = createServer((socket) => {
        sockets.add(socket);
        socket.on("error", () => {}).once("close", () => sockets.delete(socket));
        script(socket);
      });
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      return server;
    }),
  );
  return {
    ports: servers.map((server) => (server.address() as AddressInfo).port),
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      for (const server of servers) server.close();
    },
  };
}

/** Keeps tests going, each lane of another organization, until it is disposed of. */
function startTests(world: World, service: Measured, ports: readonly number[]): AsyncDisposable & { ended(): number } {
  const client = new Client(service.target, credentials.createInsecure());
  let ended = 0;
  const over = new AbortController();
  const test = (lane: number): Promise<void> =>
    new Promise((resolve) => {
      const request = TestSftpConnectionRequest.encode({ host: "127.0.0.1", port: ports[lane % ports.length] as number, username: "user", authType: "password", password: "p" });
      const decode = (bytes: Buffer) => TestSftpConnectionResponse.decode(bytes);
      client.makeUnaryRequest(PATH, (bytes: Buffer) => bytes, decode, Buffer.from(request.finish()), world.user(lane), { deadline: Date.now() + 15_000 }, (error) => {
        if (!error) ended += 1;
        resolve();
      });
    });
  const lanes = Array.from({ length: TESTS_AT_A_TIME }, async (_, lane) => {
    while (!over.signal.aborted) await test(lane);
  });
  return {
    ended: () => ended,
    async [Symbol.asyncDispose]() {
      over.abort();
      client.close();
      await Promise.all(lanes);
    },
  };
}
