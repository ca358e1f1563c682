import { createHash } from "node:crypto";
import { z } from "zod";
import type { CredentialTypeName, ProviderName, SecretDocument } from "../domain/credential.ts";
import type { CredentialShape, Provider } from "./provider.ts";

/** One way to give an integration its credentials. */
export interface CatalogShape {
  readonly isOauth: boolean;
  readonly name: CredentialTypeName;
  /** JSON Schema (draft 2020-12) of what a caller sends; secret fields are `writeOnly`. */
  readonly credentialSchema: SecretDocument;
}

/** One kind of integration, and what its credentials look like. */
export interface CatalogEntry {
  /** UUID (version 5), the same on every installation. */
  readonly id: string;
  readonly category: Provider["category"];
  readonly provider: ProviderName;
  readonly name: string;
  readonly displayName: string;
  readonly description: string;
  readonly credentialTypes: readonly CredentialTypeName[];
  /** One entry for each type, in the same order. */
  readonly credentialProviders: readonly CatalogShape[];
}

/** The namespace for names that are URLs or URNs (RFC 9562 section 6.6). */
const NAMESPACE = Buffer.from("6ba7b8119dad11d180b400c04fd430c8", "hex");

/** A UUID derived from a name by SHA-1 (RFC 9562 section 5.5). */
function uuidOf(name: string): string {
  const bytes = createHash("sha1").update(NAMESPACE).update(name).digest().subarray(0, 16);
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x50, 6);
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8);
  const hex = bytes.toString("hex");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** What the catalog says of one provider. */
export function describe(facts: Provider): CatalogEntry {
  const shapes = Object.entries(facts.types) as [CredentialTypeName, CredentialShape][];
  return {
    id: uuidOf(`urn:flow-credentials:integration:${facts.provider}`),
    category: facts.category,
    provider: facts.provider,
    name: facts.provider,
    displayName: facts.displayName,
    description: facts.description,
    credentialTypes: shapes.map(([name]) => name),
    credentialProviders: shapes.map(([name, { isOauth, schema }]) => ({ isOauth, name, credentialSchema: schemaOf(schema) })),
  };
}

const schemaOf = (schema: z.ZodType): SecretDocument => ({ ...z.toJSONSchema(schema, { target: "draft-2020-12", io: "input" }) });
