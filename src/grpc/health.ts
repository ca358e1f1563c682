import { type ServerWritableStream, status } from "@grpc/grpc-js";
import { type HealthCheckRequest, type HealthCheckResponse, HealthCheckResponse_ServingStatus as State, type HealthServer } from "../../gen/health/v1/health.ts";
import { MAX_CONNECTIONS } from "./door.ts";
import { createQuota } from "./quota.ts";

type Watcher = ServerWritableStream<HealthCheckRequest, HealthCheckResponse>;

/** Watchers at once on one connection; a client has one for each service name it cares for. */
const MAX_WATCHERS_PER_CONNECTION = 4;

/** Watchers at once in all: as many as the connections that are taken can have. */
const MAX_WATCHERS = MAX_WATCHERS_PER_CONNECTION * MAX_CONNECTIONS;

/** `grpc.health.v1.Health`: needs no identity, and tells nothing but whether calls are taken. */
export interface Health {
  readonly implementation: HealthServer;
  /** Tells every service's state, to watchers too. */
  setServing(serving: boolean): void;
  /** Ends every watch, so that its connection can close. */
  close(): void;
}

/** Makes the health service for these services; the empty name stands for the server as a whole. Starts as not serving. */
export function createHealth(services: readonly string[]): Health {
  const names = new Set(["", ...services]);
  const watchers = new Set<Watcher>();
  const quota = createQuota({ perConnection: MAX_WATCHERS_PER_CONNECTION, total: MAX_WATCHERS });
  let state: State = State.NOT_SERVING;
  const stateOf = (service: string): State => (names.has(service) ? state : State.SERVICE_UNKNOWN);
  return {
    implementation: {
      check({ request }, callback) {
        if (names.has(request.service)) callback(null, { status: state });
        else callback({ code: status.NOT_FOUND, details: "unknown service" });
      },
      list(_call, callback) {
        callback(null, { statuses: Object.fromEntries([...names].map((name) => [name, { status: state }])) });
      },
      watch(call) {
        const peer = call.getPeer();
        if (!quota.take(peer)) {
          call.emit("error", { code: status.RESOURCE_EXHAUSTED, details: "too many watchers" });
          return;
        }
        watchers.add(call);
        call.once("cancelled", () => {
          watchers.delete(call);
          quota.release(peer);
        });
        call.write({ status: stateOf(call.request.service) });
      },
    },
    setServing(serving) {
      const next = serving ? State.SERVING : State.NOT_SERVING;
      if (next === state) return;
      state = next;
      for (const watcher of watchers) if (names.has(watcher.request.service)) watcher.write({ status: state });
    },
    close() {
      for (const watcher of watchers) watcher.end();
      watchers.clear();
    },
  };
}
