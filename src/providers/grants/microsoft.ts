import type { JWTPayload } from "jose";
import type { SecretDocument } from "../../domain/credential.ts";
import type { AuthorizationAsk, CodeAsk, Exchanged, OauthEndpoints, OauthIo, Refreshed } from "../../domain/oauth.ts";
import { cloudOfAuthority, cloudOfSite, isGuid, isTenant, MICROSOFT_CLOUDS, WORLDWIDE } from "../clouds.ts";
import { checkChallenge, checkVerifier, complete, emailIn, exchanged, Refusal } from "./exchange.ts";
import { verifyIdToken } from "./id-token.ts";
import type { MicrosoftEndpoints } from "./microsoft-client.ts";
import { TokenFailure } from "./refusals.ts";
import { clientFor, type OauthClient, ownClient, refreshFailure, TokenWire, withTokens } from "./tokens.ts";

/** The endpoints of a tenant. Its name was checked: nothing in it can leave the path. */
function endpointsOf(authority: string, tenant: string): MicrosoftEndpoints {
  if (!isTenant(tenant)) throw new TypeError("a tenant is a GUID or a domain");
  const base = `${authority}/${tenant}`;
  return { authority, tenant, authorize: `${base}/oauth2/v2.0/authorize`, token: `${base}/oauth2/v2.0/token`, keys: `${base}/discovery/v2.0/keys` };
}

/** Where a document's tokens are renewed: in the cloud that is configured, or for a caller's own client in that of its site. */
function authorityFor(document: SecretDocument, client: OauthClient, { microsoftAuthority }: OauthEndpoints): string {
  const { site_url: site } = document;
  const cloud = client.ours || typeof site !== "string" ? undefined : cloudOfSite(site);
  return cloud !== undefined && cloudOfAuthority(microsoftAuthority) !== undefined ? cloud.authority : microsoftAuthority;
}

/** Scopes that the library adds by itself. */
const ALWAYS: ReadonlySet<string> = new Set(["openid", "profile", "offline_access", "email"]);

/** What to ask a new token for: what the document has, else all that was consented to for its site, or for Microsoft Graph. */
function scopesFor(document: SecretDocument, authority: string): string[] {
  const { scope, site_url: site } = document;
  const had = typeof scope === "string" ? scope.split(" ").filter((word) => word !== "" && !ALWAYS.has(word)) : [];
  if (had.length > 0) return had;
  const resource = typeof site === "string" && cloudOfSite(site) !== undefined ? new URL(site).origin : (cloudOfAuthority(authority) ?? MICROSOFT_CLOUDS[0]).graph;
  return [`${resource}/.default`];
}

/**
 * Renews a Microsoft access token: by its refresh token (RFC 6749 section 6), or where there is none and `applications` may, as
 * the application that the document names (section 4.4). Never throws.
 */
export async function refreshMicrosoft(document: SecretDocument, io: OauthIo, { applications = false } = {}): Promise<Refreshed> {
  const { refresh_token: refreshToken, tenant_id: tenantId } = document;
  const hasToken = typeof refreshToken === "string";
  const client = clientFor(document, io);
  if (!hasToken && !(applications && client?.ours === false && typeof tenantId === "string")) return { kind: "rejected", cause: "refresh_token_missing" };
  if (client === undefined) return { kind: "client_rejected", ours: false };
  const where = io.endpoints ?? WORLDWIDE;
  const tenant = typeof tenantId === "string" ? tenantId : where.microsoftTenant;
  if (!isTenant(tenant)) return { kind: "rejected", cause: "tenant_invalid" };
  const endpoints = endpointsOf(authorityFor(document, client, where), tenant);
  const wire = new TokenWire(io, endpoints.token);
  try {
    const { microsoftLibrary } = await import("./microsoft-client.ts");
    const library = microsoftLibrary(client, endpoints, wire);
    const scopes = scopesFor(document, endpoints.authority);
    const reply = await wire.run(() =>
      hasToken
        ? library.acquireTokenByRefreshToken({ refreshToken, scopes })
        // An application's token is for everything that it was given, and the environment does not choose where it is asked for.
        : library.acquireTokenByClientCredential({ scopes: scopesFor({ ...document, scope: undefined }, endpoints.authority), azureRegion: "DisableMsalForceRegion", skipCache: true }),
    );
    const end = wire.endOf(reply);
    return { kind: "refreshed", document: withTokens(document, reply, end), tokenExpiresAt: end, scopes: reply.scopes };
  } catch (error) {
    if (!(error instanceof TokenFailure)) throw error;
    return refreshFailure(error.failure, client.ours, typeof tenantId === "string");
  }
}

/** The URL to send a user to. The library asks for a refresh token and the identity by itself. */
export async function authorizeAtMicrosoft(ask: AuthorizationAsk, io: OauthIo): Promise<string> {
  checkChallenge(ask);
  const where = io.endpoints ?? WORLDWIDE;
  const endpoints = endpointsOf(where.microsoftAuthority, where.microsoftTenant);
  const { microsoftLibrary } = await import("./microsoft-client.ts");
  return microsoftLibrary(ownClient(io), endpoints, new TokenWire(io, endpoints.token)).getAuthCodeUrl({
    scopes: [...new Set(["email", ...ask.scopes])],
    redirectUri: ask.redirectUri,
    responseMode: "query",
    state: ask.state,
    nonce: ask.nonce,
    codeChallenge: ask.codeChallenge,
    codeChallengeMethod: "S256",
    ...(ask.loginHint === null ? { prompt: "select_account" } : { loginHint: ask.loginHint }),
  });
}

/** Turns a code of Microsoft's into tokens, and verifies whose they are. */
export function exchangeAtMicrosoft(ask: CodeAsk, io: OauthIo): Promise<Exchanged> {
  return exchanged(ask, async () => {
    checkVerifier(ask);
    const client = ownClient(io);
    const where = io.endpoints ?? WORLDWIDE;
    const endpoints = endpointsOf(where.microsoftAuthority, where.microsoftTenant);
    const wire = new TokenWire(io, endpoints.token);
    const { microsoftLibrary } = await import("./microsoft-client.ts");
    const library = microsoftLibrary(client, endpoints, wire);
    const request = { code: ask.code, codeVerifier: ask.codeVerifier, redirectUri: ask.redirectUri, scopes: [...ask.scopes] };
    const reply = complete(await wire.run(() => library.acquireTokenByCode(request)));
    const claims = await verifyIdToken(reply.idToken, { keysUrl: endpoints.keys, issuers: issuersIn(endpoints), clientId: client.id, nonce: ask.nonce }, io);
    const { oid, tid, email, preferred_username: name } = claims ?? {};
    if (typeof oid !== "string" || typeof tid !== "string" || !isGuid(oid) || !isGuid(tid)) throw new Refusal("id_token_invalid");
    // A user is an object of a tenant; both ids are needed to tell two of them apart.
    const account = { id: `${oid}.${tid}`.toLowerCase(), email: emailIn(email) ?? emailIn(name) };
    return { reply, end: wire.endOf(reply), account, facts: { tenant_id: tid.toLowerCase() } };
  });
}

/** The issuer of a token is that of the tenant which it names, and where one tenant is configured by its id, of that one. */
const issuersIn = ({ authority, tenant }: MicrosoftEndpoints) => ({ tid }: JWTPayload): string[] =>
  typeof tid === "string" && isGuid(tid) && (!isGuid(tenant) || tid.toLowerCase() === tenant.toLowerCase()) ? [`${authority}/${tid}/v2.0`] : [];
