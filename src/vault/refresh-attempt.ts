import type { Envelope } from "../crypto/envelope.ts";
import type { AuditEvent, SystemAction } from "../domain/access.ts";
import type { CredentialStatusName, ProviderName, SecretDocument, SecretPlace } from "../domain/credential.ts";
import { CredentialError } from "../domain/errors.ts";
import type { OauthIo, Refreshed } from "../domain/oauth.ts";
import { errorFields, identified, type Log, newRequestId } from "../log.ts";
import { canRefresh, expose, refresherOf } from "../providers/index.ts";
import type { Begun, Lease, Settlement } from "../store/refresh.ts";
import type { Store, StoredCredential } from "../store/store.ts";
import type { Breaker } from "./breaker.ts";
import { ask, type AskDeps, persistently } from "./refresh-io.ts";

/** How an attempt ended, as the metrics count it. */
export type RefreshOutcome = "refreshed" | "rejected" | "rotation_in_doubt" | "client_rejected" | "our_client_rejected" | "unavailable" | "unreadable" | "ended" | "lost" | "failed";

/** What renewing needs. */
export interface AttemptDeps extends AskDeps {
  readonly store: Pick<Store, "refresh">;
  readonly envelope: Pick<Envelope, "open" | "seal">;
  readonly breaker: Breaker;
  readonly log: Log;
  /** The service's own OAuth client at a provider. */
  readonly clientOf: (provider: ProviderName) => OauthIo["client"];
  readonly observe: (provider: ProviderName, outcome: RefreshOutcome, cause?: string) => void;
  /** Pause after a first failure, and the longest one, ms. */
  readonly backoffMs: number;
  readonly maxBackoffMs: number;
  /** Aborts when the process has to end. */
  readonly ended: AbortSignal;
}

/** Key under which a document keeps the scopes that were granted once and are missing now. */
const SCOPE_BEFORE = "scope_before";

/**
 * Renews one credential under a lease, and gives the lease back: journal, provider, compare-and-set. Every way to end is
 * stored; rejects only where the database does not take that, and then the lease runs out and the journal says what was under way.
 */
export async function attempt(deps: AttemptDeps, lease: Lease, requestId: string): Promise<void> {
  const events = eventsOf(lease, requestId);
  const leasedAt = performance.now();
  const begun = await deps.store.refresh.begin(lease, deps.leaseMs, [events("refresh_credential"), events("mark_in_doubt")]).catch(async (error: unknown) => {
    // Others would wait for a lease under which nothing happens.
    await persistently(deps.ended, () => deps.store.refresh.release(lease)).catch(() => {});
    throw error;
  });
  if (begun === undefined) return;
  const { provider } = begun.stored;
  const settle = async (outcome: RefreshOutcome, end: Omit<Settlement, "sentVersion">, cause?: string): Promise<void> => {
    const asked = [...(cause === undefined ? [] : [events("refresh_credential", cause)]), ...(end.mark === null ? [] : [events(`mark_${end.mark.status}`)])];
    const stood = await persistently(deps.ended, () => deps.store.refresh.settle(lease, { ...end, sentVersion: begun.stored.secretVersion }, asked));
    deps.observe(provider, stood ? outcome : "lost", cause);
  };
  if (!begun.stored.renewable) return settle("ended", ending(begun.stored));
  let inDoubt = begun.interrupted;
  try {
    const document = await open(deps, lease, begun.stored, requestId);
    if (document === undefined) return await settle("unreadable", { mark: mark("refresh_failed", "secret_unreadable"), dueInMs: deps.maxBackoffMs, inDoubt, failed: true }, "secret_unreadable");
    const answer = await askProvider(deps, begun, document, leasedAt);
    inDoubt ||= answer.inDoubt || answer.said.kind === "refreshed";
    await deps.failpoint("after-reply");
    if (answer.said.kind !== "refreshed") return await settleRefusal({ ...deps, log: identified(deps.log, requestId) }, begun, answer.said, inDoubt, settle);
    await keep(deps, lease, begun, document, answer.said, events("mark_active"));
  } catch (error) {
    deps.breaker.abandoned(provider);
    if (deps.ended.aborted) throw error;
    deps.log.error({ request_id: requestId, organization_id: lease.organizationId, credential_id: lease.credentialId, ...errorFields(error) }, "a renewal failed");
    await settle("failed", { mark: inDoubt ? mark("in_doubt", "renewal_interrupted") : null, dueInMs: backoff(deps, begun.attempts), inDoubt, failed: true }, "internal");
  }
}

