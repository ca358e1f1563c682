import { setTimeout as sleep } from "node:timers/promises";
import type { Envelope } from "../crypto/envelope.ts";
import type { AuditEvent, SystemAction } from "../domain/access.ts";
import type { CredentialStatusName, ProviderName, SecretDocument } from "../domain/credential.ts";
import { CredentialError } from "../domain/errors.ts";
import type { OauthIo, Refreshed } from "../domain/oauth.ts";
import { errorFields, identified, newRequestId } from "../log.ts";
import { canRefresh, refresherOf } from "../providers/index.ts";
import type { Begun, Lease, Settlement } from "../store/refresh.ts";
import type { StoredCredential } from "../store/store.ts";
import { type Answer, ask, type AskDeps, persistently, type Question } from "./refresh-io.ts";
import { hasRoom, keep, type KeepDeps, placeOf } from "./refresh-keep.ts";

/** How an attempt ended, as the metrics count it. */
export type RefreshOutcome = "refreshed" | "rejected" | "rotation_in_doubt" | "client_rejected" | "our_client_rejected" | "unavailable" | "left_alone" | "unreadable" | "ended" | "lost" | "failed";

/** What renewing needs. */
export interface AttemptDeps extends AskDeps, KeepDeps {
  readonly envelope: Pick<Envelope, "open" | "seal" | "prepare">;
  /** The service's own OAuth client at a provider. */
  readonly clientOf: (provider: ProviderName) => OauthIo["client"];
  readonly observe: (provider: ProviderName, outcome: RefreshOutcome, cause?: string) => void;
  /** Pause after a first failure, and the longest one, ms. */
  readonly backoffMs: number;
  readonly maxBackoffMs: number;
}

/**
 * Pause before a renewal that somebody else began is begun again, ms; shortened at random. After an outage of the database he may
 * be about to store what the provider gave, and tries to more often than that.
 */
const TAKEOVER_MS = 2_000;

/** A renewal could not be journaled, and nothing was sent; its cause says why. */
export class NotBegun extends Error {
  override readonly name = "NotBegun";

  constructor(cause: unknown) {
    super("not begun", { cause });
  }
}

/**
 * Renews one credential under a lease, and gives the lease back: journal, provider, compare-and-set. Every way to end is
 * stored; rejects with NotBegun where that did not take place, else only where the database does not take the outcome: then
 * the lease runs out and the journal says what was under way.
 */
export async function attempt(deps: AttemptDeps, lease: Lease, requestId: string): Promise<void> {
  const events = eventsOf(lease, requestId);
  const began = await begin(deps, lease, events, requestId).catch(async (error: unknown) => {
    // Others would wait for a lease under which nothing happens.
    await persistently(deps.ended, () => deps.store.refresh.release(lease, { firstMs: deps.backoffMs, longestMs: deps.maxBackoffMs })).catch(() => {});
    throw new NotBegun(error);
  });
  if (began === undefined) return;
  const { begun, leasedAt, sealable } = began;
  const { provider } = begun.stored;
  const settle = async (outcome: RefreshOutcome, end: Omit<Settlement, "sentVersion">, cause?: string): Promise<void> => {
    const asked = [...(cause === undefined ? [] : [events("refresh_credential", cause)]), ...(end.mark === null ? [] : [events(`mark_${end.mark.status}`)])];
    const stood = await persistently(deps.ended, () => deps.store.refresh.settle(lease, { ...end, sentVersion: begun.stored.secretVersion }, asked));
    // No metric names a tenant: whoever is alarmed finds here whose grants they are.
    if (stood && end.mark?.status === "reauth_required") deps.log.warn({ request_id: requestId, organization_id: lease.organizationId, credential_id: lease.credentialId, reason: end.mark.reason }, "a grant has ended");
    deps.observe(provider, stood ? outcome : "lost", cause);
  };
  if (!begun.stored.renewable) return settle("ended", ending(begun.stored));
  let inDoubt = begun.interrupted;
  try {
    const refuse = (cause: string) => settle("unreadable", { mark: mark("refresh_failed", cause), dueInMs: deps.maxBackoffMs, inDoubt, failed: true }, cause);
    const { stored } = begun;
    const document = sealable ? await readable(deps, lease, requestId, () => deps.envelope.open(placeOf(lease, stored, stored.secretVersion), stored.sealed)) : undefined;
    if (document === undefined) return await refuse("secret_unreadable");
    // Nobody could keep what a provider gives for it.
    if (!hasRoom(document)) return await refuse("secret_too_large");
    const answer = await askProvider(deps, begun, document, { leasedAt, who: nameOf(lease) });
    inDoubt ||= answer.inDoubt || answer.said.kind === "refreshed";
    await deps.failpoint("after-reply");
    if (answer.leftAloneMs !== undefined) return await settle("left_alone", { mark: null, dueInMs: answer.leftAloneMs * (1 + Math.random() / 2), inDoubt, failed: false }, "provider_left_alone");
    if (answer.said.kind !== "refreshed") return await settleRefusal({ ...deps, log: identified(deps.log, requestId) }, begun, answer.said, inDoubt, settle);
    const stood = await keep(deps, lease, stored, document, answer.said, events("mark_active"));
    await deps.failpoint("after-commit");
    deps.observe(provider, stood ? "refreshed" : "lost");
  } catch (error) {
    if (deps.ended.aborted) throw error;
    deps.log.error({ request_id: requestId, organization_id: lease.organizationId, credential_id: lease.credentialId, ...errorFields(error) }, "a renewal failed");
    await settle("failed", { mark: inDoubt ? mark("in_doubt", "renewal_interrupted") : null, dueInMs: backoff(deps, begun.attempts), inDoubt, failed: true }, "internal");
  }
}

