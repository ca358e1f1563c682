import type { Envelope } from "../crypto/envelope.ts";
import type { CredentialRecord } from "../domain/credential.ts";
import { fail } from "../domain/errors.ts";
import type { Log } from "../log.ts";
import type { Store } from "../store/store.ts";
import { auditEvent, type Grant, recordUndelivered } from "./gate.ts";
import { withIncident } from "./incident.ts";
import { author, etagOf, ownCredential } from "./manage.ts";
import { renewalOf } from "./renewal.ts";
import { organizationOf } from "./service-accounts.ts";

/** What going back needs. */
export interface RollbackDeps {
  readonly store: Pick<Store, "audit" | "credentials" | "usage">;
  readonly envelope: Pick<Envelope, "open" | "seal">;
  readonly log: Log;
}

/** Which credential goes back; a null etag is no precondition. */
export interface RollbackInput {
  readonly credentialId: string;
  readonly etag: string | null;
  /** The organization that an operator names. */
  readonly organizationId: string | null;
}

/**
 * Goes back to the secret before the newest one, which gets a version of its own: bytes are bound to the version they were
 * sealed for. Throws CREDENTIAL_NOT_FOUND, NOT_GRANTED, ETAG_MISMATCH, NO_PREVIOUS_SECRET and SECRET_UNREADABLE.
 */
export async function rollbackCredential(deps: RollbackDeps, grant: Grant<"rollback_credential">, input: RollbackInput): Promise<CredentialRecord> {
  const { caller, call } = grant;
  const { credentialId, etag } = input;
  const organizationId = organizationOf(grant, input.organizationId);
  const event = auditEvent(call, grant.action, { credentialId, organizationId });
  const current = await ownCredential(deps, { organizationId, call }, credentialId);
  if (etag !== null && etag !== etagOf(current)) throw fail("ETAG_MISMATCH");
  const previous = await deps.store.credentials.previous(organizationId, credentialId, call.signal);
  if (!previous) throw fail("NO_PREVIOUS_SECRET");
  const { provider } = current;
  const { credentialType, accountEmail, tokenExpiresAt, flow } = previous;
  const was = { organizationId, credentialId, provider, credentialType, secretVersion: previous.secretVersion };
  const becomes = { ...was, secretVersion: current.secretVersion + 1n };
  // A key is used here, and a record of it stands before: whatever comes of it has a second one.
  await deps.store.audit.append([{ ...event, idempotency: null }]);
  try {
    const document = await withIncident(deps.log, call, was, () => deps.envelope.open(was, previous.sealed));
    const sealed = await withIncident(deps.log, call, becomes, () => deps.envelope.seal(becomes, document));
    const written = await deps.store.credentials.replace(
      {
        organizationId, id: credentialId, expectedRevision: current.revision, credentialType, name: null, accountEmail, tokenExpiresAt,
        status: "active", modifiedBy: author(caller), secretVersion: becomes.secretVersion, sealed, renewal: renewalOf(provider, credentialType, { document, tokenExpiresAt }, flow !== undefined),
        ...(flow === undefined ? {} : { flow }),
      },
      event,
      call.signal,
    );
    if (written === undefined) throw fail("CREDENTIAL_NOT_FOUND");
    if (written === "stale") throw fail("ETAG_MISMATCH");
    return written;
  } catch (error) {
    await recordUndelivered(deps.store.audit, call, grant.action, error, credentialId);
    throw error;
  }
}
