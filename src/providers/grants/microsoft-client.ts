import { ConfidentialClientApplication, type INetworkModule, LogLevel } from "@azure/msal-node";
import { unavailable } from "./refusals.ts";
import type { OauthClient, TokenWire } from "./tokens.ts";

/** The endpoints of a tenant at the Microsoft identity platform. */
export interface MicrosoftEndpoints {
  readonly authority: string;
  readonly tenant: string;
  readonly authorize: string;
  readonly token: string;
  readonly keys: string;
}

/** Carries the library's requests over a wire. It is told all metadata before, so that it has nothing to look up. */
const network = (wire: TokenWire): INetworkModule => ({
  sendGetRequestAsync: () => Promise.reject(unavailable("request_not_sent")),
  async sendPostRequestAsync<T>(url: string, options?: { body?: string }) {
    const reply = await wire.post(url, options?.body ?? "");
    const body = {
      token_type: reply.tokenType, access_token: reply.accessToken, expires_in: reply.lifetimeSeconds, scope: reply.scopes?.join(" "),
      ...(reply.refreshToken === null ? {} : { refresh_token: reply.refreshToken }),
    };
    return { headers: {}, status: 200, body: body as T };
  },
});

/** Microsoft's library for one operation: its cache lives no longer, and nobody shares it. */
export const microsoftLibrary = (client: OauthClient, endpoints: MicrosoftEndpoints, wire: TokenWire): ConfidentialClientApplication =>
  new ConfidentialClientApplication({
    auth: {
      clientId: client.id,
      clientSecret: client.secret,
      authority: `${endpoints.authority}/${endpoints.tenant}`,
      knownAuthorities: [new URL(endpoints.authority).host],
      authorityMetadata: JSON.stringify({
        authorization_endpoint: endpoints.authorize,
        token_endpoint: endpoints.token,
        issuer: `${endpoints.authority}/${endpoints.tenant}/v2.0`,
        jwks_uri: endpoints.keys,
        end_session_endpoint: `${endpoints.authority}/${endpoints.tenant}/oauth2/v2.0/logout`,
      }),
    },
    system: { networkClient: network(wire), loggerOptions: { loggerCallback: () => {}, piiLoggingEnabled: false, logLevel: LogLevel.Error } },
  });
