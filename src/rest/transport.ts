import { type ChannelOptions, Client, credentials, type Metadata } from "@grpc/grpc-js";

/** One call of the service. */
export interface ServiceCall {
  /** Full name of the method, with slashes. */
  readonly path: string;
  readonly request: Uint8Array;
  readonly metadata: Metadata;
  /** Aborts when nobody waits for the answer any more; undefined for a call that is finished in any case. */
  readonly signal?: AbortSignal | undefined;
}

/** The way to the gRPC service. */
export interface Transport {
  /** The response. Rejects with a gRPC status: an error with `code`, `details` and `metadata`. */
  call(call: ServiceCall): Promise<Uint8Array>;
  /** Whether the service takes calls, within a second. */
  reachable(): Promise<boolean>;
  close(): void;
}

/** How long a connection may take before the service counts as out of reach, ms. */
const REACH_MS = 1_000;

const CHANNEL: ChannelOptions = {
  // Callers' tokens go to the configured service only: not through a proxy that the environment names, and not by a
  // service configuration that DNS gives.
  "grpc.enable_http_proxy": 0,
  "grpc.service_config_disable_resolution": 1,
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 2_000,
};

const sent = (request: Uint8Array): Buffer => Buffer.from(request.buffer, request.byteOffset, request.byteLength);
const received = (response: Buffer): Buffer => response;

/**
 * Opens a channel to a service in another process.
 *
 * @param options.target a gRPC target, such as `host:port`
 * @param options.targetCa certificate authority of that service, PEM; its presence turns TLS on
 * @param options.deadlineMs longest time a call may take, ms
 */
export function dial(options: { readonly target: string; readonly targetCa?: Buffer | undefined; readonly deadlineMs: number }): Transport {
  const client = new Client(options.target, options.targetCa ? credentials.createSsl(options.targetCa) : credentials.createInsecure(), CHANNEL);
  return {
    call: ({ path, request, metadata, signal }) =>
      new Promise((resolve, reject) => {
        const pending = client.makeUnaryRequest(path, sent, received, request, metadata, { deadline: Date.now() + options.deadlineMs }, (error, response) =>
          response === undefined ? reject(error ?? new Error("no response")) : resolve(response),
        );
        signal?.addEventListener("abort", () => pending.cancel(), { once: true });
      }),
    reachable: () => new Promise((resolve) => client.waitForReady(Date.now() + REACH_MS, (error) => resolve(error === undefined))),
    close: () => client.close(),
  };
}
