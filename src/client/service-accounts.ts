import { type ChannelCredentials, type ClientUnaryCall, credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import {
  type CreateServiceAccountKeyRequest,
  type CreateServiceAccountKeyResponse,
  type CreateServiceAccountRequest,
  type CreateServiceAccountResponse,
  ServiceAccountServiceClient,
} from "../../gen/flow/credentials/v1/service_account_service.ts";
import { BadRequest } from "../../gen/google/rpc/error_details.ts";
import { Status } from "../../gen/google/rpc/status.ts";

/** Where the service is, and who asks. */
export interface ServiceAccountsOptions {
  /** `host:port` or `unix:/path`. */
  readonly target: string;
  /** An operator's token. */
  readonly token: string;
  /** TLS, with the system's authorities where none are given; null for plaintext. */
  readonly tls: { readonly ca?: Buffer; readonly key?: Buffer; readonly certificate?: Buffer } | null;
  /** Longest time of one call, ms. */
  readonly timeoutMs: number;
}

/** The ServiceAccountService as promises; every rejection is a ServiceAccountsError. */
export interface ServiceAccounts extends Disposable {
  createServiceAccount(request: CreateServiceAccountRequest): Promise<CreateServiceAccountResponse>;
  createServiceAccountKey(request: CreateServiceAccountKeyRequest): Promise<CreateServiceAccountKeyResponse>;
}

/** A call that failed, as one sentence for people. */
export class ServiceAccountsError extends Error {
  override readonly name = "ServiceAccountsError";
}

/** Connects with the first call. */
export function serviceAccounts({ target, token, tls, timeoutMs }: ServiceAccountsOptions): ServiceAccounts {
  const channel: ChannelCredentials = tls ? credentials.createSsl(tls.ca ?? null, tls.key ?? null, tls.certificate ?? null) : credentials.createInsecure();
  const client = new ServiceAccountServiceClient(target, channel);
  const metadata = new Metadata();
  metadata.set("authorization", `Bearer ${token}`);
  const call = <T>(start: (options: { deadline: number }, done: (error: ServiceError | null, value: T) => void) => ClientUnaryCall): Promise<T> =>
    new Promise((resolve, reject) => {
      start({ deadline: Date.now() + timeoutMs }, (error, value) => (error ? reject(new ServiceAccountsError(sentence(error, target))) : resolve(value)));
    });
  return {
    createServiceAccount: (request) => call((options, done) => client.createServiceAccount(request, metadata, options, done)),
    createServiceAccountKey: (request) => call((options, done) => client.createServiceAccountKey(request, metadata, options, done)),
    [Symbol.dispose]: () => client.close(),
  };
}

/** Longest sentence taken over from the service, in characters. */
const MAX_SENTENCE = 300;

function sentence(error: ServiceError, target: string): string {
  const faults = violations(error);
  // Without details of ours the text is the transport's, and of many lines.
  if (faults === undefined && error.code === status.UNAVAILABLE) return `the service at ${target} cannot be reached`;
  if (faults === undefined && error.code === status.DEADLINE_EXCEEDED) return `the service at ${target} did not answer in time`;
  const text = [error.details, ...(faults ?? [])].join("; ");
  return text.replace(/[\p{Cc}\s]+/gu, " ").slice(0, MAX_SENTENCE);
}

/** `field: fault` for each fault the service named; undefined where the error is not the service's own. */
function violations(error: ServiceError): string[] | undefined {
  const [encoded] = error.metadata.get("grpc-status-details-bin");
  if (!Buffer.isBuffer(encoded)) return undefined;
  try {
    const details = Status.decode(encoded).details.filter((detail) => detail.typeUrl.endsWith("/google.rpc.BadRequest"));
    return details.flatMap((detail) => BadRequest.decode(detail.value).fieldViolations.map(({ field, description }) => `${field}: ${description}`));
  } catch {
    return undefined;
  }
}
