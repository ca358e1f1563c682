import type { Reason } from "./doctor.ts";
import { CheckFailure } from "./trial.ts";

/** The access token of an OAuth 2.0 grant. */
export interface OauthToken {
  /** Empty where only a refresh token, or a client, is stored. */
  readonly accessToken: string;
  /** When the token ends, as far as is known. */
  readonly expiresAt: Date | null;
}

/** A bearer token (RFC 6750 section 2.1). Nothing that passes can end a header or a form field. */
const B64TOKEN = /^[A-Za-z0-9._~+/-]+=*$/;
/** Longest token that is sent; with the other headers it stays below what servers take. */
const MAX_TOKEN_CHARACTERS = 16_384;

/** The token as it may be sent. Throws CheckFailure where there is none, or what is stored cannot be one. */
export function sendable({ accessToken }: OauthToken): string {
  if (accessToken === "") throw new CheckFailure("token_missing_refresh_needed");
  if (accessToken.length > MAX_TOKEN_CHARACTERS || !B64TOKEN.test(accessToken)) throw new CheckFailure("oauth_token_malformed");
  return accessToken;
}

/** Why a token was refused, where the provider does not tell expired from revoked. */
export const refusalOf = ({ expiresAt }: OauthToken): Reason => (expiresAt !== null && expiresAt.getTime() <= Date.now() ? "oauth_token_expired" : "oauth_token_refused");
