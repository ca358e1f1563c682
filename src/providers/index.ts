import type { Findings } from "../domain/check.ts";
import type { CredentialTypeName, ProviderName, SecretDocument } from "../domain/credential.ts";
import { fail } from "../domain/errors.ts";
import { awsSes } from "./aws-ses.ts";
import { type CatalogEntry, describe } from "./catalog.ts";
import { FINDINGS } from "./checks/doctor.ts";
import { PASSES } from "./checks/passes.ts";
import { google } from "./google.ts";
import { microsoft, sharepoint } from "./microsoft.ts";
import { internalPostgresql, postgresql } from "./postgresql.ts";
import type { AcceptOptions, Accepted, Authorization, CredentialShape, Exposed, Provider } from "./provider.ts";
import { sftp } from "./sftp.ts";

export type { CatalogEntry, CatalogShape } from "./catalog.ts";

/** Every provider, in the order of the catalog. */
export const providers: Readonly<Record<ProviderName, Provider>> = {
  microsoft,
  sharepoint,
  sftp,
  aws_ses: awsSes,
  google,
  postgresql,
  internal_postgresql: internalPostgresql,
};

/**
 * Checks a secret against the rules of its provider and type, and normalises it. Throws INVALID_CREDENTIALS with
 * violations that name keys and rules, never values, and OVERLOADED where too many keys wait to be opened.
 */
export async function accept(provider: ProviderName, type: CredentialTypeName, document: SecretDocument, options: AcceptOptions): Promise<Accepted> {
  const shape = shapeOf(provider, type);
  if (shape !== undefined) return shape.accept(document, options);
  const taken = Object.keys(providers[provider].types).join(", ");
  const message = `This provider takes ${taken}`;
  throw fail("INVALID_CREDENTIALS", { violations: [{ in: "body", path: ["credential_type"], type: "value_error", message }] });
}

/** What an executor receives of a document that `accept` gave for the same provider and type. */
export function expose(provider: ProviderName, type: CredentialTypeName, document: SecretDocument): Exposed {
  const shape = shapeOf(provider, type);
  if (shape === undefined) throw new TypeError("no credential of this provider has this type");
  return shape.expose(document);
}

/** How an access token of this provider and type is renewed; undefined where it cannot be. */
export function refresherOf(provider: ProviderName, type: CredentialTypeName): CredentialShape["refresh"] {
  return shapeOf(provider, type)?.refresh;
}

/** Whether a document can be renewed without a person; `hasOwnClient` says whether the service's own OAuth client may be used for it. */
export function canRefresh(provider: ProviderName, type: CredentialTypeName, document: SecretDocument, hasOwnClient: boolean): boolean {
  return shapeOf(provider, type)?.canRefresh?.(document, hasOwnClient) ?? false;
}

/** Providers with anything that can be renewed, or that ends. */
export const refreshingProviders: readonly ProviderName[] = Object.values(providers)
  .filter(({ types }) => Object.values(types).some((shape) => shape.isOauth))
  .map(({ provider }) => provider);

/** How a person authorizes at a provider; undefined where nobody can. */
export const authorizationOf = (provider: ProviderName): Authorization | undefined => providers[provider].authorization;

/** Everything that the tests of all providers can find. */
export const findings: Findings = { failures: FINDINGS, passes: new Set(Object.values(PASSES)) };

const entries: readonly CatalogEntry[] = Object.values(providers).map(describe);

/** What each provider is, and what its credentials look like. */
export const catalog = (): readonly CatalogEntry[] => entries;

const shapeOf = (provider: ProviderName, type: CredentialTypeName): CredentialShape | undefined => providers[provider].types[type];
