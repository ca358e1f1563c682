import { z } from "zod";

/** Systems a credential can connect to, in the documented spelling, which REST and the database use. */
export const PROVIDERS = ["microsoft", "sharepoint", "sftp", "aws_ses", "google", "postgresql", "internal_postgresql"] as const;
export type ProviderName = (typeof PROVIDERS)[number];

/** Shapes of a secret, in the documented spelling. */
export const CREDENTIAL_TYPES = ["api_key", "google_oauth", "sharepoint_oauth", "oauth2", "user_password", "key_file"] as const;
export type CredentialTypeName = (typeof CREDENTIAL_TYPES)[number];

/** Whether a credential can be used, in the spelling of the database. */
export const CREDENTIAL_STATUSES = ["active", "expiring", "refresh_failed", "reauth_required", "in_doubt"] as const;
export type CredentialStatusName = (typeof CREDENTIAL_STATUSES)[number];

/** What the service does by itself about the end of an access token: nothing, renew it in good time, or renew it at once. */
export type Renewal = "none" | "scheduled" | "due";

/** Largest secret, in bytes of its JSON text. */
export const MAX_SECRET_BYTES = 64 * 1024;

/** A secret as a caller gives it and as it is sealed: a JSON object. */
export type SecretDocument = Record<string, unknown>;

/** What is known about a credential without opening its secret. */
export interface CredentialRecord {
  readonly organizationId: string;
  readonly id: string;
  readonly provider: ProviderName;
  readonly credentialType: CredentialTypeName;
  readonly userId: string | null;
  readonly name: string | null;
  readonly accountEmail: string | null;
  /** Stable id of the account at the provider, where our own flow made the credential. */
  readonly accountId?: string | null;
  readonly createdAt: Date;
  readonly updatedAt: Date;
  readonly modifiedBy: string;
  readonly status: CredentialStatusName;
  readonly statusReason: string | null;
  /** When the status or its reason last changed. */
  readonly statusSince: Date;
  /** Whether the service can renew the access token without a person. */
  readonly renewable: boolean;
  readonly tokenExpiresAt: Date | null;
  /** Changes with every write by a caller; the etag. */
  readonly revision: number;
  /** Changes with every change of the secret, by whomever; part of what the sealed value is bound to. */
  readonly secretVersion: bigint;
}

/** Where a sealed value is allowed to live: opening it anywhere else fails. */
export interface SecretPlace {
  readonly organizationId: string;
  readonly credentialId: string;
  readonly provider: ProviderName;
  readonly credentialType: CredentialTypeName;
  readonly secretVersion: bigint;
}

/** Where the sealed facts of an authorization in progress are allowed to live. */
export interface AuthorizationPlace {
  readonly organizationId: string;
  readonly authorizationId: string;
  readonly provider: ProviderName;
}

/** The nil UUID (RFC 9562 section 5.9): no tenant, user or credential has it. */
export const NIL_UUID = "00000000-0000-0000-0000-000000000000";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Whether a text is a UUID, in any case. */
export const isUuid = (text: string): boolean => UUID.test(text);

/** A UUID in any case, read as lower case (RFC 9562 section 4). */
export const Uuid = z.guid().transform((text) => text.toLowerCase());
