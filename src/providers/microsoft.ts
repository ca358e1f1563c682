import { z } from "zod";
import { checkMicrosoft, checkSharepoint } from "./checks/microsoft.ts";
import { isSiteUrl, isTenant, WORLDWIDE } from "./clouds.ts";
import { authorizeAtMicrosoft, exchangeAtMicrosoft, refreshMicrosoft } from "./grants/microsoft.ts";
import { hasClient, oauthShape, tokenOf } from "./oauth.ts";
import type { Authorization, CredentialShape, Provider } from "./provider.ts";
import { textAt } from "./shape.ts";

const fields = {
  tenant_id: z
    .string("Must be text")
    .refine(isTenant, "Must be the tenant's GUID or its domain")
    .meta({ title: "Tenant", description: "The tenant's GUID or domain" })
    .optional(),
  site_url: z
    .string("Must be text")
    .refine(isSiteUrl, "Must be the https URL of a SharePoint site, such as https://contoso.sharepoint.com/sites/finance")
    .meta({ title: "Site", description: "URL of the SharePoint site that the credential is meant for", format: "uri" })
    .optional(),
};

/** What stands in for tokens where an application acts for itself (RFC 6749 section 4.4). */
const APPLICATION = ["client_id", "client_secret", "tenant_id"] as const;

const sharepointOauth: CredentialShape = {
  ...oauthShape({ title: "SharePoint OAuth", fields }),
  check: (document, io) => checkSharepoint(tokenOf(document), textAt(document, "site_url"), io),
  refresh: (document, io) => refreshMicrosoft(document, io),
  canRefresh: (document, hasOwnClient) => textAt(document, "refresh_token") !== "" && hasClient(document, hasOwnClient),
};

const microsoftOauth: CredentialShape = {
  ...oauthShape({ title: "Microsoft OAuth", fields, insteadOfTokens: APPLICATION }),
  check: (document, io) => checkMicrosoft(tokenOf(document), io),
  refresh: (document, io) => refreshMicrosoft(document, io, { applications: true }),
  canRefresh: (document, hasOwnClient) =>
    textAt(document, "refresh_token") === "" ? APPLICATION.every((key) => textAt(document, key) !== "") : hasClient(document, hasOwnClient),
};

const flow = (credentialType: Authorization["credentialType"], scopes: readonly string[]): Authorization => ({
  credentialType,
  scopes,
  url: authorizeAtMicrosoft,
  exchange: exchangeAtMicrosoft,
  isIssuer: (name, io) => URL.canParse(name) && new URL(name).origin === (io.endpoints ?? WORLDWIDE).microsoftAuthority,
});

/** Microsoft SharePoint. */
export const sharepoint: Provider = {
  provider: "sharepoint",
  displayName: "SharePoint",
  description: "Sites and files of Microsoft SharePoint",
  category: "storage",
  types: { sharepoint_oauth: sharepointOauth, oauth2: sharepointOauth },
  authorization: flow("sharepoint_oauth", ["Sites.ReadWrite.All", "Files.ReadWrite.All"]),
};

/** Microsoft 365 and Entra ID. */
export const microsoft: Provider = {
  provider: "microsoft",
  displayName: "Microsoft 365",
  description: "Mail, files and calendars of Microsoft 365",
  category: "storage",
  types: { oauth2: microsoftOauth },
  authorization: flow("oauth2", ["User.Read", "Mail.Send", "Files.ReadWrite.All"]),
};
