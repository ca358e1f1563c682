import { Socket } from "node:net";
import { describe, expect, test } from "vitest";
import { createDialer, type DialerDeps } from "../../src/egress/dialer.ts";
import { EgressError, type EgressReason } from "../../src/egress/error.ts";
import { type AdmittedAddress, createAddressPolicy } from "../../src/egress/policy.ts";
import { manualClock, reasonOf } from "../support/egress.ts";

const settle = () => new Promise((resolve) => setImmediate(resolve));

/** A dialer whose names, connections and time are scripted. The sockets never leave the process. */
function scripted(answers: Record<string, readonly string[] | EgressError | "silent">, deps: Partial<DialerDeps> = {}, ending: (address: string) => string | "silent" = () => "silent") {
  const clock = manualClock();
  const asked: string[] = [];
  const tried: string[] = [];
  const sockets: Socket[] = [];
  const dialer = createDialer({
    policy: createAddressPolicy({ profile: "production", own: () => [] }),
    clock,
    resolver: {
      resolve: async (name) => {
        asked.push(name);
        const answer = answers[name] ?? [];
        if (answer === "silent") return await new Promise<never>(() => {});
        if (answer instanceof EgressError) throw answer;
        return answer;
      },
    },
    connect: ({ address }: AdmittedAddress) => {
      tried.push(address);
      const socket = new Socket();
      sockets.push(socket);
      const code = ending(address);
      if (code !== "silent") setImmediate(() => socket.destroy(Object.assign(new Error(`connect ${code} ${address}`), { code })));
      return socket;
    },
    ...deps,
  });
  return { dialer, clock, asked, tried, sockets };
}

/** Host, port, the answer, and how often a name server was asked. */
type Refused = [host: string, port: number, reason: EgressReason, questions: number];
const refusedAddress = (questions: number) => (host: string): Refused => [host, 22, "refused-address", questions];

