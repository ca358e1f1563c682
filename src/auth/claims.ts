import { z } from "zod";
import type { Caller, TenantCaller } from "../domain/access.ts";
import { NIL_UUID, Uuid } from "../domain/credential.ts";
import { fail } from "../domain/errors.ts";

/** Names of the claims that are not registered ones. Dots descend into objects, unless a claim has the whole name. */
export interface ClaimNames {
  /** UUID of the organization. */
  readonly organization: string;
  /** `user`, `service_account` or `operator`; a token without it is a user's. */
  readonly kind: string;
  /** Role inside the organization. */
  readonly role: string;
}

/** Names that are used where none are configured. */
export const DEFAULT_CLAIMS: ClaimNames = { organization: "organization_id", kind: "account_type", role: "role" };

/** Where issuers that reserve the top level put the organization; only asked where the default name is in use. */
const ORGANIZATION_FALLBACK = "app_metadata.organization_id";

/** Audiences by what their tokens may be. */
export interface Audiences {
  readonly tenant: string;
  /** Undefined where there are no operators. */
  readonly operator: string | undefined;
}

/** Claims of a token whose signature, issuer and times hold. */
export type Claims = Readonly<Record<string, unknown>>;

/** One claim by its name; only own properties of plain objects are looked at. */
function read(claims: Claims, name: string): unknown {
  if (Object.hasOwn(claims, name)) return claims[name];
  let value: unknown = claims;
  for (const part of name.split(".")) {
    if (typeof value !== "object" || value === null || Array.isArray(value) || !Object.hasOwn(value, part)) return undefined;
    value = (value as Claims)[part];
  }
  return value;
}

/** A UUID that can name somebody; the nil UUID names nobody (RFC 9562 section 5.9). */
const Identity = Uuid.refine((id) => id !== NIL_UUID);
const Subject = z.string().regex(/^[\x21-\x7e]{1,255}$/);
const Role = z.string().min(1).max(255);

function identity<T>(schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw fail("IDENTITY_INCOMPLETE");
  return parsed.data;
}

/**
 * The caller that verified claims stand for. An operator needs the operator audience and nothing beside it; that
 * audience makes nothing else. Throws INVALID_TOKEN where audience and kind do not go together, IDENTITY_INCOMPLETE
 * where the token is good but names no usable subject or organization.
 */
export function callerOf(claims: Claims, audiences: Audiences, names: ClaimNames): Caller {
  const audience: readonly unknown[] = Array.isArray(claims["aud"]) ? claims["aud"] : [claims["aud"]];
  const kind = read(claims, names.kind);
  if (audiences.operator !== undefined && audience.includes(audiences.operator)) {
    if (audience.length !== 1 || kind !== "operator") throw fail("INVALID_TOKEN");
    return { kind, id: identity(Subject, claims["sub"]) };
  }
  if (!audience.includes(audiences.tenant)) throw fail("INVALID_TOKEN");
  if (kind === undefined) return tenant("user", claims, names);
  if (kind === "user" || kind === "service_account") return tenant(kind, claims, names);
  throw fail("INVALID_TOKEN");
}

function tenant(kind: TenantCaller["kind"], claims: Claims, names: ClaimNames): TenantCaller {
  const named = read(claims, names.organization);
  const organization = named === undefined && names.organization === DEFAULT_CLAIMS.organization ? read(claims, ORGANIZATION_FALLBACK) : named;
  const role = Role.safeParse(read(claims, names.role));
  return { kind, id: identity(Identity, claims["sub"]), organizationId: identity(Identity, organization), role: role.success ? role.data : null };
}
