import type { Authenticator } from "../auth/authenticate.ts";
import type { CredentialRecord, CredentialTypeName, ProviderName, SecretDocument } from "../domain/credential.ts";
import type { Secret } from "../domain/secret.ts";
import type { ResolveCredentialResponse } from "../../gen/flow/credentials/v1/credential_service.ts";
import type { Log } from "../log.ts";
import type { Grant, recordRefusal } from "../vault/gate.ts";

/** Where refusals are recorded. */
export type Audit = Parameters<typeof recordRefusal>[0];

/** Receives one observation for each call. */
export interface CallMetrics {
  /** `method` is a full method name from a service definition, `code` the name of a gRPC status code. */
  observe(call: { readonly method: string; readonly code: string; readonly seconds: number }): void;
}

/** An integration as the catalog describes it. */
export interface CatalogItem {
  /** UUID, the same on every installation. */
  readonly id: string;
  readonly category: string;
  readonly provider: ProviderName;
  /** Provider as REST spells it. */
  readonly name: string;
  readonly displayName: string | null;
  readonly description: string;
  readonly credentialTypes: readonly CredentialTypeName[];
  /** One for each type, in the same order; the schema is JSON Schema. */
  readonly credentialProviders: readonly { readonly isOauth: boolean; readonly name: string; readonly credentialSchema: SecretDocument }[];
}

/** A secret in the shape an executor receives. */
export interface ExposedCredential {
  readonly secret: NonNullable<ResolveCredentialResponse["credentials"]>;
  /** Stored keys beyond those of the shape. */
  readonly extra: SecretDocument;
  /** When the secret ends; null where it does not or that is unknown. */
  readonly expiresAt: Date | null;
}

/** A service account as it is described to operators. */
export interface ServiceAccountFacts {
  readonly id: string;
  readonly organizationId: string;
  readonly name: string;
  readonly createdAt: Date;
}

/** An API key as it is described to operators, without the key. */
export interface ServiceAccountKeyFacts {
  readonly id: string;
  readonly serviceAccountId: string;
  readonly tokenPrefix: string;
  readonly createdAt: Date;
  readonly expiresAt: Date | null;
}

/** What the RPCs do, each behind the grant of its own action. All of them throw `CredentialError`. */
export interface UseCases {
  createCredential(
    grant: Grant<"create_credential">,
    input: { provider: ProviderName; credentialType: CredentialTypeName; credentials: SecretDocument; name: string | null },
  ): Promise<CredentialRecord>;
  listCredentials(grant: Grant<"list_credentials">, filter: { provider: ProviderName | null }): Promise<CredentialRecord[]>;
  getCredential(grant: Grant<"get_credential">, credentialId: string): Promise<CredentialRecord>;
  updateCredential(
    grant: Grant<"update_credential">,
    input: { credentialId: string; credentialType: CredentialTypeName; credentials: SecretDocument; name: string | null; etag: string | null },
  ): Promise<CredentialRecord>;
  deleteCredential(grant: Grant<"delete_credential">, input: { credentialId: string; etag: string | null }): Promise<void>;
  resolveCredential(grant: Grant<"resolve_credential">, credentialId: string): Promise<{ record: CredentialRecord; exposed: ExposedCredential }>;
  listIntegrations(grant: Grant<"list_integrations">): readonly CatalogItem[];
  createServiceAccount(grant: Grant<"create_service_account">, input: { organizationId: string; name: string }): Promise<ServiceAccountFacts>;
  createServiceAccountKey(
    grant: Grant<"create_service_account_key">,
    input: { organizationId: string; serviceAccountId: string; expiresAt: Date | null },
  ): Promise<{ key: ServiceAccountKeyFacts; token: Secret<string> }>;
  /** The entity tag of a credential. */
  etagOf(record: CredentialRecord): string;
}

/** Everything the gRPC service is made of. */
export interface GrpcDeps {
  readonly authenticator: Authenticator;
  readonly audit: Audit;
  readonly log: Log;
  readonly metrics: CallMetrics;
  readonly vault: UseCases;
}
