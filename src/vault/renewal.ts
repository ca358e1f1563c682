import type { CredentialTypeName, ProviderName, Renewal } from "../domain/credential.ts";
import { canRefresh } from "../providers/index.ts";
import type { Accepted } from "../providers/provider.ts";

/**
 * What is to be done about the end of an accepted token. `ownClient` says whether it came from the service's own authorize
 * flow; one that a caller posted belongs to that caller's OAuth client.
 */
export function renewalOf(provider: ProviderName, type: CredentialTypeName, { document, tokenExpiresAt }: Pick<Accepted, "document" | "tokenExpiresAt">, ownClient: boolean): Renewal {
  if (!canRefresh(provider, type, document, ownClient)) return "none";
  return tokenExpiresAt === null && document["access_token"] === undefined ? "due" : "scheduled";
}
