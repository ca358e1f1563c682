import { createServer, type IncomingMessage, request as httpRequest, type RequestListener, type ServerResponse } from "node:http";
import { createServer as createTlsServer, request as httpsRequest } from "node:https";
import type { AddressInfo } from "node:net";
import { interactionPolicy, Provider } from "oidc-provider";
import { makeCertificate } from "./certificate.ts";

// It warns of keys and a store that are only fit for tests, each time it starts; here they are meant to be.
const warn = console.warn;
console.warn = (...words: unknown[]) => (String(words[0]).startsWith("oidc-provider WARNING") ? undefined : warn(...words));

/** How the provider behaves. */
export type Dress =
  /** As Google: refresh tokens work for ever and no new one comes; the first comes with offline access and consent only. */
  | "google"
  /** Each refresh token works once; a second use ends the grant and every token of it (RFC 9700 section 4.14.2). */
  | "strict"
  /** As the Microsoft identity platform: paths with a tenant, `client_info`, object and tenant ids, over HTTPS. */
  | "microsoft";

/** The client that is registered there, and where it may come back to besides what `redirectUris` says. */
export const OIDC_CLIENT = { id: "client-1.apps.example.com", secret: "client-secret-of-the-tests" } as const;
/** Where the scripted browser stops. */
export const REDIRECT_URI = "http://localhost:9/callback";
/** The tenant of all accounts in the dress of Microsoft. */
export const TENANT = "6f1d7a52-0b7c-4d2e-9a51-3c1f0e8b7a11";

/** What is answered instead of a token; `cut` is a connection that ends without an answer. */
export type OddReply = { readonly status: number; readonly body: unknown; readonly headers?: Readonly<Record<string, string>> } | "cut";

/** A token request as it arrived. */
export interface TokenAsk {
  readonly grant: string;
  readonly form: URLSearchParams;
  readonly path: string;
}

/** Choices of a provider for tests. */
export interface OidcOptions {
  readonly dress?: Dress;
  /** HTTPS; always so in the dress of Microsoft. */
  readonly tls?: boolean;
  /** Life of access tokens, s. */
  readonly accessTokenSeconds?: number;
  /** More places that the client may come back to. */
  readonly redirectUris?: readonly string[];
  /** Whether it asks on pages, for a person or a real browser; otherwise it answers by itself as `state` says. */
  readonly pages?: boolean;
  /** Scopes beyond those of OpenID Connect. */
  readonly scopes?: readonly string[];
}

