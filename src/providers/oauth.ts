import { z } from "zod";
import type { SecretDocument } from "../domain/credential.ts";
import type { Violation } from "../domain/errors.ts";
import type { OauthToken } from "./checks/oauth-token.ts";
import { secretWord, word } from "./fields.ts";
import type { CredentialShape } from "./provider.ts";
import { shape, textAt } from "./shape.ts";
import { fault } from "./structure.ts";

/** Longest lifetime that is believed of `expires_in`: ten years in seconds. A longer one is cut to it. */
export const MAX_LIFETIME_SECONDS = 10 * 365 * 24 * 60 * 60;

const SECONDS = "Must be a whole number of seconds, zero or more";
const TIMESTAMP = "Must be a time in RFC 3339, such as 2030-01-31T12:00:00Z";

/** The tokens of a grant as a token endpoint gives them (RFC 6749 section 5.1), and the client they belong to. */
const grant = {
  access_token: secretWord("Access token", "The access token").optional(),
  refresh_token: secretWord("Refresh token", "The refresh token; it never leaves the service").optional(),
  token_type: word("Token type", "How the access token is presented").optional(),
  expires_at: z
    .string("Must be text")
    .refine((text) => timestamp(text) !== null, TIMESTAMP)
    .meta({ title: "Expires at", description: "When the access token ends (RFC 3339)", format: "date-time" })
    .optional(),
  expires_in: z
    .union([z.number(SECONDS).min(0, SECONDS), z.string(SECONDS).regex(/^\d{1,15}$/, SECONDS)], SECONDS)
    .transform(Number)
    .meta({ title: "Expires in", description: "Seconds from now until the access token ends; expires_at wins where both are given" })
    .optional(),
  scope: word("Scope", "Scopes that were granted, separated by spaces (RFC 6749 section 3.3)").optional(),
  id_token: secretWord("Id token", "The OpenID Connect id token; it never leaves the service").optional(),
  client_id: word("Client id", "The caller's own OAuth client, where the tokens belong to one").optional(),
  client_secret: secretWord("Client secret", "Secret of that client; it never leaves the service").optional(),
};

/** How OAuth credentials of one provider differ from those of another. */
export interface OauthFacts {
  readonly title: string;
  /** Documented keys beyond the tokens. */
  readonly fields?: z.ZodRawShape;
  /** Keys that together stand in for tokens (the client credentials grant, RFC 6749 section 4.4). */
  readonly insteadOfTokens?: readonly string[];
  /** Further rules on a document that its schema passed. */
  readonly check?: (document: SecretDocument) => readonly Violation[];
}

/** A shape that holds the tokens of an OAuth 2.0 grant. */
export function oauthShape(facts: OauthFacts): CredentialShape {
  const required = [["access_token"], ["refresh_token"], ...(facts.insteadOfTokens ? [facts.insteadOfTokens] : [])];
  return shape({
    schema: z.looseObject({ ...grant, ...facts.fields }).meta({
      title: facts.title,
      description: "Tokens of an OAuth 2.0 grant; the provider's authorize flow makes this credential itself",
      anyOf: required.map((keys) => ({ required: keys })),
    }),
    isOauth: true,
    check: (document) => [...(facts.check?.(document) ?? []), ...tokenFaults(document, facts.insteadOfTokens ?? [])],
    normalise: withExpiresAt,
    endsAt: (document) => (textAt(document, "access_token") === "" ? null : timestamp(textAt(document, "expires_at"))),
    secret: (document) => {
      const expiresAt = timestamp(textAt(document, "expires_at"));
      return {
        $case: "oauthToken",
        value: {
          accessToken: textAt(document, "access_token"),
          tokenType: textAt(document, "token_type") || "Bearer",
          ...(expiresAt === null ? {} : { expiresAt }),
          scopes: textAt(document, "scope").split(" ").filter((scope) => scope !== ""),
          tenantId: facts.fields?.["tenant_id"] ? textAt(document, "tenant_id") : "",
          siteUrl: facts.fields?.["site_url"] ? textAt(document, "site_url") : "",
        },
      };
    },
    extra: (unknown) => withoutGrants(unknown) as SecretDocument,
  });
}

/** The access token of a document that `accept` gave, as a test needs it. */
export const tokenOf = (document: SecretDocument): OauthToken => ({
  accessToken: textAt(document, "access_token"),
  expiresAt: timestamp(textAt(document, "expires_at")),
});

/** Whether there is a client to renew a document's tokens with: the caller's own beside them, else the service's. */
export const hasClient = (document: SecretDocument, hasOwnClient: boolean): boolean =>
  textAt(document, "client_id") === "" ? hasOwnClient : textAt(document, "client_secret") !== "";

function tokenFaults(document: SecretDocument, instead: readonly string[]): Violation[] {
  const given = (key: string): boolean => document[key] !== undefined;
  if (given("access_token") || given("refresh_token")) return [];
  const missing = instead.filter((key) => !given(key));
  if (instead.length > 0 && missing.length === 0) return [];
  if (given("client_secret") && missing.length > 0) return missing.map((key) => fault(key, "missing", `Client credentials need ${instead.join(", ")}`));
  const others = instead.length > 0 ? `, or ${instead.join(", ")}` : "";
  return [fault("access_token", "missing", `Run the provider's authorize flow, or give access_token or refresh_token${others}`)];
}

function withExpiresAt(document: SecretDocument, now: Date): SecretDocument {
  const { expires_in: seconds, ...rest } = document;
  if (typeof seconds !== "number" || rest["expires_at"] !== undefined) return rest;
  const lifetime = Math.min(Math.floor(seconds), MAX_LIFETIME_SECONDS);
  return { ...rest, expires_at: new Date(now.getTime() + lifetime * 1000).toISOString() };
}

const RFC3339 = /^(\d{4})-(\d{2})-(\d{2})T\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:Z|[+-]\d{2}:\d{2})$/i;

/** Reads a time in RFC 3339 from 1970 on, to the millisecond; null where it is none, as on 30 February. */
export function timestamp(text: string): Date | null {
  const match = RFC3339.exec(text);
  if (match === null) return null;
  const [year, month, day] = [Number(match[1]), Number(match[2]), Number(match[3])];
  const date = new Date(Date.UTC(year, month - 1, day));
  const exists = year >= 1970 && date.getUTCMonth() === month - 1 && date.getUTCDate() === day;
  const time = new Date(text.toUpperCase());
  return exists && !Number.isNaN(time.getTime()) && time.getTime() >= 0 ? time : null;
}

/** Besides what renews a token, what the service keeps there for itself: the scopes that were granted once. */
const WITHHELD: ReadonlySet<string> = new Set(["refreshtoken", "idtoken", "clientsecret", "scopebefore"]);

/** Leaves out what an executor must not have, at every level and in every spelling of the key (`refreshToken`, `client-secret`). */
function withoutGrants(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutGrants);
  if (typeof value !== "object" || value === null) return value;
  const kept = Object.entries(value).filter(([key]) => !WITHHELD.has(key.toLowerCase().replace(/[^a-z]/g, "")));
  return Object.fromEntries(kept.map(([key, inner]) => [key, withoutGrants(inner)]));
}
