import { CredentialServiceClient, CredentialServiceService } from "../../gen/flow/credentials/v1/credential_service.ts";
import { ServiceAccountServiceClient, ServiceAccountServiceService } from "../../gen/flow/credentials/v1/service_account_service.ts";
import { channelCredentials, type ClientTls } from "./channel.ts";
import { type Rpcs, rpcsOf, type TokenSource } from "./rpcs.ts";

export type { ServiceAccount, ServiceAccountKey } from "../../gen/flow/credentials/v1/service_account_service.ts";
export { ServiceAccountStatus } from "../../gen/flow/credentials/v1/service_account_service.ts";
export { Provider } from "../../gen/flow/credentials/v1/resources.ts";

/** Where the service is, and which operator asks. */
export interface ServiceAccountClientOptions {
  /** `host:port`, or anything grpc-js resolves. */
  readonly target: string;
  /** An operator's token: visible ASCII. */
  readonly token: TokenSource;
  /** TLS; where absent, TLS with the system's authorities, or plaintext to this machine. */
  readonly tls: ClientTls | undefined;
  /** Longest time of one call, ms. */
  readonly deadlineMs: number;
}

/** ServiceAccountService as promises, and going back to a secret. The response to a new key holds the key, which cannot be had again. */
export interface ServiceAccountClient extends Disposable, Rpcs<typeof ServiceAccountServiceService>, Pick<Rpcs<typeof CredentialServiceService>, "rollbackCredential"> {}

/** A client of the service. It connects with the first call. */
export function createServiceAccountClient({ target, tls, ...caller }: ServiceAccountClientOptions): ServiceAccountClient {
  const accounts = new ServiceAccountServiceClient(target, channelCredentials(target, tls));
  const credentials = new CredentialServiceClient(target, channelCredentials(target, tls));
  const { rollbackCredential } = CredentialServiceService;
  return {
    ...rpcsOf(ServiceAccountServiceService, accounts, caller),
    ...rpcsOf({ rollbackCredential }, credentials, caller),
    [Symbol.dispose]() {
      accounts.close();
      credentials.close();
    },
  };
}
