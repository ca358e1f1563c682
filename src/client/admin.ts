import { AdminServiceClient, AdminServiceService } from "../../gen/flow/credentials/v1/admin_service.ts";
import { CredentialType, Provider } from "../../gen/flow/credentials/v1/resources.ts";
import { channelCredentials } from "./channel.ts";
import { type Rpcs, rpcsOf } from "./rpcs.ts";
import type { ServiceAccountClientOptions } from "./service-accounts.ts";

export type { AuditEvent, GetKeyStatusResponse, Rotation, SignedAuditHead } from "../../gen/flow/credentials/v1/admin_service.ts";

/** Enum values by their documented spelling. */
const byWord = <N extends number>(values: Readonly<Record<string, N>>, prefix: string): Readonly<Record<string, N>> =>
  Object.fromEntries(Object.entries(values).filter(([name]) => name.startsWith(prefix) && !name.endsWith("_UNSPECIFIED")).map(([name, number]) => [name.slice(prefix.length).toLowerCase(), number]));

/** Providers by their documented spelling, such as `sftp`. */
export const PROVIDER_NUMBERS = byWord<Provider>(Provider, "PROVIDER_");

/** Credential types by their documented spelling, such as `user_password`. */
export const CREDENTIAL_TYPE_NUMBERS = byWord<CredentialType>(CredentialType, "CREDENTIAL_TYPE_");

/** AdminService as promises, one function for each RPC. Every rejection is a CredentialClientError. Nothing is tried twice. */
export type AdminClient = Disposable & Rpcs<typeof AdminServiceService>;

/** A client of the service. It connects with the first call. */
export function createAdminClient({ target, tls, ...caller }: ServiceAccountClientOptions): AdminClient {
  const client = new AdminServiceClient(target, channelCredentials(target, tls));
  return { ...rpcsOf(AdminServiceService, client, caller), [Symbol.dispose]: () => client.close() };
}
