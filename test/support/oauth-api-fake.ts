import { createServer, type IncomingHttpHeaders, request as httpRequest } from "node:http";
import type { AddressInfo } from "node:net";
import { type CheckIo, DialError, type GuardedResponse } from "../../src/domain/check.ts";

/** A request as it arrived at the fake. */
export interface Asked {
  readonly method: string;
  /** The host that was meant. */
  readonly host: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** What the fake answers; text goes out as it is. */
export interface Answer {
  readonly status: number;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** A provider's API on loopback, and a way there. */
export interface FakeApi extends AsyncDisposable {
  readonly io: CheckIo & { abort(): void };
  readonly asked: Asked[];
}

/** Headers that the guarded fetch lets nobody set. */
const RESERVED = /^(?:host|connection|keep-alive|content-length|transfer-encoding|te|trailer|upgrade|expect|cookie2?|proxy-.*)$/i;

/** Starts an API that answers by a function; `null` is silence. All hosts lead to it, and https is taken for granted. */
export async function fakeApi(answer: (asked: Asked) => Answer | null): Promise<FakeApi> {
  const asked: Asked[] = [];
  const server = createServer((incoming, outgoing) => {
    const chunks: Buffer[] = [];
    incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
    incoming.on("end", () => {
      const { method = "", url = "", headers } = incoming;
      const seen = { method, host: headers.host ?? "", path: url, headers, body: Buffer.concat(chunks).toString() };
      asked.push(seen);
      const said = answer(seen);
      if (said === null) return;
      outgoing.writeHead(said.status, { "content-type": "application/json", ...said.headers });
      outgoing.end(typeof said.body === "string" ? said.body : JSON.stringify(said.body ?? {}));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const controller = new AbortController();
  const io = {
    signal: controller.signal,
    abort: () => controller.abort(),
    dial: () => Promise.reject(new DialError("address_not_allowed")),
    secure: () => Promise.reject(new DialError("address_not_allowed")),
    request: (ask: Parameters<CheckIo["request"]>[0]) => carry(ask, port),
  };
  return {
    io,
    asked,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Does what the guarded fetch does, without the guard: one request, nothing followed, nothing decoded. */
function carry({ method, url, headers, body }: Parameters<CheckIo["request"]>[0], port: number): Promise<GuardedResponse> {
  const target = new URL(url);
  const unfit = Object.entries(headers).some(([name, value]) => RESERVED.test(name) || !/^[A-Za-z0-9-]+$/.test(name) || !/^[\x20-\x7e]*$/.test(value));
  if (target.protocol !== "https:" || target.port !== "" || unfit) return Promise.reject(new DialError("address_not_allowed"));
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest({ host: "127.0.0.1", port, method, path: target.pathname + target.search, headers: { ...headers, host: target.host }, agent: false });
    outgoing.on("error", () => reject(new DialError("connection_reset")));
    outgoing.on("response", (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, headers: response.headers as Record<string, string>, body: Buffer.concat(chunks) }));
    });
    outgoing.end(body);
  });
}

/** A way out on which every request fails in one way, or is answered with something. */
export const ioWith = (request: CheckIo["request"]): CheckIo => {
  const closed = () => Promise.reject(new DialError("address_not_allowed"));
  return { signal: new AbortController().signal, dial: closed, secure: closed, request };
};
