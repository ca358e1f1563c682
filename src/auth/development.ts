import { createSecretKey, randomBytes } from "node:crypto";
import { closeSync, constants, fstatSync, fsyncSync, linkSync, mkdirSync, openSync, readFileSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SignJWT } from "jose";
import type { CallerKind } from "../domain/access.ts";
import { type Secret, secret } from "../domain/secret.ts";
import { type ClaimNames, DEFAULT_CLAIMS } from "./claims.ts";
import { AuthSetupError } from "./setup-error.ts";
import { MIN_SECRET_BYTES } from "./verification-key.ts";

/** Secrets of a development installation, in the form in which they would be configured. */
export interface DevelopmentSecrets {
  /** HS256 secret. */
  readonly jwtSecret: Secret<string>;
  /** `id:base64` of the master key. */
  readonly masterKeys: Secret<string>;
  /** Id of the master key. */
  readonly primaryKeyId: string;
}

const MASTER_KEY_ID = "development";

/**
 * Reads the secrets of a development installation from its data directory, and makes those that are missing. However
 * many processes start at once, all get the same. Throws AuthSetupError for a file that cannot be read or that others
 * may read or write.
 */
export function developmentSecrets(dataDir: string): DevelopmentSecrets {
  const masterKeys = keptSecret(dataDir, "master-keys", () => `${MASTER_KEY_ID}:${randomBytes(32).toString("base64")}`);
  const primaryKeyId = masterKeys.slice(0, Math.max(0, masterKeys.indexOf(":")));
  return { jwtSecret: developmentJwtSecret(dataDir), masterKeys: secret(masterKeys), primaryKeyId };
}

/** The key that signs audit heads; same rules as `developmentSecrets`. `make` makes one where there is none. */
export const developmentAuditKey = (dataDir: string, make: () => string): Secret<string> => secret(keptSecret(dataDir, "audit-key", make));

/** The HS256 secret alone; same rules as `developmentSecrets`. */
export function developmentJwtSecret(dataDir: string): Secret<string> {
  return secret(keptSecret(dataDir, "jwt-secret", () => randomBytes(32).toString("base64url")));
}

const codeOf = (error: unknown): string => (error instanceof Error && "code" in error ? String(error.code) : "error");

function keptSecret(dataDir: string, name: string, make: () => string): string {
  const path = join(dataDir, name);
  try {
    return readSecret(path) ?? makeSecret(dataDir, path, make());
  } catch (error) {
    if (error instanceof AuthSetupError) throw error;
    throw new AuthSetupError(`${path} cannot be read or made (${codeOf(error)})`);
  }
}

const NO_FOLLOW = constants.O_NOFOLLOW ?? 0;

/** The text of a secret file; undefined where there is none. */
function readSecret(path: string): string | undefined {
  let file: number;
  try {
    file = openSync(path, constants.O_RDONLY | NO_FOLLOW);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
  try {
    const stat = fstatSync(file);
    // Windows has no such bits: every file reads as open to all there.
    if (!stat.isFile() || (process.platform !== "win32" && (stat.mode & 0o077) !== 0)) {
      throw new AuthSetupError(`${path} must be a file that only its owner may read and write (mode 0600)`);
    }
    const text = readFileSync(file, "utf8").trim();
    if (Buffer.byteLength(text) < MIN_SECRET_BYTES) throw new AuthSetupError(`${path} is too short to be a secret; restore it, or remove it to start anew`);
    return text;
  } finally {
    closeSync(file);
  }
}

/** Writes a secret under a name of its own and links it into place: the link is refused where another process was faster. */
function makeSecret(dataDir: string, path: string, text: string): string {
  mkdirSync(dataDir, { recursive: true });
  const draft = `${path}.${process.pid}.${randomBytes(6).toString("hex")}`;
  const file = openSync(draft, "wx", 0o600);
  try {
    writeFileSync(file, `${text}\n`);
    fsyncSync(file);
    linkSync(draft, path);
    return text;
  } catch (error) {
    const winner = codeOf(error) === "EEXIST" ? readSecret(path) : undefined;
    if (winner === undefined) throw error;
    return winner;
  } finally {
    closeSync(file);
    unlinkSync(draft);
  }
}

/** What a development token says. */
export interface DevelopmentToken {
  /** The HS256 secret that the service verifies with. */
  readonly secret: Secret<string>;
  readonly issuer: string;
  /** The operator audience for operators, the usual one for everyone else. */
  readonly audience: string;
  /** UUID of the user or service account; any name for operators. */
  readonly subject: string;
  /** Null for operators. */
  readonly organizationId: string | null;
  readonly kind: CallerKind;
  /** Role inside the organization. */
  readonly role?: string | undefined;
  /** Names of the claims, where they are not the default ones. */
  readonly claims?: Pick<ClaimNames, "organization" | "kind"> & Partial<ClaimNames>;
  /** How long it works, s. */
  readonly expiresInSeconds: number;
  /** The time, in ms since the epoch. */
  readonly now?: () => number;
}

/** Signs a token as the platform's issuer would, for development and tests. */
export async function signDevelopmentToken(token: DevelopmentToken): Promise<string> {
  const names = token.claims ?? DEFAULT_CLAIMS;
  const issuedAt = Math.floor((token.now ?? Date.now)() / 1000);
  const organization = token.organizationId === null ? {} : { [names.organization]: token.organizationId };
  const role = token.role === undefined ? {} : { [names.role ?? DEFAULT_CLAIMS.role]: token.role };
  return new SignJWT({ ...organization, ...role, [names.kind]: token.kind })
    .setProtectedHeader({ alg: "HS256", typ: "JWT" })
    .setIssuer(token.issuer)
    .setAudience(token.audience)
    .setSubject(token.subject)
    .setIssuedAt(issuedAt)
    .setExpirationTime(issuedAt + token.expiresInSeconds)
    .sign(createSecretKey(token.secret.reveal(), "utf8"));
}
