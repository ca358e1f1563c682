import type { Authenticator } from "../auth/authenticate.ts";
import type { Log } from "../log.ts";
import type { AuditStore, UseCases } from "../vault/use-cases.ts";

/** Receives one observation for each call. */
export interface CallMetrics {
  /** `method` is a full method name from a service definition, `code` the name of a gRPC status code. */
  observe(call: { readonly method: string; readonly code: string; readonly seconds: number }): void;
}

/** Everything the gRPC service is made of. */
export interface GrpcDeps {
  readonly authenticator: Authenticator;
  /** Where refusals are recorded. */
  readonly audit: AuditStore;
  readonly log: Log;
  readonly metrics: CallMetrics;
  readonly vault: UseCases;
}
