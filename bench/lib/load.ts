import { Client, credentials, type Metadata } from "@grpc/grpc-js";
import type { Measured } from "./process.ts";

/** A gRPC call as it is sent: its path, its message encoded, and who sends it. */
export interface GrpcRequest {
  readonly path: string;
  readonly message: Buffer;
  readonly metadata: Metadata;
}

/** Calls of one server under load. */
export interface Load {
  readonly name: string;
  readonly server: Measured;
  /** The next request. Cheap: it runs inside the measurement. */
  next(): GrpcRequest;
}

/** What one cell of the table measured in one round. */
export interface Sample {
  readonly calls: number;
  readonly errors: number;
  /** Calls in a second. */
  readonly rate: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** CPU of the server process for each call, µs. */
  readonly serverMicros: number;
  readonly rssMegabytes: number;
}

/** What a driver saw of the calls it made. */
export interface Seen {
  /** The time of each call, ms. */
  readonly latenciesMs: Float64Array;
  readonly errors: number;
  /** From the first call to the end of the last, s. */
  readonly seconds: number;
}

/** Calls in flight on one connection at most: the service takes 100. */
const STREAMS = 64;

/** How many connections so many calls in flight are spread over, whatever drives them. */
export const connectionsFor = (concurrency: number): number => Math.ceil(concurrency / STREAMS);

const quantile = (sorted: Float64Array, q: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? Number.NaN;

/** Lets a driver work, and puts what it saw beside what the server used meanwhile. Throws where every call failed. */
export async function sampled(load: { readonly name: string; readonly server: Pick<Measured, "cpuMicros" | "rssMegabytes"> }, drive: () => Promise<Seen>): Promise<Sample> {
  const cpu = load.server.cpuMicros();
  const { latenciesMs, errors, seconds } = await drive();
  const used = load.server.cpuMicros() - cpu;
  const calls = latenciesMs.length;
  if (calls === 0 || errors >= calls) throw new Error(`every call of ${load.name} failed`);
  const sorted = latenciesMs.sort();
  return {
    calls,
    errors,
    rate: calls / seconds,
    p50Ms: quantile(sorted, 0.5),
    p99Ms: quantile(sorted, 0.99),
    serverMicros: used / calls,
    rssMegabytes: load.server.rssMegabytes(),
  };
}

const bytes = (message: Buffer): Buffer => message;

/** Sends one call; gives the error's text, or undefined where there is none. */
function send(client: Client, { path, message, metadata }: GrpcRequest): Promise<string | undefined> {
  return new Promise((resolve) => {
    client.makeUnaryRequest(path, bytes, bytes, message, metadata, { deadline: Date.now() + 10_000 }, (error) => resolve(error?.message));
  });
}

/** Makes one call of a load and throws where it fails: a driver that sees only HTTP could not tell. */
export async function proveCall(load: Load): Promise<void> {
  const client = new Client(load.server.target, credentials.createInsecure());
  const error = await send(client, load.next());
  client.close();
  if (error !== undefined) throw new Error(`${load.name} fails: ${error}`);
}

/** Keeps `concurrency` calls in flight for a time with the client of grpc-js, and measures both sides. Throws where every call fails. */
export function run(load: Load, concurrency: number, seconds: number): Promise<Sample> {
  return runWhile(load, concurrency, (begun) => performance.now() < begun + seconds * 1_000);
}

/** The same for so many calls. */
export function runCalls(load: Load, concurrency: number, calls: number): Promise<Sample> {
  let left = calls;
  return runWhile(load, concurrency, () => left-- > 0);
}

async function runWhile(load: Load, concurrency: number, more: (begun: number) => boolean): Promise<Sample> {
  await proveCall(load);
  // Each with a connection of its own, which clients of one target would share.
  const clients = Array.from({ length: connectionsFor(concurrency) }, () => new Client(load.server.target, credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1 }));
  await Promise.all(clients.map((client) => send(client, load.next())));
  const latencies: number[] = [];
  let errors = 0;
  const sample = await sampled(load, async () => {
    const begun = performance.now();
    const lane = async (_: unknown, index: number) => {
      const client = clients[index % clients.length] as Client;
      while (more(begun)) {
        const sent = performance.now();
        const error = await send(client, load.next());
        latencies.push(performance.now() - sent);
        if (error !== undefined) errors += 1;
      }
    };
    await Promise.all(Array.from({ length: concurrency }, lane));
    return { latenciesMs: Float64Array.from(latencies), errors, seconds: (performance.now() - begun) / 1_000 };
  });
  for (const client of clients) client.close();
  return sample;
}
