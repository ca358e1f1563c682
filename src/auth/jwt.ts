import { decodeProtectedHeader, jwtVerify, type JWTVerifyResult } from "jose";
import type { Caller } from "../domain/access.ts";
import { fail } from "../domain/errors.ts";
import type { Secret } from "../domain/secret.ts";
import { callerOf, type ClaimNames } from "./claims.ts";
import type { Jwks, KnownKey } from "./jwks.ts";
import { AuthSetupError } from "./setup-error.ts";
import { publicVerificationKey, secretVerificationKey, type VerificationKey } from "./verification-key.ts";

/** Largest token that is looked at, in characters. */
export const MAX_TOKEN_LENGTH = 8192;

/** How tokens are verified. Exactly one of `secret`, `publicKeyPem` and `jwks` is given. */
export interface JwtOptions {
  /** HS256 secret, at least 32 bytes. */
  readonly secret?: Secret<string> | undefined;
  /** RS256, ES256 or EdDSA public key, PEM. */
  readonly publicKeyPem?: Secret<string> | undefined;
  /** The issuer's key set. */
  readonly jwks?: Pick<Jwks, "key"> | undefined;
  readonly issuer: string;
  /** Audience of users and service accounts. */
  readonly audience: string;
  /** The only audience whose tokens are operators'; undefined for none. */
  readonly operatorAudience?: string | undefined;
  readonly claims: ClaimNames;
  /** How far clocks may differ, s. */
  readonly clockSkewSeconds: number;
  /** The time, in ms since the epoch. */
  readonly now?: (() => number) | undefined;
}

/** Who a token stands for, and until when it may be believed. */
export interface VerifiedToken {
  readonly caller: Caller;
  /** When the token stops being accepted, ms since the epoch; clock skew included. */
  readonly expiresAtMs: number;
}

/** Turns JSON Web Tokens (RFC 7519) into callers. */
export interface JwtVerifier {
  /** Throws INVALID_TOKEN, or IDENTITY_INCOMPLETE for a good token that names nobody. */
  verify(token: string): Promise<VerifiedToken>;
}

/** Makes the verifier. Throws AuthSetupError, naming the setting, for a key or an audience that cannot be trusted. */
export function createJwtVerifier(options: JwtOptions): JwtVerifier {
  const keyFor = keySource(options);
  const { issuer, audience, operatorAudience, claims, clockSkewSeconds, now = Date.now } = options;
  if (operatorAudience === audience) throw new AuthSetupError("CREDENTIALS_JWT_OPERATOR_AUDIENCE must differ from CREDENTIALS_JWT_AUDIENCE");
  const audiences = operatorAudience === undefined ? [audience] : [audience, operatorAudience];
  return {
    async verify(token) {
      if (!isCompact(token)) throw fail("INVALID_TOKEN");
      const nowMs = now();
      const { key, algorithms, untilMs } = await keyFor(token);
      let verified: JWTVerifyResult;
      try {
        verified = await jwtVerify(token, key, {
          algorithms: [...algorithms],
          issuer,
          audience: audiences,
          requiredClaims: ["exp"],
          clockTolerance: clockSkewSeconds,
          currentDate: new Date(nowMs),
        });
      } catch (error) {
        throw fail("INVALID_TOKEN", { cause: new TokenFault(error) });
      }
      const { payload, protectedHeader } = verified;
      const latestIat = nowMs / 1000 + clockSkewSeconds;
      // No extension is understood here, so a token that insists on one is refused (RFC 7515 section 4.1.11).
      if (protectedHeader.crit !== undefined || !isNumericDate(payload.exp)) throw fail("INVALID_TOKEN");
      if (payload.iat !== undefined && payload.iat > latestIat) throw fail("INVALID_TOKEN");
      return { caller: callerOf(payload, { tenant: audience, operator: operatorAudience }, claims), expiresAtMs: Math.min((payload.exp + clockSkewSeconds) * 1000, untilMs) };
    },
  };
}

/** Where the key for a token comes from, and until when it may be believed. Of the header of a token only the key's id is looked at. */
function keySource(options: JwtOptions): (token: string) => Promise<KnownKey> {
  const { jwks } = options;
  if (!jwks) {
    const key = { ...verificationKey(options), untilMs: Infinity };
    return async () => key;
  }
  if (options.secret || options.publicKeyPem) throw new AuthSetupError("CREDENTIALS_JWT_JWKS_URL goes without CREDENTIALS_JWT_SECRET and CREDENTIALS_JWT_PUBLIC_KEY");
  return async (token) => {
    const key = await jwks.key(keyIdOf(token));
    if (!key) throw fail("INVALID_TOKEN");
    return key;
  };
}

function keyIdOf(token: string): string | undefined {
  try {
    const { kid } = decodeProtectedHeader(token);
    if (kid === undefined) return undefined;
    if (typeof kid === "string" && /^[\x20-\x7e]{1,256}$/.test(kid)) return kid;
  } catch {
    // Told below.
  }
  throw fail("INVALID_TOKEN");
}

function verificationKey({ secret, publicKeyPem }: JwtOptions): VerificationKey {
  if (secret && publicKeyPem) throw new AuthSetupError("CREDENTIALS_JWT_SECRET and CREDENTIALS_JWT_PUBLIC_KEY are both set; give one");
  if (secret) return secretVerificationKey(secret);
  if (publicKeyPem) return publicVerificationKey(publicKeyPem);
  throw new AuthSetupError("CREDENTIALS_JWT_SECRET or CREDENTIALS_JWT_PUBLIC_KEY is required");
}

const COMPACT = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)$/;

/**
 * Whether a text has the form of a signed token. The last character of a signature has spare bits that decoders
 * ignore; only their zero form is taken, so that no two texts are the same token (RFC 4648 section 3.5).
 */
function isCompact(token: string): boolean {
  if (token.length > MAX_TOKEN_LENGTH) return false;
  const signature = COMPACT.exec(token)?.[1];
  return signature !== undefined && Buffer.from(signature, "base64url").toString("base64url") === signature;
}

/** JSON can write a number that reads as infinity: a token without an end. */
const isNumericDate = (value: number | undefined): value is number => value !== undefined && Number.isFinite(value);

/** Why a token was refused, as a code only: the library's own error holds the claims. */
class TokenFault extends Error {
  override readonly name = "TokenFault";
  readonly code: string;

  constructor(error: unknown) {
    super("the token was refused");
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    this.code = typeof code === "string" ? code : "ERR_TOKEN";
  }
}
