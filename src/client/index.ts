/** The typed client of flow-credentials: what a flow executor imports as `flow-credentials/client`. */
export { type CallOptions, createCredentialClient, type CredentialClient, type CredentialClientOptions } from "./credentials.ts";
export type { CacheOptions, CacheStatus, CredentialCache } from "./cached-resolver.ts";
export { CredentialClientError, type FieldViolation, type StatusName } from "./error.ts";
export { sshPrivateKey, type SshPrivateKey } from "./ssh-key.ts";
export type { ClientTls } from "./channel.ts";
export { type CredentialEvent, CredentialEventKind } from "../../gen/flow/credentials/v1/credential_service.ts";
export type {
  CreateCredentialRequest,
  CreateCredentialResponse,
  DeleteCredentialRequest,
  DeleteCredentialResponse,
  GetCredentialRequest,
  GetCredentialResponse,
  ListCredentialsRequest,
  ListCredentialsResponse,
  ListIntegrationsRequest,
  ListIntegrationsResponse,
  ResolveCredentialRequest,
  ResolveCredentialResponse,
  UpdateCredentialRequest,
  UpdateCredentialResponse,
  WatchCredentialsRequest,
  WatchCredentialsResponse,
} from "../../gen/flow/credentials/v1/credential_service.ts";
export {
  type ApiKey,
  type AwsSesApiKey,
  type AwsSesSmtp,
  type Credential,
  type CredentialDetail,
  type CredentialProvider,
  CredentialStatus,
  CredentialType,
  type Integration,
  type OauthToken,
  type Postgresql,
  Provider,
  type SftpKey,
  type SftpPassword,
} from "../../gen/flow/credentials/v1/resources.ts";
