import { createLocalJWKSet, errors, type JSONWebKeySet, type JWTPayload, jwtVerify } from "jose";
import type { OauthIo } from "../../domain/oauth.ts";
import { unavailable } from "./refusals.ts";
import { objectIn, send } from "./tokens.ts";

/** What an id token must say. */
export interface IdTokenRules {
  /** Where the issuer publishes its keys (RFC 7517 section 5). */
  readonly keysUrl: string;
  /** The issuers that a token with these claims may name. */
  readonly issuers: (claims: JWTPayload) => readonly string[];
  /** The client that asked for it: the only audience. */
  readonly clientId: string;
  readonly nonce: string;
}

/** Signatures that are taken: no shared keys, and not none. */
const ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"];
/** How far clocks may differ, s. */
const CLOCK_SKEW_SECONDS = 60;

/** Verifies an id token (OpenID Connect Core section 3.1.3.7); gives its claims, or null where it does not hold. Throws TokenFailure where the keys cannot be had. */
export async function verifyIdToken(token: string, rules: IdTokenRules, io: OauthIo): Promise<JWTPayload | null> {
  let claims = await verified(token, await issuerKeys.of(rules.keysUrl, io), rules, io);
  if (claims === undefined) {
    const keys = await issuerKeys.newer(rules.keysUrl, io);
    claims = keys && (await verified(token, keys, rules, io));
  }
  if (!claims) return null;
  const { iss, aud, azp, nonce, sub } = claims;
  const audience = Array.isArray(aud) && aud.length === 1 ? aud[0] : aud;
  const fits = audience === rules.clientId && (azp === undefined || azp === rules.clientId) && nonce === rules.nonce;
  return fits && sub !== undefined && sub !== "" && iss !== undefined && rules.issuers(claims).includes(iss) ? claims : null;
}

type KeySet = ReturnType<typeof createLocalJWKSet>;

/** The claims of a token that one of the keys signed; undefined where none of them is the one that it names, null where it does not hold. */
async function verified(token: string, keys: KeySet, { clientId }: IdTokenRules, io: OauthIo): Promise<JWTPayload | null | undefined> {
  try {
    const options = { algorithms: ALGORITHMS, audience: clientId, currentDate: io.now(), clockTolerance: CLOCK_SKEW_SECONDS, requiredClaims: ["iss", "sub", "exp", "iat"] };
    return (await jwtVerify(token, keys, options)).payload;
  } catch (error) {
    return error instanceof errors.JWKSNoMatchingKey ? undefined : null;
  }
}

/** Bounds of what is remembered of issuers. */
const KEYS = { issuers: 16, maxAgeMs: 3_600_000, pauseMs: 30_000, maxBytes: 262_144, maxKeys: 64 } as const;

/** The published keys of issuers, remembered for an hour. */
export class IssuerKeys {
  readonly #known = new Map<string, { readonly keys: KeySet; readonly readAt: number }>();

  /** The keys at a URL, read at most an hour ago. Throws TokenFailure. */
  async of(url: string, io: OauthIo): Promise<KeySet> {
    const known = this.#known.get(url);
    const age = known === undefined ? Number.NaN : io.now().getTime() - known.readAt;
    return known !== undefined && age >= 0 && age <= KEYS.maxAgeMs ? known.keys : this.#read(url, io);
  }

  /** The keys read anew, as when an issuer has begun to sign with another one; undefined where they were read just now. Throws TokenFailure. */
  async newer(url: string, io: OauthIo): Promise<KeySet | undefined> {
    const readAt = this.#known.get(url)?.readAt ?? 0;
    return io.now().getTime() - readAt < KEYS.pauseMs ? undefined : this.#read(url, io);
  }

  async #read(url: string, io: OauthIo): Promise<KeySet> {
    const response = await send(io, { method: "GET", url, headers: { accept: "application/json" } });
    const said = response.status === 200 ? objectIn(response, KEYS.maxBytes) : undefined;
    const list = said?.["keys"];
    if (!Array.isArray(list) || list.length > KEYS.maxKeys) throw unavailable("keys_unusable");
    let keys: KeySet;
    try {
      keys = createLocalJWKSet(said as unknown as JSONWebKeySet);
    } catch {
      throw unavailable("keys_unusable");
    }
    this.#known.delete(url);
    this.#known.set(url, { keys, readAt: io.now().getTime() });
    const oldest = this.#known.keys().next().value;
    if (this.#known.size > KEYS.issuers && oldest !== undefined) this.#known.delete(oldest);
    return keys;
  }
}

/** Keys are public and the same for everybody: one memory serves the process. */
const issuerKeys = new IssuerKeys();
