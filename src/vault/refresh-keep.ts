import type { Envelope } from "../crypto/envelope.ts";
import type { AuditEvent } from "../domain/access.ts";
import { MAX_SECRET_BYTES, type SecretDocument, type SecretPlace } from "../domain/credential.ts";
import { CredentialError } from "../domain/errors.ts";
import type { Failpoint } from "../domain/failpoint.ts";
import type { Refreshed } from "../domain/oauth.ts";
import { missingScopes } from "../domain/scopes.ts";
import { errorFields, type Log } from "../log.ts";
import { expose } from "../providers/index.ts";
import type { Lease } from "../store/refresh.ts";
import type { Store, StoredCredential } from "../store/store.ts";
import { passes, persistently } from "./refresh-io.ts";

/** What storing a renewed secret needs. */
export interface KeepDeps {
  readonly store: Pick<Store, "refresh">;
  readonly envelope: Pick<Envelope, "seal">;
  readonly log: Log;
  readonly failpoint: Failpoint;
  /** Aborts when the process has to end. */
  readonly ended: AbortSignal;
}

/** Key under which a document keeps the scopes that were granted once and are missing now. */
const SCOPE_BEFORE = "scope_before";

/** By how much a renewal may lengthen a document, bytes: new tokens are seldom longer than those they replace. */
const GROWTH_BYTES = 16_384;

/** The place comes from the lease, never from the row: a row of someone else does not open. */
export const placeOf = (lease: Lease, { provider, credentialType }: StoredCredential, secretVersion: bigint): SecretPlace => ({
  organizationId: lease.organizationId, credentialId: lease.credentialId, provider, credentialType, secretVersion,
});

const bytesOf = (document: SecretDocument): number => Buffer.byteLength(JSON.stringify(document));

/** Whether what a renewal brings will surely fit in beside the rest. */
export const hasRoom = (document: SecretDocument): boolean => bytesOf(document) + GROWTH_BYTES <= MAX_SECRET_BYTES;

/** What no waiting mends: there is no key any more, or what is to be stored is too large. */
const isFinal = (error: unknown): boolean => error instanceof CredentialError && (error.reason === "ORGANIZATION_DESTROYED" || error.reason === "INVALID_CREDENTIALS");

/**
 * Seals what the provider gave and stores it, in the place of the very version that was sent; false where that is gone, or
 * somebody else has begun. What the provider gave may be the only token that works, so whatever goes wrong is tried again
 * until the process has to end.
 */
export async function keep(deps: KeepDeps, lease: Lease, stored: StoredCredential, before: SecretDocument, said: Extract<Refreshed, { kind: "refreshed" }>, event: AuditEvent): Promise<boolean> {
  const { document, reduced } = merged(stored, before, said);
  let told = false;
  const again = (error: unknown): boolean => {
    if (isFinal(error)) return false;
    if (!passes(error) && !told) {
      told = true;
      deps.log.error({ request_id: event.requestId, organization_id: lease.organizationId, credential_id: lease.credentialId, ...errorFields(error) }, "a renewed token cannot be stored yet; it is kept in memory and tried again");
    }
    return true;
  };
  const write = async (): Promise<boolean> => {
    const sealed = await deps.envelope.seal(placeOf(lease, stored, stored.secretVersion + 1n), document);
    await deps.failpoint("before-commit");
    const renewed = { sentVersion: stored.secretVersion, sealed, tokenExpiresAt: said.tokenExpiresAt, reason: reduced ? "scopes_reduced" : null };
    return deps.store.refresh.keep(lease, renewed, [event]);
  };
  return persistently(deps.ended, write, again);
}

/** What is stored: a refresh token that the provider did not replace stays (RFC 6749 section 6), and scopes that are missing now are remembered. */
function merged(stored: StoredCredential, before: SecretDocument, said: Extract<Refreshed, { kind: "refreshed" }>): { document: SecretDocument; reduced: boolean } {
  const { [SCOPE_BEFORE]: _, ...renewed } = said.document;
  const token = renewed["refresh_token"] ?? before["refresh_token"];
  const remembered = before[SCOPE_BEFORE];
  const granted = typeof remembered === "string" ? remembered.split(" ") : scopesOf(stored, before);
  const now = said.scopes ?? scopesOf(stored, before);
  const reduced = missingScopes(granted, now).length > 0;
  const document = { ...renewed, ...(token === undefined ? {} : { refresh_token: token }) };
  const remembering = { ...document, [SCOPE_BEFORE]: granted.join(" ") };
  // A token is worth more than the memory of scopes.
  return { document: reduced && bytesOf(remembering) <= MAX_SECRET_BYTES ? remembering : document, reduced };
}

function scopesOf({ provider, credentialType }: StoredCredential, document: SecretDocument): readonly string[] {
  const { secret } = expose(provider, credentialType, document);
  return secret.$case === "oauthToken" ? secret.value.scopes : [];
}
