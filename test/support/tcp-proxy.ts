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
  /** Clients that came while nothing is let through: the server has not heard of them. */
  const unheard = new Set<Socket>();
  const join = (client: Socket) => {
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
  };
  const server = createServer((client) => {
    client.on("error", () => {});
    if (state === "cut") client.destroy();
    else if (state === "frozen") unheard.add(client.pause());
    else join(client);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const each = (what: (socket: Socket) => void) => [...[...pairs].flat(), ...unheard].forEach(what);
  return {
    target: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    to: (next) => void (to = next),
    cut() {
      state = "cut";
      each((socket) => socket.destroy());
      unheard.clear();
    },
    freeze() {
      state = "frozen";
      each((socket) => socket.pause());
    },
    heal() {
      state = "open";
      for (const client of unheard) join(client);
      unheard.clear();
      each((socket) => socket.resume());
    },
    abandon() {
      state = "open";
      each((socket) => abandoned.add(socket));
      pairs.clear();
      unheard.clear();
    },
    async [Symbol.asyncDispose]() {
      each((socket) => socket.destroy());
      for (const socket of abandoned) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