const mark = (status: CredentialStatusName, reason: string) => ({ status, reason });

/** What becomes of a token that nobody can renew: it is announced that it ends, and then that it has. */
function ending({ remainingMs }: StoredCredential): Omit<Settlement, "sentVersion"> {
  const quiet = { inDoubt: false, failed: false };
  if (remainingMs === null) return { ...quiet, mark: null, dueInMs: null };
  if (remainingMs > 0) return { ...quiet, mark: mark("expiring", "not_renewable"), dueInMs: remainingMs };
  return { ...quiet, mark: mark("reauth_required", "access_token_expired"), dueInMs: null };
}

/** The secret, or undefined where it does not open. One that does not must not keep the others from being renewed. */
async function open(deps: AttemptDeps, lease: Lease, stored: StoredCredential, requestId: string): Promise<SecretDocument | undefined> {
  try {
    return await deps.envelope.open(placeOf(lease, stored, stored.secretVersion), stored.sealed);
  } catch (error) {
    if (!(error instanceof CredentialError) || (error.reason !== "SECRET_UNREADABLE" && error.reason !== "ORGANIZATION_DESTROYED")) throw error;
    deps.log.error({ incident: newRequestId(), request_id: requestId, organization_id: lease.organizationId, credential_id: lease.credentialId, ...errorFields(error.cause) }, "a stored secret or its key does not open");
    return undefined;
  }
}

/** The place comes from the lease, never from the row: a row of someone else does not open. */
const placeOf = (lease: Lease, { provider, credentialType }: StoredCredential, secretVersion: bigint): SecretPlace => ({
  organizationId: lease.organizationId, credentialId: lease.credentialId, provider, credentialType, secretVersion,
});

async function askProvider(deps: AttemptDeps, begun: Begun, document: SecretDocument, leasedAt: number) {
  const { provider, credentialType, ownClient } = begun.stored;
  const client = ownClient ? deps.clientOf(provider) : undefined;
  const refresh = refresherOf(provider, credentialType);
  if (refresh === undefined || !canRefresh(provider, credentialType, document, client !== undefined)) {
    // A grant of our own flow whose client was taken out of the settings is not its owner's fault.
    const said: Refreshed = ownClient ? { kind: "client_rejected", ours: true } : { kind: "rejected", cause: "not_renewable" };
    return { said, inDoubt: false };
  }
  await deps.failpoint("before-call");
  deps.breaker.started(provider);
  const answer = await ask(deps, { provider, client, now: begun.now, leasedAt, refresh: (io) => refresh(document, io) });
  if (answer.said.kind === "unavailable") deps.breaker.failed(provider, answer.said.retryAfterMs);
  else deps.breaker.answered(provider);
  return answer;
}

type Settle = (outcome: RefreshOutcome, end: Omit<Settlement, "sentVersion">, cause: string) => Promise<void>;

