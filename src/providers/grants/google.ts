import type { SecretDocument } from "../../domain/credential.ts";
import type { AuthorizationAsk, CodeAsk, Exchanged, OauthIo, Refreshed } from "../../domain/oauth.ts";
import { GOOGLE_ISSUER } from "../clouds.ts";
import { checkChallenge, checkVerifier, complete, emailIn, exchanged, Refusal } from "./exchange.ts";
import { verifyIdToken } from "./id-token.ts";
import { TokenFailure } from "./refusals.ts";
import { clientFor, ownClient, refreshFailure, TokenWire, withTokens } from "./tokens.ts";

/** The endpoints of an issuer. Google's are spread over several hosts; another one has them below it. */
export function googleEndpoints(io: Pick<OauthIo, "endpoints">) {
  const issuer = io.endpoints?.googleIssuer ?? GOOGLE_ISSUER;
  if (issuer !== GOOGLE_ISSUER) return { issuers: [issuer], authorize: `${issuer}/auth`, token: `${issuer}/token`, keys: `${issuer}/jwks` };
  return {
    // Google says that both occur.
    issuers: [GOOGLE_ISSUER, "accounts.google.com"],
    authorize: "https://accounts.google.com/o/oauth2/v2/auth",
    token: "https://oauth2.googleapis.com/token",
    keys: "https://www.googleapis.com/oauth2/v3/certs",
  };
}

/** Renews a Google access token (RFC 6749 section 6). Only its tokens and client are read of the document. Never throws. */
export async function refreshGoogle(document: SecretDocument, io: OauthIo): Promise<Refreshed> {
  const { refresh_token: refreshToken } = document;
  if (typeof refreshToken !== "string") return { kind: "rejected", cause: "refresh_token_missing" };
  const client = clientFor(document, io);
  if (client === undefined) return { kind: "client_rejected", ours: false };
  const endpoints = googleEndpoints(io);
  const wire = new TokenWire(io, endpoints.token);
  try {
    const { googleLibrary } = await import("./google-client.ts");
    const library = googleLibrary(client, endpoints, wire);
    library.setCredentials({ refresh_token: refreshToken });
    const reply = await wire.run(() => library.getAccessToken());
    const end = wire.endOf(reply);
    return { kind: "refreshed", document: withTokens(document, reply, end), tokenExpiresAt: end, scopes: reply.scopes };
  } catch (error) {
    if (!(error instanceof TokenFailure)) throw error;
    return refreshFailure(error.failure, client.ours);
  }
}

/** Scopes that say who signed in. */
const IDENTITY = ["openid", "email"] as const;

/** The URL to send a user to. Offline access and the question for consent make Google give a refresh token each time. */
export async function authorizeAtGoogle(ask: AuthorizationAsk, io: OauthIo): Promise<string> {
  checkChallenge(ask);
  const endpoints = googleEndpoints(io);
  const { googleLibrary, S256 } = await import("./google-client.ts");
  return googleLibrary(ownClient(io), endpoints, new TokenWire(io, endpoints.token)).generateAuthUrl({
    access_type: "offline",
    prompt: "consent",
    scope: [...new Set([...IDENTITY, ...ask.scopes])],
    state: ask.state,
    nonce: ask.nonce,
    code_challenge: ask.codeChallenge,
    code_challenge_method: S256,
    redirect_uri: ask.redirectUri,
    ...(ask.loginHint === null ? {} : { login_hint: ask.loginHint }),
  });
}

/** Turns a code of Google's into tokens, and verifies whose they are. */
export function exchangeAtGoogle(ask: CodeAsk, io: OauthIo): Promise<Exchanged> {
  return exchanged(ask, async () => {
    checkVerifier(ask);
    const client = ownClient(io);
    const endpoints = googleEndpoints(io);
    const wire = new TokenWire(io, endpoints.token);
    const { googleLibrary } = await import("./google-client.ts");
    const library = googleLibrary(client, endpoints, wire);
    const reply = complete(await wire.run(() => library.getToken({ code: ask.code, codeVerifier: ask.codeVerifier, redirect_uri: ask.redirectUri })));
    const rules = { keysUrl: endpoints.keys, issuers: () => endpoints.issuers, clientId: client.id, nonce: ask.nonce };
    const claims = await verifyIdToken(reply.idToken, rules, io);
    if (claims?.sub === undefined) throw new Refusal("id_token_invalid");
    const email = claims["email_verified"] === true ? emailIn(claims["email"]) : null;
    return { reply, end: wire.endOf(reply), account: { id: claims.sub, email } };
  });
}
