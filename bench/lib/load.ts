import { Client, credentials, type Metadata } from "@grpc/grpc-js";
import type { Measured } from "./process.ts";

/** A method under load, of one server, and what each call sends. */
export interface Load {
  readonly name: string;
  readonly server: Measured;
  readonly path: string;
  /** The next request, encoded, and who sends it. Cheap: it runs inside the measurement. */
  next(): { readonly message: Buffer; readonly metadata: Metadata };
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

const bytes = (message: Buffer): Buffer => message;
const quantile = (sorted: Float64Array, q: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? Number.NaN;

/** Keeps `concurrency` calls in flight on one connection for a time, and measures both sides. Throws where every call fails. */
export async function run(load: Load, concurrency: number, seconds: number): Promise<Sample> {
  const client = new Client(load.server.target, credentials.createInsecure());
  const latencies: number[] = [];
  let errors = 0;
  let lastError = "";
  const call = () =>
    new Promise<void>((resolve) => {
      const { message, metadata } = load.next();
      const begun = performance.now();
      client.makeUnaryRequest(load.path, bytes, bytes, message, metadata, { deadline: Date.now() + 10_000 }, (error) => {
        latencies.push(performance.now() - begun);
        if (error) [errors, lastError] = [errors + 1, error.message];
        resolve();
      });
    });
  await call();
  [latencies.length, errors] = [0, 0];
  const cpu = load.server.cpuMicros();
  const begun = performance.now();
  const until = begun + seconds * 1_000;
  const lane = async () => {
    while (performance.now() < until) await call();
  };
  await Promise.all(Array.from({ length: concurrency }, lane));
  const elapsed = (performance.now() - begun) / 1_000;
  const used = load.server.cpuMicros() - cpu;
  client.close();
  if (errors === latencies.length) throw new Error(`every call of ${load.name} failed: ${lastError}`);
  const sorted = Float64Array.from(latencies).sort();
  const calls = sorted.length;
  return {
    calls,
    errors,
    rate: calls / elapsed,
    p50Ms: quantile(sorted, 0.5),
    p99Ms: quantile(sorted, 0.99),
    serverMicros: used / calls,
    rssMegabytes: load.server.rssMegabytes(),
  };
}
