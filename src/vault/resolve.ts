import type { Envelope } from "../crypto/envelope.ts";
import type { CredentialRecord, SecretDocument } from "../domain/credential.ts";
import { CredentialError, fail } from "../domain/errors.ts";
import { errorFields, type Log, newRequestId } from "../log.ts";
import { expose } from "../providers/index.ts";
import type { Exposed } from "../providers/provider.ts";
import type { Store, StoredCredential } from "../store/store.ts";
import { auditEvent, type Grant } from "./gate.ts";

/** What resolving needs. */
export interface ResolveDeps {
  readonly store: Pick<Store, "credentials">;
  readonly envelope: Pick<Envelope, "open">;
  readonly log: Log;
  /** The clock that token ends are compared with. */
  readonly now: () => Date;
}

/** A secret on its way to an executor, and what is known about its credential. */
export interface Resolved {
  readonly record: CredentialRecord;
  readonly exposed: Exposed;
}

/**
 * Hands out a secret. The audit record is committed before the sealed value is opened. Throws CREDENTIAL_NOT_FOUND,
 * AUDIT_UNAVAILABLE, SECRET_UNREADABLE with an incident id, and REAUTHORIZATION_REQUIRED where the stored grant holds
 * no access token that is still valid.
 */
export async function resolveCredential(deps: ResolveDeps, grant: Grant<"resolve_credential">, credentialId: string): Promise<Resolved> {
  const { caller, call } = grant;
  const event = auditEvent(call, grant.action, { credentialId });
  const stored = await deps.store.credentials.resolve(caller.organizationId, credentialId, event);
  if (!stored) throw fail("CREDENTIAL_NOT_FOUND");
  if (stored.status === "reauth_required" || ended(stored.tokenExpiresAt, deps.now())) throw fail("REAUTHORIZATION_REQUIRED");
  call.signal.throwIfAborted();
  const document = await open(deps, stored, call.requestId);
  const exposed = expose(stored.provider, stored.credentialType, document);
  if (exposed.secret.$case === "oauthToken" && exposed.secret.value.accessToken === "") throw fail("REAUTHORIZATION_REQUIRED");
  return { record: stored, exposed };
}

const ended = (end: Date | null, now: Date): boolean => end !== null && end <= now;

async function open(deps: ResolveDeps, stored: StoredCredential, requestId: string): Promise<SecretDocument> {
  const { organizationId, id: credentialId, provider, credentialType, secretVersion } = stored;
  try {
    return await deps.envelope.open({ organizationId, credentialId, provider, credentialType, secretVersion }, stored.sealed);
  } catch (error) {
    if (!(error instanceof CredentialError) || error.reason !== "SECRET_UNREADABLE") throw error;
    const incident = newRequestId();
    deps.log.error({ incident, request_id: requestId, organization_id: organizationId, credential_id: credentialId, ...errorFields(error.cause) }, "a stored secret does not open");
    throw fail("SECRET_UNREADABLE", { incident, cause: error.cause });
  }
}
