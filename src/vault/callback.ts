import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Call } from "../domain/access.ts";
import type { CredentialRecord, ProviderName } from "../domain/credential.ts";
import { CredentialError, fail } from "../domain/errors.ts";
import type { Account, Exchanged } from "../domain/oauth.ts";
import { missingScopes } from "../domain/scopes.ts";
import type { FlowFacts } from "../store/store.ts";
import { type ConnectDeps, hashOf, isToken, type Pending, reauthorized, type Way, wayTo } from "./connect.ts";
import { admit, auditEvent, type Grant, recordRefusal, recordUndelivered } from "./gate.ts";
import { withIncident } from "./incident.ts";
import { author } from "./manage.ts";
import { renewalOf } from "./renewal.ts";

/** What came back from a provider (RFC 6749 section 4.1.2); texts are empty where they were not given. */
export interface CallbackInput {
  readonly provider: ProviderName;
  readonly state: string;
  readonly code: string;
  readonly error: string;
  /** RFC 9207. */
  readonly iss: string;
  /** What the browser has kept since it began; null where it has kept nothing. */
  readonly kept: string | null;
}

/** A request that nobody had to prove anything for. */
export interface OpenCall {
  readonly requestId: string;
  readonly signal: AbortSignal;
}

/** A credential that came of an authorization. */
export interface Completed {
  readonly record: CredentialRecord;
  /** Whether it is authorized anew. */
  readonly renewed: boolean;
  /** What was asked for and not granted. */
  readonly missingScopes: readonly string[];
  /** Where the browser goes on, with the credential's id; null for our own page. */
  readonly redirectUri: string | null;
}

type CompleteGrant = Grant<"complete_authorization">;
type Granted = Extract<Exchanged, { kind: "granted" }>;

/** How often a credential is replaced in all, where another write comes first each time. */
const ATTEMPTS = 50;
const PAUSE_MS = 20;

/**
 * Finishes an authorization in the name of the user who began it. Whatever is wrong with the state, the answer is the same
 * AUTHORIZATION_UNKNOWN, and no code is exchanged. Everything after that is in the audit trail, and is thrown with the
 * address where the browser goes on, where the user named one.
 */
export async function completeAuthorization(deps: ConnectDeps, { requestId, signal }: OpenCall, input: CallbackInput): Promise<Completed> {
  const { provider, state, kept } = input;
  if (!isToken(state)) throw fail("AUTHORIZATION_UNKNOWN");
  const browser = kept !== null && isToken(kept) ? hashOf(kept) : null;
  const taken = await deps.store.authorizations.take(hashOf(state), provider, browser, signal);
  if (!taken) throw fail("AUTHORIZATION_UNKNOWN");
  const { organizationId, id, userId, sealed } = taken;
  const now = clockFrom(taken.takenAt);
  const call: Call = { caller: { kind: "user", id: userId, organizationId, role: null }, requestId, flowId: null, runId: null, signal };
  const grant = admit(call, "complete_authorization");
  let pending: Pending | undefined;
  try {
    const place = { organizationId, authorizationId: id, provider };
    pending = (await withIncident(deps.log, call, { organizationId, credentialId: id }, () => deps.envelope.open(place, sealed))) as Pending;
    // The sealed user counts; a row that names another was tampered with.
    if (pending.user_id !== userId) throw fail("AUTHORIZATION_UNKNOWN");
    const completed = await complete(deps, grant, pending, { ...input, now });
    return { ...completed, redirectUri: goingOn(pending, "credential_id", completed.record.id) };
  } catch (thrown) {
    const error = thrown instanceof CredentialError ? thrown : fail("INTERNAL", { cause: thrown });
    const credentialId = pending?.credential_id ?? null;
    if ((await recordRefusal(deps.store.audit, call, grant.action, error, credentialId)) === "not recorded") await recordUndelivered(deps.store.audit, call, grant.action, error, credentialId);
    throw onward(deps, error, pending);
  }
}

/** Time by the database's clock, which says when a token has ended: a clock of this machine that is wrong would have it end too late. */
function clockFrom(start: Date): () => Date {
  const since = performance.now();
  return () => new Date(start.getTime() + performance.now() - since);
}

/** Where the browser goes on, with one more parameter. */
function goingOn(pending: Pending | undefined, name: string, value: string): string | null {
  if (typeof pending?.redirect_to !== "string") return null;
  const url = new URL(pending.redirect_to);
  url.searchParams.set(name, value);
  return url.href;
}

/** The same error, with where the browser goes on, or who may hear of it from the page. */
function onward({ redirects }: Pick<ConnectDeps, "redirects">, error: CredentialError, pending: Pending | undefined): CredentialError {
  if (pending === undefined) return error;
  const redirectUri = goingOn(pending, "error", error.reason.toLowerCase());
  const { reason, violations, incident, retryAfterMs, cause } = error;
  return new CredentialError(reason, { violations, cause, ...(redirectUri === null ? { openerOrigins: redirects.origins } : { redirectUri }), ...(incident === undefined ? {} : { incident }), ...(retryAfterMs === undefined ? {} : { retryAfterMs }) });
}

