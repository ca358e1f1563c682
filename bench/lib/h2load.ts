import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type HttpLoad, proveRequest } from "./http-load.ts";
import { connectionsFor, type GrpcRequest, type Load, proveCall, type Sample, sampled, type Seen } from "./load.ts";

/**
 * Drives a server with h2load (https://nghttp2.org/documentation/h2load.1.html), which costs far less CPU than a client in
 * JavaScript. It repeats one request, and of an answer it sees only the HTTP status: a gRPC call that fails looks like one
 * that does not, except in the service's own metrics.
 */

/** The version of the h2load that is installed; undefined where there is none. */
export function h2loadVersion(): string | undefined {
  const { status, stdout } = spawnSync("h2load", ["--version"], { encoding: "utf8" });
  return status === 0 ? stdout.trim().replace(/^h2load /, "") : undefined;
}

/** A message in gRPC's frame: not compressed, its length, itself. */
export function grpcFrame(message: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

/** Keeps `concurrency` repetitions of a load's next call in flight, on as many connections as the other driver has. */
export async function runH2load(load: Load, concurrency: number, seconds: number): Promise<Sample> {
  await proveCall(load);
  const connections = connectionsFor(concurrency);
  const { path, message, metadata }: GrpcRequest = load.next();
  const headers = { "content-type": "application/grpc", te: "trailers", ...metadata.getMap() };
  const args = [`--clients=${connections}`, `--max-concurrent-streams=${Math.ceil(concurrency / connections)}`, ...headerArgs(headers), `http://${load.server.target}${path}`];
  return sampled(load, () => h2load(args, seconds, grpcFrame(message)));
}

/** The same for a load over HTTP/1.1: as many connections as requests in flight. */
export async function runH2loadHttp(load: HttpLoad, concurrency: number, seconds: number): Promise<Sample> {
  await proveRequest(load);
  const { path, headers, body } = load.nextHttp();
  const type: Record<string, string> = body === undefined ? {} : { "content-type": "application/json" };
  const args = ["--h1", `--clients=${concurrency}`, "--max-concurrent-streams=1", ...headerArgs({ ...headers, ...type }), `http://${load.server.rest}${path}`];
  return sampled(load, () => h2load(args, seconds, body));
}

const headerArgs = (headers: Readonly<Record<string, unknown>>): string[] => Object.entries(headers).map(([name, value]) => `--header=${name}: ${String(value)}`);

/** The longest time in which no call may end, s. */
const LONGEST_SECONDS = 30;

/** Runs it for a time, or for longer where a busy machine ends no call in that. */
async function h2load(args: readonly string[], seconds: number, body?: string | Buffer): Promise<Seen> {
  const folder = mkdtempSync(join(tmpdir(), "flow-credentials-h2load-"));
  try {
    const [data, log] = [join(folder, "body"), join(folder, "log")];
    if (body !== undefined) writeFileSync(data, body);
    const all = [`--duration=${Math.round(seconds * 1_000)}ms`, `--log-file=${log}`, ...(body === undefined ? [] : [`--data=${data}`]), ...args];
    const report = await ended(all);
    const text = readFileSync(log, "utf8");
    return text === "" && seconds < LONGEST_SECONDS ? h2load(args, 2 * seconds, body) : readLog(report, text);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Runs it to its end; its report. Throws where it fails. */
async function ended(args: readonly string[]): Promise<string> {
  const child = spawn("h2load", args, { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text: string) => (output += text));
  const code = await new Promise<number | null>((resolve, reject) => child.once("error", reject).once("close", resolve));
  if (code !== 0) throw new Error(`h2load ended with ${code}:\n${output.slice(-2_000)}`);
  return output;
}

/** Reads its log, one line a request: start in µs since the epoch, HTTP status, µs until the end of the answer. */
function readLog(report: string, log: string): Seen {
  const failed = Number(/(\d+) failed/.exec(report)?.[1] ?? Number.NaN);
  const lines = log.trimEnd().split("\n");
  const latenciesMs = new Float64Array(lines.length);
  let [errors, first, last] = [0, Number.POSITIVE_INFINITY, 0];
  for (const [index, line] of lines.entries()) {
    const [start = Number.NaN, status = Number.NaN, micros = Number.NaN] = line.split("\t").map(Number);
    latenciesMs[index] = micros / 1_000;
    if (!(status >= 200 && status < 300)) errors += 1;
    first = Math.min(first, start);
    last = Math.max(last, start + micros);
  }
  if (!Number.isFinite(last - first) || Number.isNaN(failed)) throw new Error(`h2load said what is not understood:\n${report.slice(-2_000)}`);
  return { latenciesMs, errors: Math.max(errors, failed), seconds: (last - first) / 1e6 };
}
