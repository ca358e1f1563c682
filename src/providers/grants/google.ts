import type { SecretDocument } from "../../domain/credential.ts";
import type { OauthIo, Refreshed } from "../../domain/oauth.ts";
import { TokenFailure } from "./refusals.ts";
import { clientFor, refreshFailure, TokenWire, withTokens } from "./tokens.ts";

/** Google's own issuer (https://accounts.google.com/.well-known/openid-configuration). */
export const GOOGLE_ISSUER = "https://accounts.google.com";

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
