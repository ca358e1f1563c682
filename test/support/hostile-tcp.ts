import { createServer, type AddressInfo, type Socket } from "node:net";

/** A server on loopback that does what a script says. */
export interface Scripted extends AsyncDisposable {
  readonly port: number;
  /** Everything that clients sent, of all connections. */
  heard(): Buffer;
  /** How many bytes left its program, of all connections. */
  sent(): number;
}

/** Listens on loopback; every connection gets the script. Whatever is open at the end is cut. */
export async function listen(script: (socket: Socket) => void): Promise<Scripted> {
  const sockets = new Set<Socket>();
  const heard: Buffer[] = [];
  let sent = 0;
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.setNoDelay(true);
    socket.on("error", () => {});
    socket.once("close", () => (sent += socket.bytesWritten - socket.writableLength));
    socket.on("data", (chunk: Buffer) => heard.push(chunk));
    script(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    heard: () => Buffer.concat(heard),
    sent: () => sent + [...sockets].reduce((sum, socket) => sum + (socket.closed ? 0 : socket.bytesWritten - socket.writableLength), 0),
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Writes the same bytes for as long as the other side takes them. */
export function flood(socket: Socket, bytes: Buffer | string): void {
  const more = (): void => {
    while (!socket.destroyed && socket.write(bytes));
  };
  socket.on("drain", more);
  more();
}

/** Writes bytes one by one, a few milliseconds apart. */
export function drip(socket: Socket, bytes: string): void {
  let at = 0;
  const timer = setInterval(() => socket.write(bytes[at++ % bytes.length] ?? ""), 5);
  socket.once("close", () => clearInterval(timer));
}
