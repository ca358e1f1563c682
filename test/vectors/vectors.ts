import { readFileSync } from "node:fs";
import type { SecretPlace } from "../../src/domain/credential.ts";
import type { StoredOrganizationKey } from "../../src/crypto/organization-keys.ts";

/** A sealed secret, its place and what it holds. */
export interface SecretVector {
  readonly name: string;
  readonly organization_id: string;
  readonly credential_id: string;
  readonly provider: string;
  readonly type: string;
  /** Decimal, since JSON numbers end before u64 does. */
  readonly secret_version: string;
  readonly organization_key_version: number;
  /** The exact JSON text inside. */
  readonly json: string;
  /** What the text says. */
  readonly document: Record<string, unknown>;
  /** Base64, as every key and byte string of the file. */
  readonly sealed: string;
}

/** The committed vectors. */
export interface VectorFile {
  readonly warning: string;
  readonly master_keys: readonly { readonly id: string; readonly key: string; readonly check_value: string }[];
  readonly organization_keys: readonly {
    readonly organization_id: string;
    readonly version: number;
    readonly master_key_id: string;
    readonly key: string;
    readonly commitment: string;
    readonly fingerprint_key: string;
    readonly wrapped: string;
  }[];
  readonly secrets: readonly SecretVector[];
}

export const readVectors = (): VectorFile => JSON.parse(readFileSync(new URL("sealed-v1.json", import.meta.url), "utf8")) as VectorFile;

export const placeOf = (vector: SecretVector): SecretPlace => ({
  organizationId: vector.organization_id,
  credentialId: vector.credential_id,
  provider: vector.provider as SecretPlace["provider"],
  credentialType: vector.type as SecretPlace["credentialType"],
  secretVersion: BigInt(vector.secret_version),
});

export const storedKeys = (file: VectorFile): StoredOrganizationKey[] =>
  file.organization_keys.map((row) => ({
    organizationId: row.organization_id,
    version: row.version,
    wrapped: Buffer.from(row.wrapped, "base64"),
    commitment: Buffer.from(row.commitment, "base64"),
  }));
