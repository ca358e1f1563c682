import { EgressError, type EgressRule } from "./error.ts";
import { type Host, isPort, parseHost } from "./name.ts";

/** A URL in the parts that a request is made of. */
export interface FetchTarget {
  readonly scheme: "http" | "https";
  readonly host: Host;
  readonly port: number;
  /** The `Host` header: name or bracketed address, and the port where it is not the scheme's own. */
  readonly authority: string;
  /** Path and query, normalized. */
  readonly path: string;
}

const MAX_URL = 8_192;
const DEFAULT_PORT = { http: 80, https: 443 } as const;

const refuse = (rule: EgressRule): never => {
  throw new EgressError("refused-request", rule);
};

/**
 * Reads an absolute http or https URL. The host is judged as it was written, before a URL parser turns `0x7f.1` or full-width digits into an
 * address. Throws `refused-request` or `refused-name`; the error does not quote the URL, as the parser's own would.
 */
export function parseUrl(text: string): FetchTarget {
  if (text.length > MAX_URL || !/^[\x21-\x7e]+$/.test(text) || text.includes("\\")) return refuse("form");
  const [, written = "", place = ""] = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)/i.exec(text) ?? refuse("form");
  const scheme = written.toLowerCase();
  if (scheme !== "http" && scheme !== "https") return refuse("scheme");
  const [, hostText = "", portText] = /^(\[[^[\]@]*\]|[^:@[\]]*)(?::(\d{1,5}))?$/.exec(place) ?? refuse("form");
  const host = parseHost(hostText);
  const port = portText === undefined ? DEFAULT_PORT[scheme] : Number(portText);
  if (!isPort(port) || !URL.canParse(text)) return refuse("form");
  const { pathname, search } = new URL(text);
  const name = host.kind === "name" ? host.name : host.address;
  const bare = name.includes(":") ? `[${name}]` : name;
  return { scheme, host, port, authority: port === DEFAULT_PORT[scheme] ? bare : `${bare}:${port}`, path: pathname + search };
}
