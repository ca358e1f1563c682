import type { Address, Config } from "./config.ts";
import { isSecureOrLoopback, Redirects } from "./domain/redirects.ts";
import { authorizationOf } from "./providers/index.ts";
import type { VaultDeps } from "./vault/use-cases.ts";

/** What connecting accounts needs of the process. */
export type Connecting = Pick<VaultDeps, "authorizationOf" | "publicUrl" | "redirects" | "inProgressPerUser">;

/** @param rest where REST listens by now */
export function connecting({ settings }: Config, rest: () => Address | undefined): Connecting {
  return {
    authorizationOf,
    publicUrl: () => settings.publicUrl?.replace(/\/+$/, "") ?? listenUrl(settings.tlsCertFile !== undefined, rest()),
    redirects: new Redirects(settings.oauthRedirects),
    inProgressPerUser: settings.oauthInProgressPerUser,
  };
}

/** The address of the listener itself, where a code may travel there. */
function listenUrl(tls: boolean, address: Address | undefined): string | undefined {
  if (address === undefined) return undefined;
  const { host, port } = address;
  const url = new URL(`${tls ? "https" : "http"}://${host.includes(":") ? `[${host}]` : host}:${port}`);
  return isSecureOrLoopback(url) ? url.origin : undefined;
}

/** Whether browsers reach REST over https. */
export const secureBrowsers = ({ settings }: Config): boolean => settings.publicUrl?.startsWith("https:") ?? settings.tlsCertFile !== undefined;
