import { randomInt } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/** A connection to a listener, with everything that it has answered. */
export interface Wire {
  readonly socket: Socket;
  /** What came back so far. */
  text(): string;
  /** Settles when the other side has closed, with everything that came back. */
  readonly closed: Promise<string>;
}

/** Opens a plain connection to a URL's host, and writes what it is given. */
export async function wire(url: string, ...parts: string[]): Promise<Wire> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  let text = "";
  socket.on("data", (chunk: Buffer) => (text += chunk.toString("latin1"))).on("error", () => {});
  const closed = new Promise<string>((resolve) => socket.once("close", () => resolve(text)));
  await Promise.race([once(socket, "connect").catch(() => {}), closed]);
  for (const part of parts) socket.write(part);
  return { socket, text: () => text, closed };
}

/** A port that nobody listens on now. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

/** The same below the ports that the system gives to outgoing connections, so that nobody has taken it when it is used again after a restart. */
export async function lastingPort(): Promise<number> {
  for (;;) {
    const server = createServer().listen(randomInt(12_000, 30_000), "127.0.0.1");
    const [free] = await Promise.race([once(server, "listening").then(() => [true]), once(server, "error").then(() => [false])]);
    if (!free) continue;
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, "close");
    return port;
  }
}
