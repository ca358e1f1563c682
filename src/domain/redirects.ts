/** Longest address that a browser may be sent to, in characters. */
export const MAX_REDIRECT = 1_024;

const LOOPBACK: ReadonlySet<string> = new Set(["localhost", "127.0.0.1", "[::1]"]);

/** Whether a URL is one that secrets may travel to: https, or http that does not leave the machine. */
export const isSecureOrLoopback = (url: URL): boolean => url.protocol === "https:" || (url.protocol === "http:" && LOOPBACK.has(url.hostname));

/**
 * An address in normal form, as every reader understands it: https or loopback, no user, no fragment, and nothing that one
 * reader decodes and another does not. Undefined for any other.
 */
export function plainAddress(text: string): URL | undefined {
  if (text.length > MAX_REDIRECT || !/^[A-Za-z0-9\-._~:/?[\]@!$&'()*+,;=%]+$/.test(text) || !URL.canParse(text)) return undefined;
  const url = new URL(text);
  // Dot segments, backslashes, capitals in a host and default ports all change a text that is not in normal form.
  const normal = url.href === text || url.href === `${text}/`;
  if (!normal || !isSecureOrLoopback(url) || url.username !== "" || url.password !== "") return undefined;
  return /%(?:2f|5c|00)/i.test(url.pathname) ? undefined : url;
}

/** The addresses that a browser may be sent to: prefixes of origin and path, matched at the end of a path segment. */
export class Redirects {
  readonly #prefixes: readonly URL[];

  /** Throws TypeError for an entry that is no plain address, or has a query. */
  constructor(entries: readonly string[]) {
    this.#prefixes = entries.map((entry) => {
      const url = plainAddress(entry);
      if (!url || url.search !== "" || entry.includes("?")) throw new TypeError("every entry must be an https URL, or http on loopback, without user, query and fragment");
      return url;
    });
  }

  /** The origins of all of them. */
  get origins(): readonly string[] {
    return [...new Set(this.#prefixes.map(({ origin }) => origin))];
  }

  /** Whether a browser may be sent there. */
  allows(text: string): boolean {
    const url = plainAddress(text);
    return url !== undefined && this.#prefixes.some(({ origin, pathname }) => url.origin === origin && isWithin(url.pathname, pathname));
  }
}

const isWithin = (path: string, prefix: string): boolean => path === prefix || path.startsWith(prefix.endsWith("/") ? prefix : `${prefix}/`);
