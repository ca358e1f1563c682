import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import type { TenantCaller } from "../domain/access.ts";
import { fail } from "../domain/errors.ts";
import { secret, type Secret } from "../domain/secret.ts";

/** What every API key begins with; the rest is opaque to callers. */
export const API_KEY_START = "saf_";

/**
 * saf_org_ ┊ organization, 8 hex ┊ _ ┊ account, 8 hex ┊ _ ┊ key id, 8 characters ┊ secret, 43 characters
 * └───────────────────────── public prefix, 34 characters ────────────────────┘
 * Key id and secret are the base64url (RFC 4648 section 5) of 48 and 256 random bits.
 */
const API_KEY = /^saf_org_[0-9a-f]{8}_[0-9a-f]{8}_[A-Za-z0-9_-]{51}$/;
const PREFIX_LENGTH = 34;
const RANDOM_BYTES = 6 + 32;

/** A new API key in its three forms. */
export interface NewApiKey {
  /** The whole key; shown once, never stored. */
  readonly token: Secret<string>;
  /** The public beginning, by which the key is found; no other key has it. */
  readonly prefix: string;
  /** SHA-256 of the whole key: what is stored. 256 random bits need no slow hash. */
  readonly hash: Buffer;
}

/** Makes an API key for a service account. */
export function newApiKey(organizationId: string, serviceAccountId: string): NewApiKey {
  const random = randomBytes(RANDOM_BYTES).toString("base64url");
  const token = `saf_org_${organizationId.slice(0, 8).toLowerCase()}_${serviceAccountId.slice(0, 8).toLowerCase()}_${random}`;
  return { token: secret(token), prefix: token.slice(0, PREFIX_LENGTH), hash: hashApiKey(token) };
}

/** SHA-256 of an API key. */
export function hashApiKey(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}

/** An API key as it is stored. */
export interface StoredApiKey {
  readonly id: string;
  readonly organizationId: string;
  readonly serviceAccountId: string;
  /** SHA-256 of the key, 32 bytes. */
  readonly tokenHash: Buffer;
  readonly expiresAt: Date | null;
  readonly revokedAt: Date | null;
}

/** Where stored keys are found. */
export interface ApiKeySource {
  /** Throws the reason for which nothing can be found now; a missing key is undefined. */
  keyByPrefix(tokenPrefix: string): Promise<StoredApiKey | undefined>;
}

/** The service account an API key stands for, and when the key ends, ms since the epoch. */
export interface VerifiedApiKey {
  readonly caller: TenantCaller;
  readonly expiresAtMs: number;
}

/** Compared with where there is no stored hash, so that an unknown prefix costs what a wrong secret costs. */
const NOBODY = randomBytes(32);

/**
 * Finds out whose key this is. Throws INVALID_TOKEN, the same for unknown, wrong, expired and revoked keys; a failure
 * of the source passes through.
 */
export async function verifyApiKey(token: string, keys: ApiKeySource, nowMs: number): Promise<VerifiedApiKey> {
  if (!API_KEY.test(token)) throw fail("INVALID_TOKEN");
  const hash = hashApiKey(token);
  const stored = await keys.keyByPrefix(token.slice(0, PREFIX_LENGTH));
  const matches = timingSafeEqual(hash, stored?.tokenHash ?? NOBODY);
  const expiresAtMs = stored?.expiresAt?.getTime() ?? Infinity;
  if (!stored || !matches || stored.revokedAt !== null || expiresAtMs <= nowMs) throw fail("INVALID_TOKEN");
  return { caller: { kind: "service_account", id: stored.serviceAccountId, organizationId: stored.organizationId, role: null, keyId: stored.id }, expiresAtMs };
}
