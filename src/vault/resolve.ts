import type { Envelope } from "../crypto/envelope.ts";
import type { CredentialRecord } from "../domain/credential.ts";
import { fail } from "../domain/errors.ts";
import type { Log } from "../log.ts";
import { expose } from "../providers/index.ts";
import type { Exposed } from "../providers/provider.ts";
import type { Store, StoredCredential } from "../store/store.ts";
import { auditEvent, type Grant, recordUndelivered } from "./gate.ts";
import { withIncident } from "./incident.ts";

/** What resolving needs. */
export interface ResolveDeps {
  readonly store: Pick<Store, "audit" | "credentials" | "usage">;
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
 * Hands out a secret. The audit record is committed before the sealed value is opened, and a second one where the secret
 * does not leave after all. Throws CREDENTIAL_NOT_FOUND, INVALID_TOKEN and NOT_GRANTED,
 * which the same statement finds, AUDIT_UNAVAILABLE, SECRET_UNREADABLE with an incident id, and
 * REAUTHORIZATION_REQUIRED where the stored grant holds no access token that is still valid.
 */
export async function resolveCredential(deps: ResolveDeps, grant: Grant<"resolve_credential">, credentialId: string): Promise<Resolved> {
  const { caller, call } = grant;
  call.signal.throwIfAborted();
  const event = auditEvent(call, grant.action, { credentialId });
  const stored = await deps.store.credentials.resolve(caller.organizationId, credentialId, event);
  if (!stored) throw fail("CREDENTIAL_NOT_FOUND");
  try {
    call.signal.throwIfAborted();
    const exposed = await open(deps, grant, stored);
    call.signal.throwIfAborted();
    deps.store.usage.credential({ organizationId: caller.organizationId, credentialId, serviceAccountId: caller.id, flowId: call.flowId, runId: call.runId });
    return { record: stored, exposed };
  } catch (error) {
    await recordUndelivered(deps.store.audit, call, grant.action, error, credentialId);
    throw error;
  }
}

/** The place of the secret is that of the caller who asks, never that of the row: a row of someone else does not open. */
async function open(deps: ResolveDeps, { caller, call }: Grant<"resolve_credential">, stored: StoredCredential): Promise<Exposed> {
  if (stored.status === "reauth_required" || ended(stored.tokenExpiresAt, deps.now())) throw fail("REAUTHORIZATION_REQUIRED");
  const { id: credentialId, provider, credentialType, secretVersion } = stored;
  const place = { organizationId: caller.organizationId, credentialId, provider, credentialType, secretVersion };
  const document = await withIncident(deps.log, call, place, () => deps.envelope.open(place, stored.sealed));
  const exposed = expose(provider, credentialType, document);
  if (exposed.secret.$case === "oauthToken" && exposed.secret.value.accessToken === "") throw fail("REAUTHORIZATION_REQUIRED");
  return exposed;
}

const ended = (end: Date | null, now: Date): boolean => end !== null && end <= now;