async function complete(deps: ConnectDeps, grant: CompleteGrant, pending: Pending, input: CallbackInput & { readonly now: () => Date }): Promise<Omit<Completed, "redirectUri">> {
  const { provider } = input;
  const { io, ...found } = wayTo(deps, provider, grant.call.signal);
  const way: Way = { ...found, io: { ...io, now: input.now } };
  if (input.iss !== "" && way.authorization.isIssuer?.(input.iss, way.io) === false) throw refused(deps, grant, "wrong_issuer");
  if (input.error !== "") throw told(deps, grant, input.error);
  if (input.code === "") throw refused(deps, grant, "no_code");
  // What can be refused is refused before the code is used: it would leave tokens behind that nobody keeps.
  if (pending.credential_id !== null) await reauthorized(deps, grant, pending.credential_id, provider);
  const granted = await exchange(deps, grant, way, pending, input.code);
  const less = granted.grantedScopes === null ? [] : missingScopes(pending.scopes, granted.grantedScopes);
  const flow: FlowFacts = { accountId: granted.account.id, requestedScopes: pending.scopes, grantedScopes: granted.grantedScopes, reason: less.length > 0 ? "scopes_reduced" : null };
  const record = pending.credential_id === null ? await created(deps, grant, way, { provider, granted, flow }) : await replaced(deps, grant, way, { provider, granted, flow, credentialId: pending.credential_id });
  return { record, renewed: pending.credential_id !== null, missingScopes: less };
}

/** The provider's `error` (RFC 6749 section 4.1.2.1, OpenID Connect Core section 3.1.2.6). Its description is not repeated: anyone may have written it. */
function told(deps: ConnectDeps, grant: CompleteGrant, error: string): CredentialError {
  if (error === "access_denied" || error === "consent_required") return fail("AUTHORIZATION_DENIED");
  if (error === "temporarily_unavailable" || error === "server_error") return fail("PROVIDER_UNAVAILABLE");
  if (error === "unauthorized_client" || error === "invalid_client") return fail("PROVIDER_REJECTS_CLIENT");
  return refused(deps, grant, "provider_error");
}

/** A refusal whose cause operators find in the log. */
function refused({ log }: ConnectDeps, { call }: CompleteGrant, cause: string): CredentialError {
  log.warn({ request_id: call.requestId, reason: /^[a-z][a-z0-9_]{0,63}$/.test(cause) ? cause : "refused" }, "an authorization failed");
  return fail("AUTHORIZATION_FAILED");
}

async function exchange(deps: ConnectDeps, grant: CompleteGrant, { authorization, io, redirectUri }: Way, pending: Pending, code: string): Promise<Granted> {
  const { verifier: codeVerifier, nonce, scopes } = pending;
  const said = await authorization.exchange({ code, codeVerifier, redirectUri, nonce, scopes }, io);
  if (said.kind === "granted") return said;
  if (said.kind === "refused") throw refused(deps, grant, said.cause);
  if (said.kind === "unavailable") throw fail("PROVIDER_UNAVAILABLE", said.retryAfterMs === null ? {} : { retryAfterMs: said.retryAfterMs });
  deps.log.error({ request_id: grant.call.requestId, reason: "client_rejected" }, "a provider refuses this service's own OAuth client: no account can be connected until its settings are right");
  throw fail("PROVIDER_REJECTS_CLIENT");
}

interface Result {
  readonly provider: ProviderName;
  readonly granted: Granted;
  readonly flow: FlowFacts;
}

/** Counts against both limits as every creation does. */
async function created(deps: ConnectDeps, grant: CompleteGrant, { authorization }: Way, { provider, granted, flow }: Result): Promise<CredentialRecord> {
  const { caller, call } = grant;
  const { organizationId } = caller;
  const { credentialType } = authorization;
  const { document, tokenExpiresAt, account } = granted;
  const id = randomUUID();
  const place = { organizationId, credentialId: id, provider, credentialType, secretVersion: 1n };
  const sealed = await withIncident(deps.log, call, place, () => deps.envelope.seal(place, document));
  return deps.store.credentials.create(
    {
      organizationId, id, provider, credentialType, userId: caller.id, name: null, accountEmail: account.email, tokenExpiresAt,
      modifiedBy: author(caller), sealed, renewal: renewalOf(provider, credentialType, { document, tokenExpiresAt }, true), flow,
    },
    deps.limits,
    auditEvent(call, grant.action, { credentialId: id }),
    call.signal,
  );
}

/** Whether a credential belongs to another account; one that a caller posted is known by its e-mail address at most. */
function isOther({ accountId, accountEmail }: CredentialRecord, account: Account): boolean {
  if (typeof accountId === "string") return accountId !== account.id;
  return accountEmail !== null && account.email !== null && accountEmail.toLowerCase() !== account.email.toLowerCase();
}

/** Of several flows on one credential each replaces what the one before has left. */
async function replaced(deps: ConnectDeps, grant: CompleteGrant, { authorization }: Way, result: Result & { readonly credentialId: string }): Promise<CredentialRecord> {
  const { caller, call } = grant;
  const { organizationId } = caller;
  const { provider, granted, flow, credentialId } = result;
  const { credentialType } = authorization;
  const { document, tokenExpiresAt, account } = granted;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const current = await reauthorized(deps, grant, credentialId, provider);
    if (isOther(current, account)) throw fail("AUTHORIZATION_OTHER_ACCOUNT");
    const secretVersion = current.secretVersion + 1n;
    const place = { organizationId, credentialId, provider, credentialType, secretVersion };
    const sealed = await withIncident(deps.log, call, place, () => deps.envelope.seal(place, document));
    const written = await deps.store.credentials.replace(
      {
        organizationId, id: credentialId, expectedRevision: current.revision, credentialType, name: null, accountEmail: account.email, tokenExpiresAt,
        status: "active", modifiedBy: author(caller), secretVersion, sealed, renewal: renewalOf(provider, credentialType, { document, tokenExpiresAt }, true), flow,
      },
      auditEvent(call, grant.action, { credentialId }),
      call.signal,
    );
    if (written === undefined) throw fail("CREDENTIAL_NOT_FOUND");
    if (written !== "stale") return written;
    await sleep(Math.random() * PAUSE_MS);
  }
  throw fail("OVERLOADED");
}
