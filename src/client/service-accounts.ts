import { type ClientUnaryCall, Metadata, type ServiceError } from "@grpc/grpc-js";
import {
  type CreateServiceAccountKeyRequest,
  type CreateServiceAccountKeyResponse,
  type CreateServiceAccountRequest,
  type CreateServiceAccountResponse,
  ServiceAccountServiceClient,
} from "../../gen/flow/credentials/v1/service_account_service.ts";
import { channelCredentials, type ClientTls } from "./channel.ts";
import { fromFailedCall } from "./error.ts";

/** Where the service is, and which operator asks. */
export interface ServiceAccountClientOptions {
  /** `host:port`, or anything grpc-js resolves. */
  readonly target: string;
  /** An operator's token: visible ASCII. */
  readonly token: string;
  /** TLS; where absent, TLS with the system's authorities, or plaintext to this machine. */
  readonly tls: ClientTls | undefined;
  /** Longest time of one call, ms. */
  readonly deadlineMs: number;
}

/** ServiceAccountService as promises. Every rejection is a CredentialClientError. Nothing is tried twice: each call makes something. */
export interface ServiceAccountClient extends Disposable {
  createServiceAccount(request: CreateServiceAccountRequest): Promise<CreateServiceAccountResponse>;
  /** The response holds the key, which cannot be had again. */
  createServiceAccountKey(request: CreateServiceAccountKeyRequest): Promise<CreateServiceAccountKeyResponse>;
}

/** A client of the service. It connects with the first call. */
export function createServiceAccountClient({ target, token, tls, deadlineMs }: ServiceAccountClientOptions): ServiceAccountClient {
  const client = new ServiceAccountServiceClient(target, channelCredentials(target, tls));
  const metadata = new Metadata();
  metadata.set("authorization", `Bearer ${token}`);
  const call = <T>(start: (options: { deadline: number }, done: (error: ServiceError | null, response: T) => void) => ClientUnaryCall): Promise<T> =>
    new Promise((resolve, reject) => {
      start({ deadline: Date.now() + deadlineMs }, (error, response) => (error ? reject(fromFailedCall(error, undefined)) : resolve(response)));
    });
  return {
    createServiceAccount: (request) => call((options, done) => client.createServiceAccount(request, metadata, options, done)),
    createServiceAccountKey: (request) => call((options, done) => client.createServiceAccountKey(request, metadata, options, done)),
    [Symbol.dispose]: () => client.close(),
  };
}
