import { type Config, ConfigError } from "./config.ts";
import type { ProviderName } from "./domain/credential.ts";
import type { OauthEndpoints, OauthIo } from "./domain/oauth.ts";
import { dialError } from "./egress/dial-error.ts";
import type { GuardedFetch } from "./egress/fetch.ts";
import { cloudOfAuthority, GOOGLE_ISSUER, isTenant, MICROSOFT_CLOUDS, WORLDWIDE } from "./providers/clouds.ts";
import { traced } from "./trace.ts";
import type { ProviderRequest } from "./vault/refresh-io.ts";

/** How the service reaches OAuth providers, and as whom. */
export interface OauthAccess {
  /** One request over the guarded fetch; rejects with DialError. */
  readonly request: ProviderRequest;
  /** The service's own client at a provider; undefined where none is configured, and no flow of it is offered then. */
  clientOf(provider: ProviderName): OauthIo["client"];
  /** The installations that users sign in to. */
  readonly endpoints: OauthEndpoints;
  /** The way to a provider for one call that is not a renewal, for so long at most, ms. */
  io(provider: ProviderName, signal: AbortSignal, deadlineMs: number): OauthIo;
}

/** Reads who we are at the providers, and where they are. Throws ConfigError. */
export function createOauthAccess(config: Config, goOut: GuardedFetch): OauthAccess {
  const endpoints = oauthEndpoints(config);
  const google = clientIn(config, "GOOGLE");
  const microsoft = clientIn(config, "MICROSOFT");
  const clients: Partial<Record<ProviderName, OauthIo["client"]>> = { google, microsoft, sharepoint: microsoft };
  const request: ProviderRequest = async (ask, options) => {
    try {
      const { status, headers, body } = await traced(`${ask.method} ${options.provider}`, "client", () => goOut({ ...ask, ...options }), answered);
      return { status, headers, body };
    } catch (error) {
      throw dialError(error);
    }
  };
  return {
    request,
    endpoints,
    clientOf: (provider) => clients[provider],
    io(provider, signal, deadlineMs) {
      const bounded = AbortSignal.any([signal, AbortSignal.timeout(deadlineMs)]);
      return { request: (ask) => request(ask, { provider, signal: bounded, sent: () => {} }), client: clients[provider], now: () => new Date(), signal: bounded, endpoints };
    },
  };
}

const answered = (response: { readonly status: number }) => ({ "http.response.status_code": response.status });

function clientIn({ settings, secrets }: Config, name: "GOOGLE" | "MICROSOFT"): OauthIo["client"] {
  const [id, given] = name === "GOOGLE" ? [settings.googleClientId, secrets.googleClientSecret] : [settings.microsoftClientId, secrets.microsoftClientSecret];
  if ((id === undefined) !== (given === undefined)) throw new ConfigError(`CREDENTIALS_${name}_CLIENT_ID and CREDENTIALS_${name}_CLIENT_SECRET go together`);
  return id === undefined || given === undefined ? undefined : { id, secret: given };
}

/** The installations: in production only the providers' own. Throws ConfigError. */
export function oauthEndpoints({ settings }: Config): OauthEndpoints {
  const production = settings.profile === "production";
  const { googleIssuer = WORLDWIDE.googleIssuer, microsoftAuthority = WORLDWIDE.microsoftAuthority, microsoftTenant = WORLDWIDE.microsoftTenant } = settings;
  const issuer = plainUrl("CREDENTIALS_GOOGLE_ISSUER", googleIssuer);
  const authority = plainUrl("CREDENTIALS_MICROSOFT_AUTHORITY", microsoftAuthority);
  if (production && issuer !== GOOGLE_ISSUER) throw new ConfigError(`CREDENTIALS_GOOGLE_ISSUER must be ${GOOGLE_ISSUER} in production`);
  if (production && cloudOfAuthority(authority) === undefined) {
    throw new ConfigError(`CREDENTIALS_MICROSOFT_AUTHORITY must be one of ${MICROSOFT_CLOUDS.map((cloud) => cloud.authority).join(", ")} in production`);
  }
  if (new URL(authority).origin !== authority || !authority.startsWith("https:")) throw new ConfigError("CREDENTIALS_MICROSOFT_AUTHORITY must be https and a host, without a path; the tenant is a setting of its own");
  if (!isTenant(microsoftTenant)) throw new ConfigError("CREDENTIALS_MICROSOFT_TENANT must be the tenant's GUID or its domain, or organizations or common");
  return { googleIssuer: issuer, microsoftAuthority: authority, microsoftTenant };
}

/** A URL without user, query, fragment and final slash, in its normal form. */
function plainUrl(setting: string, text: string): string {
  const { username, password, search, hash, origin, pathname } = new URL(text);
  if (username !== "" || password !== "" || search !== "" || hash !== "" || /[?#]/.test(text)) throw new ConfigError(`${setting} must not have a user, a query or a fragment`);
  return origin + pathname.replace(/\/+$/, "");
}