async function settleRefusal(deps: AttemptDeps, begun: Begun, said: Exclude<Refreshed, { kind: "refreshed" }>, inDoubt: boolean, settle: Settle): Promise<void> {
  const { provider } = begun.stored;
  if (said.kind === "rejected") {
    const cause = begun.interrupted ? "rotation_in_doubt" : word(said.cause);
    return settle(begun.interrupted ? "rotation_in_doubt" : "rejected", { mark: mark("reauth_required", cause), dueInMs: null, inDoubt: false, failed: true }, cause);
  }
  if (said.kind === "client_rejected" && !said.ours) {
    return settle("client_rejected", { mark: mark("reauth_required", "client_rejected"), dueInMs: null, inDoubt: false, failed: true }, "client_rejected");
  }
  if (said.kind === "client_rejected") {
    deps.log.error({ reason: "client_rejected", state: provider }, "a provider refuses this service's own OAuth client: renewals wait until its settings are right");
    return settle("our_client_rejected", { mark: null, dueInMs: deps.maxBackoffMs * (0.5 + Math.random() / 2), inDoubt, failed: true }, "our_client_rejected");
  }
  const cause = word(said.cause);
  const next = begun.interrupted ? null : inDoubt ? mark("in_doubt", "reply_lost") : mark("refresh_failed", cause);
  return settle("unavailable", { mark: next, dueInMs: Math.max(said.retryAfterMs ?? 0, backoff(deps, begun.attempts)), inDoubt, failed: true }, cause);
}

/** Seals what the provider gave and stores it, in the place of the very version that was sent. */
async function keep(deps: AttemptDeps, lease: Lease, begun: Begun, before: SecretDocument, said: Extract<Refreshed, { kind: "refreshed" }>, event: AuditEvent): Promise<void> {
  const { stored } = begun;
  const { document, reduced } = merged(stored, before, said);
  const write = async (): Promise<boolean> => {
    const sealed = await deps.envelope.seal(placeOf(lease, stored, stored.secretVersion + 1n), document);
    await deps.failpoint("before-commit");
    const renewed = { sentVersion: stored.secretVersion, sealed, tokenExpiresAt: said.tokenExpiresAt, reason: reduced ? "scopes_reduced" : null };
    return deps.store.refresh.keep(lease, renewed, [event]);
  };
  const stood = await persistently(deps.ended, write);
  await deps.failpoint("after-commit");
  deps.observe(stored.provider, stood ? "refreshed" : "lost");
}

/** What is stored: a refresh token that the provider did not replace stays (RFC 6749 section 6), and scopes that are missing now are remembered. */
function merged(stored: StoredCredential, before: SecretDocument, said: Extract<Refreshed, { kind: "refreshed" }>): { document: SecretDocument; reduced: boolean } {
  const { [SCOPE_BEFORE]: _, ...renewed } = said.document;
  const token = renewed["refresh_token"] ?? before["refresh_token"];
  const remembered = before[SCOPE_BEFORE];
  const granted = typeof remembered === "string" ? remembered.split(" ") : scopesOf(stored, before);
  const now = said.scopes ?? scopesOf(stored, before);
  const reduced = granted.some((scope) => !now.includes(scope));
  return { document: { ...renewed, ...(token === undefined ? {} : { refresh_token: token }), ...(reduced ? { [SCOPE_BEFORE]: granted.join(" ") } : {}) }, reduced };
}

function scopesOf({ provider, credentialType }: StoredCredential, document: SecretDocument): readonly string[] {
  const { secret } = expose(provider, credentialType, document);
  return secret.$case === "oauthToken" ? secret.value.scopes : [];
}

/** Exponential, capped, and shortened at random. */
const backoff = ({ backoffMs, maxBackoffMs }: AttemptDeps, attempts: number): number => Math.min(maxBackoffMs, backoffMs * 2 ** Math.min(attempts, 30)) * (0.5 + Math.random() / 2);

/** A cause as a stable word; whatever a provider made up is not repeated. */
const word = (cause: string): string => (/^[a-z][a-z0-9_]{0,63}$/.test(cause) ? cause : "refused");

const eventsOf = (lease: Lease, requestId: string) => (action: SystemAction, failure?: string): AuditEvent => ({
  organizationId: lease.organizationId,
  requestId,
  actorKind: "system",
  actorId: "refresh",
  action,
  outcome: failure === undefined ? "allowed" : "failed",
  reason: failure ?? null,
  credentialId: lease.credentialId,
  flowId: null,
  runId: null,
});
