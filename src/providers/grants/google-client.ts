import { CodeChallengeMethod, gaxios, OAuth2Client } from "google-auth-library";
import type { OauthClient, TokenWire } from "./tokens.ts";

/** Where Google, or another issuer in its place, has its endpoints. */
export interface GoogleEndpoints {
  readonly authorize: string;
  readonly token: string;
}

/** Carries the library's requests over a wire. It opens no socket, tries nothing again, logs nothing and follows no proxy setting. */
class WireTransporter extends gaxios.Gaxios {
  readonly #wire: TokenWire;

  constructor(wire: TokenWire) {
    super();
    this.#wire = wire;
  }

  override async request<T>(options: gaxios.GaxiosOptions = {}): Promise<gaxios.GaxiosResponse<T>> {
    const reply = await this.#wire.post(String(options.url), String(options.data));
    const data = { access_token: reply.accessToken, refresh_token: reply.refreshToken ?? undefined, expires_in: reply.lifetimeSeconds };
    const config = { ...options, url: new URL(String(options.url)), headers: new Headers() };
    return Object.assign(new Response(null), { config, data: data as T });
  }
}

/** Google's library for one operation. It is given no file, no environment and no JSON: only a client and a wire. */
export const googleLibrary = (client: OauthClient, endpoints: GoogleEndpoints, wire: TokenWire): OAuth2Client =>
  new OAuth2Client({
    clientId: client.id,
    clientSecret: client.secret,
    endpoints: { oauth2AuthBaseUrl: endpoints.authorize, oauth2TokenUrl: endpoints.token },
    transporter: new WireTransporter(wire),
    // The interceptors that this would add print requests when the environment says so.
    useAuthRequestParameters: false,
  });

/** The name of the challenge's method. */
export const S256 = CodeChallengeMethod.S256;
