import { type ClientUnaryCall, Metadata, type ServiceError } from "@grpc/grpc-js";
import { AdminServiceClient, AdminServiceService } from "../../gen/flow/credentials/v1/admin_service.ts";
import { CredentialType, Provider } from "../../gen/flow/credentials/v1/resources.ts";
import { channelCredentials } from "./channel.ts";
import { fromFailedCall } from "./error.ts";
import type { ServiceAccountClientOptions } from "./service-accounts.ts";

export type { AuditEvent, GetKeyStatusResponse, Rotation, SignedAuditHead } from "../../gen/flow/credentials/v1/admin_service.ts";

/** Enum values by their documented spelling. */
const byWord = <N extends number>(values: Readonly<Record<string, N>>, prefix: string): Readonly<Record<string, N>> =>
  Object.fromEntries(Object.entries(values).filter(([name]) => name.startsWith(prefix) && !name.endsWith("_UNSPECIFIED")).map(([name, number]) => [name.slice(prefix.length).toLowerCase(), number]));

/** Providers by their documented spelling, such as `sftp`. */
export const PROVIDER_NUMBERS = byWord<Provider>(Provider, "PROVIDER_");

/** Credential types by their documented spelling, such as `user_password`. */
export const CREDENTIAL_TYPE_NUMBERS = byWord<CredentialType>(CredentialType, "CREDENTIAL_TYPE_");

type Rpcs = typeof AdminServiceService;

/** The request of an RPC, and what it answers. */
type RequestOf<R> = R extends { readonly requestSerialize: (value: infer Request) => Buffer } ? Request : never;
type ResponseOf<R> = R extends { readonly responseDeserialize: (bytes: Buffer) => infer Response } ? Response : never;

/** AdminService as promises, one function for each RPC. Every rejection is a CredentialClientError. Nothing is tried twice. */
export type AdminClient = Disposable & { readonly [N in keyof Rpcs]: (request: RequestOf<Rpcs[N]>) => Promise<ResponseOf<Rpcs[N]>> };

/** A client of the service. It connects with the first call. */
export function createAdminClient({ target, token, tls, deadlineMs }: ServiceAccountClientOptions): AdminClient {
  const client = new AdminServiceClient(target, channelCredentials(target, tls));
  const metadata = new Metadata();
  metadata.set("authorization", `Bearer ${token}`);
  const call = (name: keyof Rpcs) => (request: never) =>
    new Promise<unknown>((resolve, reject) => {
      const start = client[name].bind(client) as unknown as (
        request: unknown, metadata: Metadata, options: { deadline: number }, done: (error: ServiceError | null, response: unknown) => void,
      ) => ClientUnaryCall;
      start(request, metadata, { deadline: Date.now() + deadlineMs }, (error, response) => (error ? reject(fromFailedCall(error, undefined)) : resolve(response)));
    });
  const names = Object.keys(AdminServiceService) as (keyof Rpcs)[];
  return Object.assign(Object.fromEntries(names.map((name) => [name, call(name)])), { [Symbol.dispose]: () => client.close() }) as unknown as AdminClient;
}
