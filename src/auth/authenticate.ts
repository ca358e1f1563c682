import { hash } from "node:crypto";
import type { Caller } from "../domain/access.ts";
import { fail } from "../domain/errors.ts";
import { API_KEY_START, type ApiKeySource, verifyApiKey } from "./api-key.ts";
import { CallerCache, type Proven } from "./caller-cache.ts";
import { createCertificates } from "./certificate.ts";
import { type JwtVerifier, MAX_TOKEN_LENGTH } from "./jwt.ts";

/** The headers that can carry an identity, every value as it was received. */
export interface Presented {
  /** Values of `authorization`. */
  readonly authorization: readonly string[];
  /** Values of `x-api-key`. */
  readonly apiKey: readonly string[];
  /** SHA-256 fingerprint of the client certificate of the connection, where its authority is trusted. */
  readonly certificate?: string | undefined;
}

/** Finds out who is calling. */
export interface Authenticator {
  /**
   * Throws UNAUTHENTICATED where nothing is presented, CONFLICTING_IDENTITIES where more than one thing is, or a certificate
   * that is mapped to another account than the token's; a certificate that is mapped to none is no identity. Throws INVALID_TOKEN or IDENTITY_INCOMPLETE where it does not hold; what fails inside passes through.
   */
  authenticate(presented: Presented): Promise<Caller>;
  /** Who it is, where that is known already by a token alone; undefined where only `authenticate` can tell. */
  known(presented: Presented): Caller | undefined;
  /** The same, with the end of the proof: for calls that outlive it. */
  prove(presented: Presented): Promise<Proven>;
}

/** What an authenticator needs. */
export interface AuthenticatorDeps {
  readonly jwt: JwtVerifier;
  readonly keys: ApiKeySource;
  /** Verified tokens and keys that are remembered at most. */
  readonly cacheEntries: number;
  /** How long a verified API key is trusted without asking again, s; 0 asks every time. */
  readonly apiKeyCacheSeconds: number;
  /** The time, in ms since the epoch. */
  readonly now?: (() => number) | undefined;
}

/** Makes the authenticator; it remembers what it verified until the proof ends. */
export function createAuthenticator({ jwt, keys, cacheEntries, apiKeyCacheSeconds, now = Date.now }: AuthenticatorDeps): Authenticator {
  const cache = new CallerCache({ maxEntries: cacheEntries, now });
  const certificates = createCertificates({ keys, cacheEntries, cacheSeconds: apiKeyCacheSeconds, now });
  const verifyJwt = async (token: string) => {
    const { caller, expiresAtMs } = await jwt.verify(token);
    return { caller, untilMs: expiresAtMs };
  };
  const verifyKey = async (token: string) => {
    const askedAt = now();
    const { caller, expiresAtMs } = await verifyApiKey(token, keys, askedAt);
    return { caller, untilMs: Math.min(askedAt + apiKeyCacheSeconds * 1000, expiresAtMs) };
  };
  const byToken = async (presented: Presented): Promise<Proven> => {
    const { token, isApiKey } = presentedToken(presented);
    // Sharing a lookup is trusting an answer that was asked for earlier, so it ends with the trust.
    if (isApiKey && apiKeyCacheSeconds === 0) return verifyKey(token);
    const digest = hash("sha256", token, "base64url");
    const known = cache.proven(digest);
    if (known) return known;
    return cache.prove(digest, () => (isApiKey ? verifyKey(token) : verifyJwt(token)));
  };
  const prove = async (presented: Presented): Promise<Proven> => {
    if (presented.certificate === undefined) return byToken(presented);
    const machine = await certificates.callerOf(presented.certificate);
    if (!machine) return byToken(presented);
    // A certificate's end is that of the key it stands for.
    if (presented.authorization.length + presented.apiKey.length === 0) return { caller: machine, untilMs: Infinity };
    const proven = await byToken(presented);
    const { caller } = proven;
    if (caller.kind === "service_account" && caller.id === machine.id && caller.organizationId === machine.organizationId) return proven;
    throw fail("CONFLICTING_IDENTITIES");
  };
  const known = ({ authorization, apiKey, certificate }: Presented): Caller | undefined => {
    const [value = "", ...more] = authorization;
    if (certificate !== undefined || apiKey.length + more.length > 0 || value.length > MAX_VALUE_LENGTH) return undefined;
    const token = BEARER.exec(value)?.[1];
    return token === undefined ? undefined : cache.get(hash("sha256", token, "base64url"));
  };
  return { prove, known, authenticate: async (presented) => (await prove(presented)).caller };
}

/** Scheme and token (RFC 6750 section 2.1); the scheme's case does not matter (RFC 9110 section 11.1). */
const BEARER = /^bearer +([A-Za-z0-9\-._~+/]+=*)$/i;

/** Longest header value that is looked at: a token and its scheme. */
const MAX_VALUE_LENGTH = MAX_TOKEN_LENGTH + 16;

/** The one token of a request. Nothing is verified where more than one is presented, so the answer cannot depend on it. */
function presentedToken({ authorization, apiKey }: Presented): { readonly token: string; readonly isApiKey: boolean } {
  const values = [...authorization, ...apiKey];
  const value = values[0];
  if (value === undefined) throw fail("UNAUTHENTICATED");
  // A comma joins several header lines into one (RFC 9110 section 5.2); no token holds one.
  if (values.length > 1 || value.includes(",")) throw fail("CONFLICTING_IDENTITIES");
  if (value.length > MAX_VALUE_LENGTH) throw fail("INVALID_TOKEN");
  if (authorization.length === 0) {
    if (!value.startsWith(API_KEY_START)) throw fail("INVALID_TOKEN");
    return { token: value, isApiKey: true };
  }
  const token = BEARER.exec(value)?.[1];
  if (token === undefined) throw fail("INVALID_TOKEN");
  return { token, isApiKey: token.startsWith(API_KEY_START) };
}