/**
 * Journals that the secret is about to be sent; with it, when the lease's time began, and whether what comes of it can be sealed.
 * A key that cannot be had now is told before the journal is written, and before the provider gives what nobody could store.
 */
async function begin(deps: AttemptDeps, lease: Lease, events: Events, requestId: string): Promise<{ begun: Begun; leasedAt: number; sealable: boolean } | undefined> {
  if (lease.takenOver) await sleep(Math.min(TAKEOVER_MS, deps.leaseMs / 2) * (0.5 + Math.random() / 2), undefined, { signal: deps.ended });
  const sealable = await readable(deps, lease, requestId, () => deps.envelope.prepare(lease.organizationId).then(() => true));
  const leasedAt = performance.now();
  const begun = await deps.store.refresh.begin(lease, deps.leaseMs, [events("refresh_credential"), events("mark_in_doubt")]);
  return begun && { begun, leasedAt, sealable: sealable === true };
}

const mark = (status: CredentialStatusName, reason: string) => ({ status, reason });

/** What becomes of a token that nobody can renew: it is announced that it ends, and then that it has. */
function ending({ remainingMs }: StoredCredential): Omit<Settlement, "sentVersion"> {
  const quiet = { inDoubt: false, failed: false };
  if (remainingMs === null) return { ...quiet, mark: null, dueInMs: null };
  if (remainingMs > 0) return { ...quiet, mark: mark("expiring", "not_renewable"), dueInMs: remainingMs };
  return { ...quiet, mark: mark("reauth_required", "access_token_expired"), dueInMs: null };
}

/** What was read, or undefined where the secret or its key does not open. One that does not must not keep the others from being renewed. */
async function readable<T>(deps: AttemptDeps, lease: Lease, requestId: string, read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof CredentialError) || (error.reason !== "SECRET_UNREADABLE" && error.reason !== "ORGANIZATION_DESTROYED")) throw error;
    deps.log.error({ incident: newRequestId(), request_id: requestId, organization_id: lease.organizationId, credential_id: lease.credentialId, ...errorFields(error.cause) }, "a stored secret or its key does not open");
    return undefined;
  }
}

/** How a credential is called among those that are renewed. */
export const nameOf = ({ organizationId, credentialId }: Pick<Lease, "organizationId" | "credentialId">): string => `${organizationId}/${credentialId}`;

async function askProvider(deps: AttemptDeps, begun: Begun, document: SecretDocument, facts: Pick<Question, "leasedAt" | "who">): Promise<Answer> {
  const { provider, credentialType, ownClient } = begun.stored;
  const client = ownClient ? deps.clientOf(provider) : undefined;
  const refresh = refresherOf(provider, credentialType);
  if (refresh === undefined || !canRefresh(provider, credentialType, document, client !== undefined)) {
    // A grant of our own flow whose client was taken out of the settings is not its owner's fault.
    const said: Refreshed = ownClient ? { kind: "client_rejected", ours: true } : { kind: "rejected", cause: "not_renewable" };
    return { said, inDoubt: false };
  }
  await deps.failpoint("before-call");
  const { client_id: id } = document;
  return ask(deps, { ...facts, provider, client, clientId: typeof id === "string" ? id : null, now: begun.now, refresh: (io) => refresh(document, io) });
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
  const next = begun.interrupted ? null : inDoubt ? mark("in_doubt", cause === "provider_error" ? cause : "reply_lost") : mark("refresh_failed", cause);
  return settle("unavailable", { mark: next, dueInMs: Math.max(said.retryAfterMs ?? 0, backoff(deps, begun.attempts)), inDoubt, failed: true }, cause);
}

/** Exponential, capped, and shortened at random. */
const backoff = ({ backoffMs, maxBackoffMs }: AttemptDeps, attempts: number): number => Math.min(maxBackoffMs, backoffMs * 2 ** Math.min(attempts, 30)) * (0.5 + Math.random() / 2);

/** A cause as a stable word; whatever a provider made up is not repeated. */
const word = (cause: string): string => (/^[a-z][a-z0-9_]{0,63}$/.test(cause) ? cause : "refused");

type Events = ReturnType<typeof eventsOf>;

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
