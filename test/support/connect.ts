import { randomUUID } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { ScriptedBrowser, startFront } from "./browser.ts";
import { OIDC_CLIENT, type OidcOptions, startOidc } from "./oidc.ts";
import { connect } from "./postgres.ts";
import { rest, startFresh, temporaryFolder, token } from "./service.ts";

/** Where the tests' platform has its browser sent back to. */
export const APP = "https://app.example/connected";

/** A service, behind a front that browsers reach, whose Google is a real OpenID provider on this machine. */
export async function startConnectable(options: { readonly oidc?: OidcOptions; readonly env?: Record<string, string> } = {}) {
  const front = await startFront();
  const oidc = await startOidc({ ...options.oidc, redirectUris: ["google", "microsoft", "sharepoint"].map((provider) => `${front.origin}/integrations/${provider}/callback`) });
  const [folder, microsoft] = [temporaryFolder(), options.oidc?.dress === "microsoft"];
  const trusted = join(folder.path, "ca.pem");
  if (oidc.ca !== undefined) writeFileSync(trusted, oidc.ca);
  const service = await startFresh({
    ...(microsoft ? { NODE_EXTRA_CA_CERTS: trusted, CREDENTIALS_MICROSOFT_CLIENT_ID: OIDC_CLIENT.id, CREDENTIALS_MICROSOFT_CLIENT_SECRET: OIDC_CLIENT.secret, CREDENTIALS_MICROSOFT_AUTHORITY: oidc.origin } : { CREDENTIALS_GOOGLE_ISSUER: oidc.origin }),
    CREDENTIALS_PUBLIC_URL: front.origin,
    CREDENTIALS_OAUTH_REDIRECTS: "https://app.example/connected,http://localhost:3000",
    CREDENTIALS_GOOGLE_CLIENT_ID: OIDC_CLIENT.id,
    CREDENTIALS_GOOGLE_CLIENT_SECRET: OIDC_CLIENT.secret,
    CREDENTIALS_EGRESS_ALLOW: "127.0.0.0/8",
    CREDENTIALS_REST_RESOLVE: "on",
    ...options.env,
  });
  front.toward(service.rest);
  const callback = `${front.origin}/integrations/google/callback`;
  const query = (parameters: Record<string, string>) => new URLSearchParams(parameters).toString();
  return {
    front, oidc, service, callback,
    /** Begins as a program does. */
    begin: (bearer: string, parameters: Record<string, string> = {}, provider = "google") => rest(service, "GET", `/integrations/${provider}/authorize?${query(parameters)}`, { token: bearer }),
    /** Begins in a browser, up to the callback, which is not opened. */
    async beginIn(browser: ScriptedBrowser, bearer: string, parameters: Record<string, string> = {}): Promise<string> {
      const begun = await browser.open(`${front.origin}/integrations/google/authorize?${query(parameters)}`, { authorization: `Bearer ${bearer}` });
      if (begun.status !== 302) throw new Error(`it answers ${begun.status}: ${begun.body}`);
      return (await browser.visit(begun.headers.location ?? "", callback)).url;
    },
    /** Goes through the provider's pages, up to the callback, which is not opened. */
    async agree(url: string, browser = new ScriptedBrowser(oidc.ca)): Promise<string> {
      return (await browser.visit(url, `${front.origin}/integrations/`)).url;
    },
    async query<T extends object>(text: string, values: readonly unknown[] = []): Promise<T[]> {
      await using client = await connect(service.database.superuserUrl);
      return (await client.query<T>(text, [...values])).rows;
    },
    async [Symbol.asyncDispose]() {
      await service[Symbol.asyncDispose]();
      folder[Symbol.dispose]();
      await oidc[Symbol.asyncDispose]();
      await front[Symbol.asyncDispose]();
    },
  };
}

/** Such a service with everything around it. */
export type Connectable = Awaited<ReturnType<typeof startConnectable>>;

/** A user and a program of a new organization. */
export async function newOrganization() {
  const [organization, user] = [randomUUID(), randomUUID()];
  return { organization, user, bearer: await token("user", organization, user), machine: await token("service_account", organization) };
}
