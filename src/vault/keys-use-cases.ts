import type { CredentialTypeName, ProviderName, SecretDocument } from "../domain/credential.ts";
import type { KeyStatus, Rotation } from "../domain/rotation.ts";
import type { Grant } from "./gate.ts";

/** A change of a rotation; null leaves a thing as it is, a rate of 0 lifts the limit. */
export interface ControlInput {
  readonly rotationId: string;
  readonly paused: boolean | null;
  readonly rowsPerSecond: number | null;
}

/** One secret from another system. */
export interface ImportInput {
  readonly organizationId: string;
  readonly userId: string;
  readonly provider: ProviderName;
  readonly credentialType: CredentialTypeName;
  readonly credentials: SecretDocument;
  readonly name: string | null;
  readonly source: string;
  readonly sealedAt: Date;
  readonly keyCheckValues: readonly Buffer[];
}

/** What operators do with keys. All of them throw `CredentialError`; the reasons are those of `AdminService`. */
export interface KeyUseCases {
  status(grant: Grant<"get_key_status">): Promise<KeyStatus>;
  rotateMasterKey(grant: Grant<"rotate_master_key">, input: { readonly masterKeyId: string; readonly rowsPerSecond: number | null }): Promise<Rotation>;
  rotateOrganizationKey(grant: Grant<"rotate_organization_key">, input: { readonly organizationId: string; readonly rowsPerSecond: number | null }): Promise<Rotation>;
  verify(grant: Grant<"verify_keys">, input: { readonly organizationId: string | null; readonly rowsPerSecond: number | null }): Promise<Rotation>;
  rotation(grant: Grant<"get_rotation">, rotationId: string): Promise<Rotation>;
  control(grant: Grant<"control_rotation">, input: ControlInput): Promise<Rotation>;
  rollBack(grant: Grant<"roll_back_rotation">, rotationId: string): Promise<Rotation>;
  retire(grant: Grant<"retire_rotated_keys">, rotationId: string): Promise<Rotation>;
  /** Gives the number of keys that this call destroyed. */
  destroyOrganization(grant: Grant<"destroy_organization">, organizationId: string): Promise<number>;
  importCredential(grant: Grant<"import_credential">, input: ImportInput): Promise<{ readonly credentialId: string; readonly alreadyImported: boolean }>;
}
