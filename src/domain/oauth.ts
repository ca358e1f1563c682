import type { GuardedResponse } from "./check.ts";
import type { SecretDocument } from "./credential.ts";
import type { Secret } from "./secret.ts";

/** Which installation of a provider is meant; the world-wide ones where nothing is said. */
export interface OauthEndpoints {
  /** Issuer of Google's id tokens (OpenID Connect Core section 2); another one has its endpoints at `/auth`, `/token` and `/jwks` below it. */
  readonly googleIssuer: string;
  /** Origin of the Microsoft identity platform, such as `https://login.microsoftonline.us`. */
  readonly microsoftAuthority: string;
  /** The tenant that signs in to Microsoft: its GUID or domain, or `organizations` or `common`. */
  readonly microsoftTenant: string;
}

/** The only ways in which a renewal or an authorization reaches the outside. */
export interface OauthIo {
  /** Makes one request; follows no redirect; rejects where no whole answer came. */
  request(ask: { readonly method: "GET" | "POST"; readonly url: string; readonly headers: Readonly<Record<string, string>>; readonly body?: string }): Promise<GuardedResponse>;
  /** The service's own client at the provider; undefined where none is configured, or where it may not be used for this credential. */
  readonly client: { readonly id: string; readonly secret: Secret<string> } | undefined;
  /** The time that lifetimes count from. */
  readonly now: () => Date;
  /** Aborts when nobody waits for the outcome any longer. */
  readonly signal: AbortSignal;
  /** The installation; the world-wide one unless given. */
  readonly endpoints?: OauthEndpoints | undefined;
}

/** What came of an attempt to renew a token. Causes are stable lower-case words; nothing in them is the provider's text. */
export type Refreshed =
  /** The new document; `scopes` are null where the provider did not say. */
  | { readonly kind: "refreshed"; readonly document: SecretDocument; readonly tokenExpiresAt: Date | null; readonly scopes: readonly string[] | null }
  /** The grant is over; only a person can renew it. */
  | { readonly kind: "rejected"; readonly cause: string }
  /** The OAuth client is not accepted; the grant may be in order. */
  | { readonly kind: "client_rejected"; readonly ours: boolean }
  /** No usable answer, now. */
  | { readonly kind: "unavailable"; readonly cause: string; readonly retryAfterMs: number | null };

/** What an authorization asks for (RFC 6749 section 4.1.1, RFC 7636, OpenID Connect Core section 3.1.2.1). */
export interface AuthorizationAsk {
  readonly state: string;
  readonly nonce: string;
  /** Of the verifier, by S256 (RFC 7636 section 4.2). */
  readonly codeChallenge: string;
  readonly redirectUri: string;
  /** What is asked for besides the identity and a refresh token. */
  readonly scopes: readonly string[];
  /** The account that is meant to sign in, where one is known. */
  readonly loginHint: string | null;
}

/** What turns a code into tokens (RFC 6749 section 4.1.3, RFC 7636 section 4.5). */
export interface CodeAsk {
  readonly code: string;
  readonly codeVerifier: string;
  readonly redirectUri: string;
  /** The one that the authorization asked with; the id token must carry it. */
  readonly nonce: string;
  /** Those that the authorization asked for. */
  readonly scopes: readonly string[];
}

/** Who signed in, from a verified id token. */
export interface Account {
  /** Stable at the provider: the subject, or Microsoft's object and tenant ids. */
  readonly id: string;
  /** E-mail address, where the provider says one. */
  readonly email: string | null;
}

/** What came of a code. Causes are stable lower-case words; nothing in them is the provider's text. */
export type Exchanged =
  /** The document is as the credential type's `accept` would store it. */
  | { readonly kind: "granted"; readonly document: SecretDocument; readonly tokenExpiresAt: Date | null; readonly account: Account; readonly grantedScopes: readonly string[] | null }
  | { readonly kind: "refused"; readonly cause: string }
  | { readonly kind: "client_rejected" }
  | { readonly kind: "unavailable"; readonly cause: string; readonly retryAfterMs: number | null };
