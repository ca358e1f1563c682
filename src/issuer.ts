import { readFileSync } from "node:fs";
import { developmentJwtSecret } from "./auth/development.ts";
import { Jwks } from "./auth/jwks.ts";
import { createJwtVerifier, type JwtOptions, type JwtVerifier } from "./auth/jwt.ts";
import { type Config, ConfigError } from "./config.ts";
import { createDialer } from "./egress/dialer.ts";
import { EgressSetupError } from "./egress/error.ts";
import { createGuardedFetch } from "./egress/fetch.ts";
import { createAddressPolicy } from "./egress/policy.ts";
import { patternIn } from "./domain/pattern.ts";
import type { Log } from "./log.ts";

/** Largest key set, bytes, and longest time until it is there, ms. */
const KEY_SET = { maxBytes: 131_072, totalMs: 5_000 } as const;

/** Verifies tokens of the configured issuer. Throws ConfigError and AuthSetupError for keys that cannot be trusted. */
export function tokenVerifier(config: Config, log: Log, now: () => number): JwtVerifier {
  const { settings } = config;
  return createJwtVerifier({
    ...keysOf(config, log, now),
    issuer: settings.jwtIssuer,
    audience: settings.jwtAudience,
    operatorAudience: settings.jwtOperatorAudience,
    claims: { organization: settings.jwtClaimOrganization, kind: settings.jwtClaimKind, role: settings.jwtClaimRole },
    clockSkewSeconds: settings.jwtClockSkewSeconds,
    now,
  });
}

function keysOf(config: Config, log: Log, now: () => number): Pick<JwtOptions, "secret" | "publicKeyPem" | "jwks"> {
  const { settings, secrets } = config;
  const { jwtSecret, jwtPublicKey } = secrets;
  if (settings.jwtJwksUrl !== undefined) {
    const jwks = new Jwks({ fetch: keySetFetch(config, settings.jwtJwksUrl), log, now });
    void jwks.prepare();
    return { jwks };
  }
  const production = settings.profile === "production";
  const pattern = production && jwtSecret ? patternIn(Buffer.from(jwtSecret.reveal())) : undefined;
  if (pattern !== undefined) throw new ConfigError(`CREDENTIALS_JWT_SECRET ${pattern}; draw one with: openssl rand -base64 32`);
  if (jwtPublicKey) return { publicKeyPem: jwtPublicKey };
  if (production && !jwtSecret) throw new ConfigError("CREDENTIALS_JWT_SECRET, CREDENTIALS_JWT_PUBLIC_KEY or CREDENTIALS_JWT_JWKS_URL is required in production");
  return { secret: jwtSecret ?? developmentJwtSecret(settings.dataDir) };
}

/** Fetches the key set through the guarded fetch, from the one configured URL. */
function keySetFetch({ settings }: Config, url: string): () => Promise<Buffer> {
  const { profile, jwtJwksCaFile } = settings;
  let policy;
  try {
    policy = createAddressPolicy({ profile, allow: settings.jwtJwksAllow });
  } catch (error) {
    throw error instanceof EgressSetupError ? new ConfigError(error.message.replace("EGRESS_ALLOW", "CREDENTIALS_JWT_JWKS_ALLOW")) : error;
  }
  const ca = jwtJwksCaFile === undefined ? {} : { ca: readCa(jwtJwksCaFile) };
  const guarded = createGuardedFetch({ dialer: createDialer({ policy }), development: profile === "development", maxBodyBytes: KEY_SET.maxBytes, totalMs: KEY_SET.totalMs, ...ca });
  return async () => {
    const { outcome, status, body } = await guarded({ url, headers: { accept: "application/jwk-set+json, application/json" } });
    if (outcome !== "response" || status !== 200) throw new Error("the key set was not answered with 200");
    return body;
  };
}

function readCa(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new ConfigError(`CREDENTIALS_JWT_JWKS_CA_FILE cannot be read (${(error as NodeJS.ErrnoException).code ?? "error"})`);
  }
}
