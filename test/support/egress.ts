import { createSocket } from "node:dgram";
import { readdirSync } from "node:fs";
import { createServer, isIPv4, type Server, type Socket } from "node:net";
import ipaddr from "ipaddr.js";
import { generate, type GenerateResult, type SelfsignedOptions } from "selfsigned";
import type { Clock } from "../../src/egress/clock.ts";
import { EgressError, type EgressReason } from "../../src/egress/error.ts";

/** What a name server says to one question: addresses, an alias with its addresses, a code, or nothing at all. */
export type DnsAnswer = readonly string[] | { readonly alias: string; readonly addresses: readonly string[] } | "nxdomain" | "servfail" | "silent";

/** A question as it arrived. */
export interface DnsQuestion {
  readonly name: string;
  readonly type: "A" | "AAAA";
}

const RCODE = { nxdomain: 3, servfail: 2 } as const;
const TYPE = { A: 1, CNAME: 5, AAAA: 28 } as const;

const encodeName = (name: string): Buffer => Buffer.concat([...name.split(".").map((label) => Buffer.from([label.length, ...Buffer.from(label)])), Buffer.from([0])]);

function record(owner: Buffer, type: number, data: Buffer): Buffer {
  const fixed = Buffer.alloc(10); // type, class IN, TTL 0, length
  fixed.writeUInt16BE(type, 0);
  fixed.writeUInt16BE(1, 2);
  fixed.writeUInt16BE(data.length, 8);
  return Buffer.concat([owner, fixed, data]);
}

/** A real name server on loopback (RFC 1035 section 4), as small as can be. Remembers what it was asked. */
export async function startDns(answer: (question: DnsQuestion, index: number) => DnsAnswer) {
  const socket = createSocket("udp4");
  const questions: DnsQuestion[] = [];
  socket.on("message", (message, from) => {
    const labels: string[] = [];
    let at = 12;
    for (let length = message[at] ?? 0; length > 0; length = message[at] ?? 0) {
      labels.push(message.toString("latin1", at + 1, at + 1 + length));
      at += length + 1;
    }
    const code = message.readUInt16BE(at + 1);
    const question: DnsQuestion = { name: labels.join("."), type: code === TYPE.AAAA ? "AAAA" : "A" };
    questions.push(question);
    const said = answer(question, questions.length - 1);
    if (said === "silent") return;
    const here = Buffer.from([0xc0, 0x0c]);
    const list = typeof said === "string" ? [] : "alias" in said ? said.addresses : said;
    const owner = typeof said === "object" && "alias" in said ? encodeName(said.alias) : here;
    const records = list.map((address) => record(owner, isIPv4(address) ? TYPE.A : TYPE.AAAA, Buffer.from(ipaddr.parse(address).toByteArray())));
    if (owner !== here) records.unshift(record(here, TYPE.CNAME, owner));
    const header = Buffer.alloc(12);
    message.copy(header, 0, 0, 2);
    header.writeUInt16BE(0x8180 | (typeof said === "string" ? RCODE[said] : 0), 2);
    header.writeUInt16BE(1, 4);
    header.writeUInt16BE(records.length, 6);
    socket.send(Buffer.concat([header, message.subarray(12, at + 5), ...records]), from.port, from.address);
  });
  await new Promise<void>((resolve) => {
    socket.bind(0, "127.0.0.1", resolve);
  });
  return {
    server: `127.0.0.1:${socket.address().port}`,
    questions,
    [Symbol.asyncDispose]: () =>
      new Promise<void>((resolve) => {
        socket.close(() => resolve());
      }),
  };
}

/** Answers by family: `addresses("A", "10.0.0.1")` and nothing for the other one. */
export const only = (addresses: readonly string[]) => ({ type }: DnsQuestion): DnsAnswer => addresses.filter((address) => isIPv4(address) === (type === "A"));

/** A TCP server on loopback. Remembers how many came, and ends all of them when it is disposed of. */
export async function startTcp(serve: (socket: Socket) => void, server: Server = createServer()) {
  const open = new Set<Socket>();
  const seen = { accepted: 0 };
  server.on("connection", (socket: Socket) => {
    seen.accepted += 1;
    open.add(socket);
    socket.on("close", () => open.delete(socket));
    socket.on("error", () => {});
    serve(socket);
  });
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  return {
    port: typeof address === "object" && address !== null ? address.port : 0,
    seen,
    [Symbol.asyncDispose]: async () => {
      const closed = new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
      for (const socket of open) socket.destroy();
      await closed;
    },
  };
}

/** A port of loopback on which nobody listens. */
export async function closedPort(): Promise<number> {
  await using server = await startTcp(() => {});
  return server.port;
}

/** A clock that moves only when told. Timers that fall due run in their order. */
export function manualClock(): Clock & { advance(ms: number): void; readonly waiting: number } {
  let time = 0;
  const timers = new Set<{ readonly at: number; readonly run: () => void }>();
  return {
    now: () => time,
    after: (ms, run) => {
      const timer = { at: time + ms, run };
      timers.add(timer);
      return () => timers.delete(timer);
    },
    advance: (ms) => {
      const until = time + ms;
      for (;;) {
        const [next] = [...timers].filter(({ at }) => at <= until).sort((a, b) => a.at - b.at);
        if (!next) break;
        timers.delete(next);
        time = Math.max(time, next.at);
        next.run();
      }
      time = until;
    },
    get waiting() {
      return timers.size;
    },
  };
}

/** Why a promise failed; fails itself where it did not, or not with an error of the house. */
export async function reasonOf(promise: Promise<unknown>): Promise<EgressReason> {
  const error = await promise.then(
    () => new Error("it succeeded"),
    (error: unknown) => error,
  );
  if (error instanceof EgressError) return error.reason;
  throw error;
}

/** Open descriptors of this process that are sockets or files. */
export const descriptors = (): number => readdirSync("/proc/self/fd").length;

/** A certificate for a name on loopback. */
export const certificate = (name: string, options: SelfsignedOptions = {}): Promise<GenerateResult> =>
  generate([{ name: "commonName", value: name }], {
    keyType: "ec",
    algorithm: "sha256",
    extensions: [{ name: "subjectAltName", altNames: [{ type: 2, value: name }] }],
    ...options,
  });
