import { isIP, isIPv6 } from "node:net";
import { domainToASCII } from "node:url";
import { EgressError, type EgressRule } from "./error.ts";

/** A host that is well-formed. It may still be one that must not be reached. */
export type Host =
  | { readonly kind: "name"; /** Lower-case ASCII, without the trailing dot. */ readonly name: string }
  | { readonly kind: "address"; /** IPv4 in dotted decimal or IPv6 without brackets, lower-case. */ readonly address: string };

/** Longest name in its textual form, without the trailing dot (RFC 1035 section 2.3.4). */
const MAX_NAME = 253;
const MAX_LABEL = 63;
/** Letters, digits and inner hyphens (RFC 952, RFC 1123 section 2.1), and underscores, which internal names have and no parser reads as a number. */
const LABEL = /^[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?$/;
/** What inet_aton and URL parsers take for a number: decimal, octal, and hexadecimal even without digits. */
const NUMBER = /^(?:[0-9]+|0x[0-9a-f]*)$/;

const refuse = (rule: EgressRule): never => {
  throw new EgressError("refused-name", rule);
};

/**
 * Reads a host as a person or a tenant wrote it. Names may be internationalized; addresses have exactly one spelling for IPv4
 * and stand bare or in brackets for IPv6, without a zone. Everything that some parser reads as another host is refused.
 * Throws `refused-name` with the broken rule; the error does not quote the text.
 */
export function parseHost(text: string): Host {
  if (text === "") return refuse("empty");
  if (text.length > MAX_NAME + 1) return refuse("too-long");
  const bracketed = text.startsWith("[") && text.endsWith("]");
  if (bracketed || text.includes(":")) {
    const address = bracketed ? text.slice(1, -1) : text;
    return isIPv6(address) && !address.includes("%") ? { kind: "address", address: address.toLowerCase() } : refuse("ip-literal");
  }
  if (isIP(text) === 4) return { kind: "address", address: text };

  const labels = (text.endsWith(".") ? text.slice(0, -1) : text).split(".").map(toAscii);
  // A top-level domain is never numeric (RFC 3696 section 2), so a name that ends in a number is an address in disguise.
  if (NUMBER.test(labels.at(-1) as string)) return refuse("numeric");
  const name = labels.join(".");
  return name.length > MAX_NAME ? refuse("too-long") : { kind: "name", name };
}

/** One label in its ASCII form. */
function toAscii(label: string): string {
  if (label === "") return refuse("label");
  const ascii = /\P{ASCII}/u.test(label) ? internationalized(label) : label.toLowerCase();
  if (/[^a-z0-9_-]/.test(ascii)) return refuse("characters");
  if (ascii.length > MAX_LABEL) return refuse("too-long");
  return LABEL.test(ascii) ? ascii : refuse("label");
}

/** The A-label of a label with non-ASCII letters (RFC 5890). One that only looks like ASCII (full-width, circled, ligatures, foreign dots) is refused. */
function internationalized(label: string): string {
  // The conversion drops or decodes some ASCII characters (tab, percent, slash), so only letters, digits and hyphens may meet it.
  if (/\p{ASCII}/u.test(label.replace(/[A-Za-z0-9-]/g, ""))) return refuse("characters");
  const ascii = domainToASCII(label);
  return ascii.startsWith("xn--") ? ascii : refuse("characters");
}

/** Largest TCP port. */
const MAX_PORT = 65_535;

/** Which ports may be used, by provider; a provider that is not named may use any. */
export type PortRules = Readonly<Record<string, readonly number[]>>;

/** Whether a number is a port that one can connect to. */
export const isPort = (port: number): boolean => Number.isInteger(port) && port >= 1 && port <= MAX_PORT;

/** Throws `refused-port` for what is no port, and for one that the provider's list does not name. */
export function checkPort(rules: PortRules, provider: string | undefined, port: number): void {
  if (!isPort(port)) throw new EgressError("refused-port", "not-a-port");
  const listed = provider !== undefined && Object.hasOwn(rules, provider) ? rules[provider] : undefined;
  if (listed && listed.length > 0 && !listed.includes(port)) throw new EgressError("refused-port", "port-not-listed");
}