/** Starts a certified OpenID provider in this process, on a free port. */
export async function startOidc(options: OidcOptions = {}) {
  const { dress = "google", accessTokenSeconds = 3600 } = options;
  const microsoft = dress === "microsoft";
  const certificate = microsoft || options.tls === true ? await makeCertificate() : undefined;
  const asked: TokenAsk[] = [];
  const issued = new Set<string>();
  const offline = new Set<string>();
  const state = {
    /** Who logs in where the browser does not say: the local part of an address at example.com. */
    account: "user-1",
    /** Answers a token request in place of the provider. */
    odd: undefined as ((ask: TokenAsk) => OddReply | undefined | Promise<OddReply | undefined>) | undefined,
    /** Changes what the provider answers to a token request. */
    alter: undefined as ((reply: Record<string, unknown>, ask: TokenAsk) => void | Promise<void>) | undefined,
    /** What the user does when asked: consent, or refuse. */
    consent: true,
  };
  let listener: RequestListener = (_, response) => response.destroy();
  const handle: RequestListener = (request, response) => void interacted(request, response);
  const server = certificate ? createTlsServer({ key: certificate.key, cert: certificate.cert }, handle) : createServer(handle);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const origin = certificate ? `https://127.0.0.1:${port}` : `http://127.0.0.1:${port}`;
  const issuer = microsoft ? `${origin}/${TENANT}/v2.0` : origin;

  const policy = interactionPolicy.base();
  // Google and Microsoft know it; oidc-provider has to be told.
  policy.add(new interactionPolicy.Prompt({ name: "select_account", requestable: true }), 0);
  const claims = (id: string) => ({
    sub: id, email: `${id}@example.com`, email_verified: true,
    ...(microsoft ? { oid: objectIdOf(id), tid: TENANT, preferred_username: `${id}@example.com`, ver: "2.0" } : {}),
  });
  const provider = new Provider(issuer, {
    clients: [{
      client_id: OIDC_CLIENT.id, client_secret: OIDC_CLIENT.secret, redirect_uris: [REDIRECT_URI, ...(options.redirectUris ?? [])],
      grant_types: ["authorization_code", "refresh_token", "client_credentials"], response_types: ["code"], token_endpoint_auth_method: "client_secret_post",
    }],
    pkce: { required: () => true },
    ttl: { AccessToken: accessTokenSeconds, ClientCredentials: accessTokenSeconds, RefreshToken: 86_400, IdToken: 3600, Grant: 86_400, Session: 3600, Interaction: 600, AuthorizationCode: 60 },
    rotateRefreshToken: dress !== "google",
    issueRefreshToken: async (_ctx, _client, code) => dress !== "google" || offline.has(code.grantId ?? ""),
    conformIdTokenClaims: false,
    scopes: ["openid", "offline_access", "email", "profile", ...SCOPES, ...(options.scopes ?? [])],
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}`, policy },
    extraParams: ["access_type"],
    features: { devInteractions: { enabled: false }, clientCredentials: { enabled: true }, revocation: { enabled: true }, userinfo: { enabled: true } },
    findAccount: (_ctx, id) => ({ accountId: id, claims: async () => claims(id) }),
    claims: { openid: ["sub", "oid", "tid", "preferred_username", "ver"], email: ["email", "email_verified"] },
    cookies: { keys: ["cookie-key-of-the-tests"] },
    renderError: async (ctx, out) => {
      ctx.type = "json";
      ctx.body = out;
    },
  });
  provider.use(async (ctx, next) => {
    await next();
    const body = ctx.body as Record<string, unknown> | undefined;
    const ask = (ctx.req as IncomingMessage & { ask?: TokenAsk }).ask;
    if (ctx.path !== "/token" || ask === undefined || typeof body?.["access_token"] !== "string") return;
    if (dress === "google" && ask.grant === "refresh_token") delete body["refresh_token"];
    const who = microsoft && typeof body["id_token"] === "string" ? (JSON.parse(Buffer.from(body["id_token"].split(".")[1] ?? "", "base64url").toString()) as { oid: string }) : undefined;
    if (who !== undefined) body["client_info"] = Buffer.from(JSON.stringify({ uid: who.oid, utid: TENANT })).toString("base64url");
    await state.alter?.(body, ask);
    issued.add(String(body["access_token"]));
  });
  listener = provider.callback();

  /** Finishes what the provider asks a person, and hands everything else on. */
  async function interacted(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = request.url ?? "/";
    if (microsoft) request.url = url.replace(/^\/[^/]+\/oauth2\/v2\.0\/authorize/, "/auth").replace(/^\/[^/]+\/oauth2\/v2\.0\/token/, "/token").replace(/^\/[^/]+\/discovery\/v2\.0\/keys/, "/jwks");
    if (request.url?.startsWith("/interaction/") === true) return interact(request, response);
    if (request.method === "POST" && request.url?.split("?")[0] === "/token") return token(request, response, url);
    listener(request, response);
  }

  async function interact(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { prompt, params, session, grantId } = await provider.interactionDetails(request, response);
    const finish = (result: Parameters<typeof provider.interactionFinished>[2]) => provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
    if (prompt.name === "select_account") return finish({ select_account: {} });
    if (options.pages === true && request.method === "GET") return void response.writeHead(200, { "content-type": "text/html" }).end(prompt.name === "login" ? LOGIN_PAGE : CONSENT_PAGE);
    if (options.pages === true && prompt.name === "login") return finish({ login: { accountId: (await formOf(request)).get("account") ?? "" } });
    const hint = typeof params["login_hint"] === "string" ? params["login_hint"].split("@")[0] : undefined;
    if (prompt.name === "login") return finish({ login: { accountId: hint ?? state.account } });
    if (!state.consent) return finish({ error: "access_denied", error_description: "the user said no" });
    const grant = (grantId === undefined ? undefined : await provider.Grant.find(grantId)) ?? new provider.Grant({ accountId: session?.accountId ?? state.account, clientId: String(params["client_id"]) });
    grant.addOIDCScope(String(params["scope"]));
    const id = await grant.save();
    if (params["access_type"] === "offline" && String(params["prompt"]).split(" ").includes("consent")) offline.add(id);
    await finish({ consent: { grantId: id } });
  }

  /** Notes a token request, and lets the test answer it. The body is read here and handed on as the provider's parser takes it. */
  async function token(request: IncomingMessage & { body?: unknown; ask?: TokenAsk }, response: ServerResponse, path: string): Promise<void> {
    let text = "";
    for await (const chunk of request.setEncoding("utf8")) text += chunk;
    const form = new URLSearchParams(text);
    const ask = { grant: form.get("grant_type") ?? "", form, path };
    asked.push(ask);
    const odd = await state.odd?.(ask);
    if (odd === "cut") return void response.destroy();
    if (odd !== undefined) {
      const body = typeof odd.body === "string" ? odd.body : JSON.stringify(odd.body);
      return void response.writeHead(odd.status, { "content-type": typeof odd.body === "string" ? "text/html" : "application/json", ...odd.headers }).end(body);
    }
    // Microsoft takes more scopes than were granted and gives those that were.
    const granted = microsoft && ask.grant === "refresh_token" ? (await provider.RefreshToken.find(form.get("refresh_token") ?? "", { ignoreExpiration: true }))?.scope : undefined;
    const sent = Object.fromEntries(form);
    if (granted !== undefined) delete sent["scope"];
    if (microsoft && ask.grant === "client_credentials") delete sent["scope"];
    request.body = Object.fromEntries(Object.entries(sent).filter(([key]) => !/^(x-|client_info$|client-request-id$)/.test(key)));
    request.ask = ask;
    listener(request, response);
  }

  return {
    issuer,
    /** Scheme, host and port. */
    origin,
    /** The authority that signed its certificate, PEM; undefined over HTTP. */
    ca: certificate?.ca,
    provider,
    /** Every token request so far. */
    asked,
    /** Every access token that was given out. */
    issued,
    state,
    /** How many token requests there were, of one grant type or of all. */
    calls: (grant?: string): number => asked.filter((ask) => grant === undefined || ask.grant === grant).length,
    /** Makes a grant as if its owner had consented in a browser. */
    async grant(account: string = state.account, scopes: readonly string[] = SCOPES) {
      const client = await provider.Client.find(OIDC_CLIENT.id);
      if (client === undefined) throw new Error("the client is registered");
      const scope = ["openid", "email", ...scopes].join(" ");
      const grant = new provider.Grant({ accountId: account, clientId: OIDC_CLIENT.id });
      grant.addOIDCScope(scope);
      const grantId = await grant.save();
      const common = { accountId: account, client, grantId, gty: "authorization_code", scope, authTime: Math.floor(Date.now() / 1000) };
      const refreshToken = await new provider.RefreshToken({ ...common, expiresWithSession: false } as never).save();
      const accessToken = await new provider.AccessToken({ ...common, expiresWithSession: false } as never).save();
      return {
        grantId, refreshToken, accessToken,
        /** Ends the grant, as its owner does at the provider. */
        revoke: async () => {
          const found = await provider.RefreshToken.find(refreshToken);
          await found?.destroy();
          await grant.destroy();
        },
      };
    },
    /** Whether an access token is one that the provider takes, and whose. */
    async subjectOf(accessToken: string): Promise<string | undefined> {
      return (await provider.AccessToken.find(accessToken))?.accountId;
    },
    /** A browser whose user agrees to everything: follows redirects, with cookies, to the first URL with this beginning. */
    browse: (url: string, until: string = REDIRECT_URI) => browse(url, until, certificate?.ca),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const LOGIN_PAGE = `<!doctype html><title>Sign in</title><link rel="icon" href="data:,"><form method="post"><label>Account <input name="account"></label> <button>Sign in</button></form>`;
const CONSENT_PAGE = `<!doctype html><title>Consent</title><link rel="icon" href="data:,"><form method="post"><button>Allow</button></form>`;

async function formOf(request: IncomingMessage): Promise<URLSearchParams> {
  let text = "";
  for await (const chunk of request.setEncoding("utf8")) text += chunk;
  return new URLSearchParams(text);
}

/** An OpenID provider in this process. */
export type Oidc = Awaited<ReturnType<typeof startOidc>>;

/** Scopes that a grant has unless something else is said. */
export const SCOPES: readonly string[] = ["https://www.googleapis.com/auth/drive", "https://www.googleapis.com/auth/spreadsheets", "User.Read", "Files.ReadWrite.All", "Sites.ReadWrite.All", "Mail.Send"];

/** The object id of an account in the dress of Microsoft. */
export const objectIdOf = (account: string): string => `00000000-0000-4000-8000-${Buffer.from(account).toString("hex").padStart(12, "0").slice(-12)}`;

async function browse(url: string, until: string, ca: string | undefined): Promise<URL> {
  const jar = new Map<string, string>();
  for (let left = 12, at = new URL(url); left > 0; left--) {
    if (at.href.startsWith(until)) return at;
    const get = at.protocol === "https:" ? httpsRequest : httpRequest;
    const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join("; ");
    const response = await new Promise<IncomingMessage>((resolve, reject) => get(at, { headers: { cookie }, ...(ca === undefined ? {} : { ca }) }, resolve).on("error", reject).end());
    for (const line of response.headers["set-cookie"] ?? []) {
      const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
      jar.set(name, value);
    }
    let body = "";
    for await (const chunk of response.setEncoding("utf8")) body += chunk;
    if (response.headers.location === undefined) throw new Error(`the provider ended with ${response.statusCode}: ${body.slice(0, 300)}`);
    at = new URL(response.headers.location, at);
  }
  throw new Error("the provider redirects for ever");
}
