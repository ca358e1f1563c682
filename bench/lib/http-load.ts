import { Agent, request } from "node:http";
import type { Measured } from "./process.ts";
import { type Sample, sampled } from "./load.ts";

/** An HTTP request as it is sent; a body is JSON. */
export interface HttpRequest {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** Requests to the REST listener of one server under load. */
export interface HttpLoad {
  readonly name: string;
  readonly server: Measured;
  /** The next request. Cheap: it runs inside the measurement. */
  nextHttp(): HttpRequest;
}

/** Sends one request; whether it was answered with success. */
function send(agent: Agent, server: Measured, { method, path, headers, body }: HttpRequest): Promise<boolean> {
  const [hostname = "", port = ""] = server.rest.split(":");
  return new Promise((resolve) => {
    const sent = request({ agent, hostname, port, method, path, headers: { ...headers, ...(body === undefined ? {} : { "content-type": "application/json", "content-length": Buffer.byteLength(body) }) } }, (response) => {
      response.resume().once("end", () => resolve(response.statusCode !== undefined && response.statusCode < 300)).once("error", () => resolve(false));
    });
    sent.once("error", () => resolve(false)).end(body);
  });
}

/** Makes one request of a load and throws where it is refused. */
export async function proveRequest(load: HttpLoad): Promise<void> {
  const agent = new Agent();
  const good = await send(agent, load.server, load.nextHttp());
  agent.destroy();
  if (!good) throw new Error(`${load.name} is refused`);
}

/** Keeps `concurrency` requests in flight for a time, each on a connection that is kept, with the client of `node:http`. */
export async function runHttp(load: HttpLoad, concurrency: number, seconds: number): Promise<Sample> {
  await proveRequest(load);
  const agent = new Agent({ keepAlive: true, maxSockets: concurrency });
  const latencies: number[] = [];
  let errors = 0;
  const sample = await sampled(load, async () => {
    const begun = performance.now();
    const until = begun + seconds * 1_000;
    const lane = async () => {
      while (performance.now() < until) {
        const sent = performance.now();
        const good = await send(agent, load.server, load.nextHttp());
        latencies.push(performance.now() - sent);
        if (!good) errors += 1;
      }
    };
    await Promise.all(Array.from({ length: concurrency }, lane));
    return { latenciesMs: Float64Array.from(latencies), errors, seconds: (performance.now() - begun) / 1_000 };
  });
  agent.destroy();
  return sample;
}
