import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/** A way between a client and one of several servers, which a test can cut. */
export interface TcpProxy extends AsyncDisposable {
  readonly target: string;
  /** Where new connections go from now on. */
  to(target: string): void;
  /** Breaks every connection, and refuses new ones. */
  cut(): void;
  /** Lets nothing through any more, in either direction, without a word to anybody. */
  freeze(): void;
  /** Takes connections again; those that were frozen go on. */
  heal(): void;
  /** Takes connections again; those that were frozen stay silent for good. */
  abandon(): void;
}

/** Starts one on a free port. */
export async function startProxy(target: string): Promise<TcpProxy> {
  let [to, state]: [string, "open" | "cut" | "frozen"] = [target, "open"];
  const pairs = new Set<readonly [Socket, Socket]>();
  const abandoned = new Set<Socket>();
  const server = createServer((client) => {
    client.on("error", () => {});
    if (state === "cut") return void client.destroy();
    const [host, port] = to.split(":");
    const upstream = connect(Number(port), host);
    const pair = [client, upstream] as const;
    pairs.add(pair);
    const end = () => {
      pairs.delete(pair);
      for (const socket of pair) socket.destroy();
    };
    for (const socket of pair) socket.setNoDelay(true).on("error", end).on("close", end);
    client.on("data", (chunk) => upstream.write(chunk));
    upstream.on("data", (chunk) => client.write(chunk));
    if (state === "frozen") for (const socket of pair) socket.pause();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const each = (what: (socket: Socket) => void) => [...pairs].flat().forEach(what);
  return {
    target: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    to: (next) => void (to = next),
    cut() {
      state = "cut";
      each((socket) => socket.destroy());
    },
    freeze() {
      state = "frozen";
      each((socket) => socket.pause());
    },
    heal() {
      state = "open";
      each((socket) => socket.resume());
    },
    abandon() {
      state = "open";
      each((socket) => abandoned.add(socket));
      pairs.clear();
    },
    async [Symbol.asyncDispose]() {
      each((socket) => socket.destroy());
      for (const socket of abandoned) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
