import { createHash, randomBytes, randomUUID } from "node:crypto";
import type { Envelope } from "../crypto/envelope.ts";
import type { CredentialRecord, ProviderName } from "../domain/credential.ts";
import { CredentialError, fail } from "../domain/errors.ts";
import type { OauthIo } from "../domain/oauth.ts";
import type { Redirects } from "../domain/redirects.ts";
import type { Log } from "../log.ts";
import type { Authorization } from "../providers/provider.ts";
import type { CredentialLimits, Store } from "../store/store.ts";
import { auditEvent, type Grant } from "./gate.ts";
import { withIncident } from "./incident.ts";
import { ownCredential } from "./manage.ts";

/** What connecting accounts stands on. */
export interface ConnectDeps {
  readonly store: Pick<Store, "credentials" | "authorizations" | "audit">;
  readonly envelope: Pick<Envelope, "seal" | "open">;
  readonly limits: CredentialLimits;
  readonly log: Log;
  /** How a person authorizes at a provider. */
  readonly authorizationOf: (provider: ProviderName) => Authorization | undefined;
  /** The way to a provider, with our own client there. */
  readonly oauthIo: (provider: ProviderName, signal: AbortSignal) => OauthIo;
  /** Base of the callback's URL, without a slash at its end; undefined where there is none. Never anything that a request said. */
  readonly publicUrl: () => string | undefined;
  /** Where a browser may be sent afterwards. */
  readonly redirects: Redirects;
  /** Authorizations of one user in progress; the oldest gives way to one more. */
  readonly inProgressPerUser: number;
}

/** How long an authorization may take, s. */
export const AUTHORIZATION_SECONDS = 600;

/** An authorization as a user asks for it. */
export interface BeginInput {
  readonly provider: ProviderName;
  /** Where the browser goes afterwards; null for our own page. */
  readonly redirectTo: string | null;
  /** The credential that is authorized anew; null for a new one. */
  readonly credentialId: string | null;
  /** What is asked for; the provider's own list where empty. */
  readonly scopes: readonly string[];
  /** Present where it begins in a browser: the value that this browser keeps, null where it has none yet. */
  readonly browser: { readonly kept: string | null } | null;
}

/** Where the user goes, and what the browser has to keep until it comes back. */
export interface BegunAuthorization {
  readonly authorizationUrl: string;
  readonly keep: string | null;
}

/** What is sealed while an authorization is in progress. */
export type Pending = {
  readonly user_id: string;
  readonly credential_id: string | null;
  readonly redirect_to: string | null;
  readonly verifier: string;
  readonly nonce: string;
  readonly scopes: readonly string[];
};

/** 256 random bits, as 43 characters of base64url: states, nonces, verifiers (RFC 7636 section 4.1) and what a browser keeps. */
const TOKEN_BYTES = 32;
const newToken = (): string => randomBytes(TOKEN_BYTES).toString("base64url");

/** Whether a text can be one of them. */
export const isToken = (text: string): boolean => /^[A-Za-z0-9_-]{43}$/.test(text);

/** The form in which a state and a browser's value are stored. */
export const hashOf = (token: string): Buffer => createHash("sha256").update(token).digest();

/** How a provider is reached for an authorization. */
export interface Way {
  readonly authorization: Authorization;
  readonly io: OauthIo;
  /** RFC 6749 section 3.1.2: one for each provider, so that an answer of one is not taken for another's. */
  readonly redirectUri: string;
}

/** The way to a provider. Throws AUTHORIZATION_NOT_OFFERED where no account of it can be connected here. */
export function wayTo(deps: Pick<ConnectDeps, "authorizationOf" | "oauthIo" | "publicUrl">, provider: ProviderName, signal: AbortSignal): Way {
  const authorization = deps.authorizationOf(provider);
  const io = deps.oauthIo(provider, signal);
  const base = deps.publicUrl();
  if (!authorization || !io.client || base === undefined) throw fail("AUTHORIZATION_NOT_OFFERED");
  return { authorization, io, redirectUri: `${base}/integrations/${provider}/callback` };
}

const wrong = (field: string, message: string) => fail("INVALID_REQUEST", { violations: [{ in: "body", path: [field], type: "value_error", message }] });

/** The credential that is authorized anew. Throws CREDENTIAL_NOT_FOUND, and INVALID_REQUEST for one of another provider. */
export async function reauthorized(deps: Pick<ConnectDeps, "store">, { caller, call }: Grant<"begin_authorization"> | Grant<"complete_authorization">, credentialId: string, provider: ProviderName): Promise<CredentialRecord> {
  const record = await ownCredential(deps, { organizationId: caller.organizationId, call }, credentialId);
  if (record.provider !== provider) throw wrong("credential_id", "The credential belongs to another provider");
  return record;
}

/**
 * Begins an authorization: gives the URL to send the user to. Throws AUTHORIZATION_NOT_OFFERED, INVALID_REQUEST for a
 * `redirect_to` that the operator does not allow, CREDENTIAL_NOT_FOUND and PROVIDER_UNAVAILABLE.
 */
export async function beginAuthorization(deps: ConnectDeps, grant: Grant<"begin_authorization">, input: BeginInput): Promise<BegunAuthorization> {
  const { caller, call } = grant;
  const { provider, redirectTo, credentialId } = input;
  const { organizationId } = caller;
  const { authorization, io, redirectUri } = wayTo(deps, provider, call.signal);
  if (redirectTo !== null && !deps.redirects.allows(redirectTo)) throw wrong("redirect_to", "Input should be an address that the operator allows");
  const before = credentialId === null ? undefined : await reauthorized(deps, grant, credentialId, provider);
  const [state, nonce, verifier] = [newToken(), newToken(), newToken()];
  const scopes = input.scopes.length > 0 ? input.scopes : authorization.scopes;
  const ask = { state, nonce, codeChallenge: hashOf(verifier).toString("base64url"), redirectUri, scopes, loginHint: before?.accountEmail ?? null };
  const authorizationUrl = await authorization.url(ask, io).catch((cause: unknown) => {
    throw cause instanceof CredentialError ? cause : fail("PROVIDER_UNAVAILABLE", { cause });
  });
  const kept = input.browser?.kept;
  const keep = input.browser === null ? null : typeof kept === "string" && isToken(kept) ? kept : newToken();
  const pending: Pending = { user_id: caller.id, credential_id: credentialId, redirect_to: redirectTo, verifier, nonce, scopes };
  const id = randomUUID();
  const sealed = await withIncident(deps.log, call, { organizationId, credentialId: credentialId ?? id }, () => deps.envelope.seal({ organizationId, authorizationId: id, provider }, { ...pending }));
  await deps.store.authorizations.begin(
    { organizationId, id, userId: caller.id, provider, stateHash: hashOf(state), browserHash: keep === null ? null : hashOf(keep), sealed },
    { seconds: AUTHORIZATION_SECONDS, perUser: deps.inProgressPerUser },
    auditEvent(call, grant.action, { credentialId }),
    call.signal,
  );
  return { authorizationUrl, keep };
}