describe("a refused target", () => {
  test.each<Refused>([
    ...["127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "[::ffff:10.0.0.1]", "0.0.0.0", "168.63.129.16", "2002:7f00:1::"].map(refusedAddress(0)),
    ...["127.1", "0x7f000001", "localhost\0.example.com", "１２７.0.0.1", "", "a@b", "/var/run/postgresql"].map((host): Refused => [host, 22, "refused-name", 0]),
    ["public.example", 25, "refused-port", 0],
    ["public.example", 0, "refused-port", 0],
    ...["private.example", "mixed.example", "mapped.example", "garbage.example", "localhost", "db"].map(refusedAddress(1)),
  ])("%j:%s gets no packet and a uniform answer: %s", async (host, port, reason, questions) => {
    const names = {
      "public.example": ["8.8.8.8"],
      "private.example": ["10.0.0.1"],
      "mixed.example": ["8.8.8.8", "2606:4700::1", "192.168.0.1"],
      "mapped.example": ["::ffff:8.8.8.8"],
      "garbage.example": ["8.8.8.8", "not an address"],
      localhost: ["127.0.0.1"],
      db: ["172.17.0.2"],
    };
    const { dialer, clock, asked, tried } = scripted(names, { ports: { sftp: [22] } });
    let done = false;
    const outcome = dialer.dial({ host, port, provider: "sftp" }).catch((error: unknown) => {
      done = true;
      return error;
    });
    await settle();
    clock.advance(499);
    await settle();
    expect(done).toBe(false);
    clock.advance(1);
    const error = await outcome;
    expect(error).toBeInstanceOf(EgressError);
    expect(error).toMatchObject({ reason });
    expect([asked.length, tried, clock.waiting]).toEqual([questions, [], 0]);
  });

  test("waits for the next multiple of the band where the name server was slow, and never past the deadline", async () => {
    const { promise: answer, resolve } = Promise.withResolvers<readonly string[]>();
    const { dialer, clock } = scripted({}, { resolver: { resolve: () => answer }, limits: { totalMs: 900 } });
    const times: number[] = [];
    const outcome = dialer.dial({ host: "slow.example", port: 22 }).catch(() => times.push(clock.now()));
    await settle();
    clock.advance(700);
    resolve(["10.0.0.1"]);
    await settle();
    clock.advance(199);
    await settle();
    expect(times).toEqual([]);
    clock.advance(1);
    await outcome;
    expect(times).toEqual([900]);
  });

  test("by http is one that no operator lists", async () => {
    const policy = createAddressPolicy({ profile: "development", allow: ["10.0.0.0/8"], own: () => [] });
    const { dialer, tried } = scripted({ "mixed.example": ["10.0.0.1", "8.8.8.8"] }, { policy, refusalBandMs: 0 });
    expect(await reasonOf(dialer.dial({ host: "8.8.8.8", port: 80 }, { listedOnly: true }))).toBe("refused-address");
    expect(await reasonOf(dialer.dial({ host: "mixed.example", port: 80 }, { listedOnly: true }))).toBe("refused-address");
    expect(tried).toEqual([]);
  });
});

describe("a resolution", () => {
  test("happens exactly once, and its failure is named", async () => {
    const names = { "gone.example": new EgressError("dns-not-found"), "broken.example": new EgressError("dns-failed"), "empty.example": [], "vast.example": Array.from({ length: 65 }, () => "8.8.8.8") };
    const { dialer, asked, tried } = scripted(names);
    expect(await reasonOf(dialer.dial({ host: "gone.example", port: 22 }))).toBe("dns-not-found");
    expect(await reasonOf(dialer.dial({ host: "broken.example.", port: 22 }))).toBe("dns-failed");
    expect(await reasonOf(dialer.dial({ host: "EMPTY.example", port: 22 }))).toBe("dns-not-found");
    expect(await reasonOf(dialer.dial({ host: "vast.example", port: 22 }))).toBe("dns-failed");
    expect([asked, tried]).toEqual([["gone.example", "broken.example", "empty.example", "vast.example"], []]);
  });

  test("that never ends is given up at the deadline or when the caller leaves", async () => {
    const { dialer, clock } = scripted({ "silent.example": "silent" });
    const late = reasonOf(dialer.dial({ host: "silent.example", port: 22 }));
    const leaving = new AbortController();
    const left = reasonOf(dialer.dial({ host: "silent.example", port: 22 }, { signal: leaving.signal }));
    await settle();
    leaving.abort();
    expect(await left).toBe("cancelled");
    clock.advance(10_000);
    expect(await late).toBe("deadline");
    expect(clock.waiting).toBe(0);
  });

  test("does not happen for a caller who has left already", async () => {
    const { dialer, asked } = scripted({ "public.example": ["8.8.8.8"] });
    expect(await reasonOf(dialer.dial({ host: "public.example", port: 22 }, { signal: AbortSignal.abort() }))).toBe("cancelled");
    expect(asked).toEqual([]);
  });
});

describe("connecting", () => {
  test.each([
    [{ "8.8.8.8": "ECONNREFUSED" }, "connect-refused"],
    [{ "8.8.8.8": "ETIMEDOUT" }, "connect-timeout"],
    [{ "8.8.8.8": "EHOSTUNREACH" }, "unreachable"],
    [{ "8.8.8.8": "ENETUNREACH", "2606:4700::1": "ECONNREFUSED" }, "connect-refused"],
    [{ "2606:4700::1": "ENETUNREACH", "8.8.8.8": "ETIMEDOUT" }, "connect-timeout"],
    [{ "2606:4700::1": "ETIMEDOUT", "8.8.8.8": "ECONNREFUSED", "1.1.1.1": "EACCES" }, "connect-refused"],
  ])("tries every answer in order and names the most telling failure: %j is %s", async (endings: Record<string, string>, reason) => {
    const { dialer, tried, sockets, clock } = scripted({ "public.example": Object.keys(endings) }, {}, (address) => endings[address] ?? "silent");
    expect(await reasonOf(dialer.dial({ host: "public.example", port: 22 }))).toBe(reason);
    expect(tried).toEqual(Object.keys(endings));
    expect([sockets.every((socket) => socket.destroyed), clock.waiting]).toEqual([true, 0]);
  });

  test("shares its time between the answers, of which it tries four at most", async () => {
    const answers = ["8.8.8.1", "8.8.8.2", "8.8.8.3", "8.8.8.4", "8.8.8.5"];
    const { dialer, clock, tried } = scripted({ "many.example": answers }, { limits: { connectMs: 4_000 } });
    const outcome = reasonOf(dialer.dial({ host: "many.example", port: 22 }));
    for (const count of [1, 2, 3, 4]) {
      await settle();
      expect(tried).toHaveLength(count);
      clock.advance(1_000);
    }
    expect([await outcome, tried.length, clock.waiting]).toEqual(["connect-timeout", 4, 0]);
  });

  test("ends at once, and for good, when the caller leaves", async () => {
    const { dialer, sockets, tried, clock } = scripted({ "public.example": ["8.8.8.8", "1.1.1.1"] });
    const leaving = new AbortController();
    const outcome = reasonOf(dialer.dial({ host: "public.example", port: 22 }, { signal: leaving.signal }));
    await settle();
    leaving.abort();
    expect([await outcome, tried, sockets[0]?.destroyed, clock.waiting]).toEqual(["cancelled", ["8.8.8.8"], true, 0]);
  });

  test.each([
    ["another address", { remoteAddress: "10.0.0.1", remotePort: 22 }, "refused-address"],
    ["another global address", { remoteAddress: "1.1.1.1", remotePort: 22 }, "refused-address"],
    ["another port", { remoteAddress: "8.8.8.8", remotePort: 23 }, "refused-address"],
    ["nobody any more", {}, "connection-lost"],
  ])("to an address and finding %s at the other end hands out nothing", async (_, other, reason) => {
    const sockets: Socket[] = [];
    const connect = () => {
      const socket = new Socket();
      for (const [name, value] of Object.entries({ remoteAddress: undefined, remotePort: undefined, ...other })) Object.defineProperty(socket, name, { value });
      sockets.push(socket);
      setImmediate(() => socket.emit("connect"));
      return socket;
    };
    const { dialer } = scripted({}, { connect, refusalBandMs: 0 });
    expect(await reasonOf(dialer.dial({ host: "8.8.8.8", port: 22 }))).toBe(reason);
    expect(sockets.map((socket) => socket.destroyed)).toEqual([true]);
  });
});
