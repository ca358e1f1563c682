import { z } from "zod";
import { checkMicrosoft, checkSharepoint } from "./checks/microsoft.ts";
import { oauthShape, tokenOf } from "./oauth.ts";
import type { CredentialShape, Provider } from "./provider.ts";
import { textAt } from "./shape.ts";

const GUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** Whether a text names a tenant: a GUID, or a domain of letters, digits and hyphens. It becomes part of a URL's path. */
export function isTenant(text: string): boolean {
  if (GUID.test(text)) return true;
  if (text.length > 253) return false;
  const labels = text.split(".");
  return /[a-z]/i.test(labels.at(-1) ?? "") && labels.every((part) => /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/i.test(part));
}

/** Where SharePoint Online serves sites: the worldwide cloud, and the sovereign ones. */
const SHAREPOINT_SUFFIXES = [".sharepoint.com", ".sharepoint.us", ".sharepoint-mil.us", ".sharepoint.cn", ".sharepoint.de"] as const;

/** Whether a text is the https URL of a SharePoint site, on the standard port and without user, query or fragment. */
export function isSiteUrl(text: string): boolean {
  const match = /^https:\/\/([a-z0-9.-]{1,253})(?:\/[^\s?#\\]*)?$/i.exec(text);
  const site = match?.[1]?.toLowerCase();
  const suffix = SHAREPOINT_SUFFIXES.find((end) => site?.endsWith(end));
  if (site === undefined || suffix === undefined) return false;
  const [tenant, ...more] = site.slice(0, -suffix.length).split(".");
  return more.length === 0 && /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(tenant ?? "") && URL.canParse(text);
}

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

const sharepointOauth: CredentialShape = {
  ...oauthShape({ title: "SharePoint OAuth", fields }),
  check: (document, io) => checkSharepoint(tokenOf(document), textAt(document, "site_url"), io),
};

const microsoftOauth: CredentialShape = {
  ...oauthShape({ title: "Microsoft OAuth", fields, insteadOfTokens: ["client_id", "client_secret", "tenant_id"] }),
  check: (document, io) => checkMicrosoft(tokenOf(document), io),
};

/** Microsoft SharePoint. */
export const sharepoint: Provider = {
  provider: "sharepoint",
  displayName: "SharePoint",
  description: "Sites and files of Microsoft SharePoint",
  category: "storage",
  types: { sharepoint_oauth: sharepointOauth, oauth2: sharepointOauth },
};

/** Microsoft 365 and Entra ID. */
export const microsoft: Provider = {
  provider: "microsoft",
  displayName: "Microsoft 365",
  description: "Mail, files and calendars of Microsoft 365",
  category: "storage",
  types: { oauth2: microsoftOauth },
};
