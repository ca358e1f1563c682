import type { Authenticator } from "../auth/authenticate.ts";
import type { Log } from "../log.ts";
import type { AuditStore, Reception, Repeats, UseCases } from "../vault/use-cases.ts";

/** Receives one observation for each call. */
export interface CallMetrics {
  /** `method` is a full method name from a service definition, `code` the name of a gRPC status code, `reason` a word of the error table. */
  observe(call: { readonly method: string; readonly code: string; readonly seconds: number; readonly reason?: string | undefined }): void;
}

/** Everything the gRPC service is made of. */
export interface GrpcDeps {
  readonly authenticator: Authenticator;
  /** Where refusals are recorded. */
  readonly audit: AuditStore;
  /** What every proven caller goes through first. */
  readonly reception: Reception;
  /** Writes that callers may repeat. */
  readonly repeats: Repeats;
  readonly log: Log;
  readonly metrics: CallMetrics;
  readonly vault: UseCases;
}
