import type { Envelope } from "../crypto/envelope.ts";
import type { CredentialRecord } from "../domain/credential.ts";
import { fail } from "../domain/errors.ts";
import type { Log } from "../log.ts";
import { expose as exposeDocument } from "../providers/index.ts";
import type { Exposed } from "../providers/provider.ts";
import type { Store, StoredCredential } from "../store/store.ts";
import { auditEvent, type Grant, recordUndelivered } from "./gate.ts";
import { incidentOf } from "./incident.ts";
import type { TokenRenewal } from "./refresh.ts";

/** What resolving needs. */
export interface ResolveDeps {
  readonly store: Pick<Store, "audit" | "credentials" | "usage">;
  readonly envelope: Pick<Envelope, "open">;
  readonly renewal: TokenRenewal;
  /** How long an executor that watches may use a secret again, s. */
  readonly clientCacheSeconds: number;
  readonly log: Log;
}

/** A secret on its way to an executor, and what is known about its credential. */
export interface Resolved {
  readonly record: Pick<CredentialRecord, "id" | "provider" | "credentialType" | "secretVersion">;
  readonly exposed: Exposed;
  /** How long an executor that watches may use it again, s. */
  readonly cacheSeconds: number;
}

/** A secret is used again for as long as is allowed, an access token only until it would be renewed. */
const cacheSecondsOf = ({ clientCacheSeconds }: ResolveDeps, { remainingMs }: StoredCredential): number =>
  remainingMs === null ? clientCacheSeconds : Math.max(0, Math.min(clientCacheSeconds, Math.floor((remainingMs - GOOD_FOR_MS) / 1000)));

/** An access token is handed out while it is good for so long, ms; one that ends sooner is renewed first. */
const GOOD_FOR_MS = 60_000;

/**
 * Hands out a secret. The audit record is committed before the sealed value is opened, and a second one where the secret
 * does not leave after all. An access token that ends within a minute is renewed first; where that does not succeed, it
 * is handed out while it lasts. Throws CREDENTIAL_NOT_FOUND, INVALID_TOKEN and NOT_GRANTED, which the same statement finds,
 * AUDIT_UNAVAILABLE, SECRET_UNREADABLE with an incident id, REAUTHORIZATION_REQUIRED where only a person can help, and
 * TOKEN_NOT_RENEWED where the provider has to come back first.
 */
export async function resolveCredential(deps: ResolveDeps, grant: Grant<"resolve_credential">, credentialId: string): Promise<Resolved> {
  const { caller, call } = grant;
  call.signal.throwIfAborted();
  const event = auditEvent(call, grant.action, { credentialId });
  const stored = await deps.store.credentials.resolve(caller.organizationId, credentialId, event);
  if (!stored) throw fail("CREDENTIAL_NOT_FOUND");
  try {
    call.signal.throwIfAborted();
    const resolved = await open(deps, grant, stored);
    call.signal.throwIfAborted();
    deps.store.usage.credential({ organizationId: caller.organizationId, credentialId, serviceAccountId: caller.id, flowId: call.flowId, runId: call.runId });
    return resolved;
  } catch (error) {
    await recordUndelivered(deps.store.audit, call, grant.action, error, credentialId);
    throw error;
  }
}

async function open(deps: ResolveDeps, grant: Grant<"resolve_credential">, stored: StoredCredential): Promise<Resolved> {
  refuseEnded(stored);
  if (stored.remainingMs !== null && stored.remainingMs < GOOD_FOR_MS && stored.renewable) return await openRenewed(deps, grant, stored);
  const exposed = await expose(deps, grant, stored);
  if (hasToken(exposed)) return { record: stored, exposed, cacheSeconds: cacheSecondsOf(deps, stored) };
  if (!stored.renewable) throw fail("REAUTHORIZATION_REQUIRED");
  return await openRenewed(deps, grant, stored);
}

/** A renewed token, or the old one while it lasts where the database or the provider does not let it be renewed. */
async function openRenewed(deps: ResolveDeps, grant: Grant<"resolve_credential">, before: StoredCredential): Promise<Resolved> {
  const { caller, call } = grant;
  const lasts = before.remainingMs !== null && before.remainingMs > 0;
  const stored = await deps.renewal.renewed({ organizationId: caller.organizationId, credentialId: before.id }, call).catch((error: unknown) => {
    if (!lasts || call.signal.aborted) throw error;
    return before;
  });
  if (stored === undefined) throw fail("CREDENTIAL_NOT_FOUND");
  refuseEnded(stored);
  if (stored.remainingMs !== null && stored.remainingMs <= 0) throw fail("TOKEN_NOT_RENEWED");
  const exposed = await expose(deps, grant, stored);
  if (!hasToken(exposed)) throw fail("TOKEN_NOT_RENEWED");
  return { record: stored, exposed, cacheSeconds: cacheSecondsOf(deps, stored) };
}

function refuseEnded({ status, renewable, remainingMs }: StoredCredential): void {
  const ended = !renewable && remainingMs !== null && remainingMs <= 0;
  if (status === "reauth_required" || ended) throw fail("REAUTHORIZATION_REQUIRED");
}

const hasToken = ({ secret }: Exposed): boolean => secret.$case !== "oauthToken" || secret.value.accessToken !== "";

/** The place of the secret is that of the caller who asks, never that of the row: a row of someone else does not open. */
async function expose(deps: ResolveDeps, { caller, call }: Grant<"resolve_credential">, stored: StoredCredential): Promise<Exposed> {
  const { id: credentialId, provider, credentialType, secretVersion } = stored;
  const place = { organizationId: caller.organizationId, credentialId, provider, credentialType, secretVersion };
  try {
    return exposeDocument(provider, credentialType, await deps.envelope.open(place, stored.sealed));
  } catch (error) {
    throw incidentOf(deps.log, call, place, error);
  }
}
