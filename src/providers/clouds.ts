/** One of Microsoft's clouds: separate installations that do not take each other's tokens. */
export interface MicrosoftCloud {
  /** Origin of the identity platform. */
  readonly authority: string;
  /** Origin of Microsoft Graph. */
  readonly graph: string;
  /** Where SharePoint Online serves sites. */
  readonly sites: readonly string[];
}

/** The clouds that can be signed in to (Microsoft identity platform, national clouds); the first is the world-wide one. */
export const MICROSOFT_CLOUDS = [
  { authority: "https://login.microsoftonline.com", graph: "https://graph.microsoft.com", sites: [".sharepoint.com"] },
  { authority: "https://login.microsoftonline.us", graph: "https://graph.microsoft.us", sites: [".sharepoint.us", ".sharepoint-mil.us"] },
  { authority: "https://login.partner.microsoftonline.cn", graph: "https://microsoftgraph.chinacloudapi.cn", sites: [".sharepoint.cn"] },
] as const satisfies readonly MicrosoftCloud[];

/** Google's own issuer (https://accounts.google.com/.well-known/openid-configuration); it has no national ones. */
export const GOOGLE_ISSUER = "https://accounts.google.com";

/** Where users sign in unless something else is configured. */
export const WORLDWIDE = { googleIssuer: GOOGLE_ISSUER, microsoftAuthority: MICROSOFT_CLOUDS[0].authority, microsoftTenant: "organizations" } as const;

const GUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** Whether a text is a GUID without braces. */
export const isGuid = (text: string): boolean => GUID.test(text);

/** Whether a text names a tenant: a GUID, or a domain of letters, digits and hyphens. It becomes part of a URL's path. */
export function isTenant(text: string): boolean {
  if (isGuid(text)) return true;
  if (text.length > 253) return false;
  const labels = text.split(".");
  return /[a-z]/i.test(labels.at(-1) ?? "") && labels.every((part) => /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/i.test(part));
}

/** Sites of all clouds, those of the former German one among them. */
const SITES = [...MICROSOFT_CLOUDS.flatMap(({ sites }): readonly string[] => sites), ".sharepoint.de"];

/** Whether a text is the https URL of a SharePoint site, on the standard port and without user, query or fragment. */
export function isSiteUrl(text: string): boolean {
  const match = /^https:\/\/([a-z0-9.-]{1,253})(?:\/[^\s?#\\]*)?$/i.exec(text);
  const site = match?.[1]?.toLowerCase();
  const suffix = SITES.find((end) => site?.endsWith(end));
  if (site === undefined || suffix === undefined) return false;
  const [tenant, ...more] = site.slice(0, -suffix.length).split(".");
  return more.length === 0 && /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(tenant ?? "") && URL.canParse(text);
}

/** The cloud that serves a SharePoint site, or that an authority belongs to; undefined for any other. */
export const cloudOfSite = (siteUrl: string): MicrosoftCloud | undefined => {
  if (!isSiteUrl(siteUrl)) return undefined;
  const { hostname } = new URL(siteUrl);
  return MICROSOFT_CLOUDS.find(({ sites }) => sites.some((end) => hostname.endsWith(end)));
};
export const cloudOfAuthority = (authority: string): MicrosoftCloud | undefined => MICROSOFT_CLOUDS.find((cloud) => cloud.authority === authority);
