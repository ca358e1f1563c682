import { networkInterfaces } from "node:os";
import { isIP } from "node:net";
import ipaddr from "ipaddr.js";
import { isIn, kindOf, LOOPBACK, METADATA, NAT64_LENGTHS, NEVER, overlaps, parseAddress, type ParsedAddress, type Range, translated, WELL_KNOWN_NAT64, within } from "./address.ts";
import { EgressSetupError } from "./error.ts";
import { isPort } from "./name.ts";

/** An address that the policy lets through. Only `AddressPolicy` makes one, and only one of these is ever connected to. */
export interface AdmittedAddress {
  /** The one canonical spelling. */
  readonly address: string;
  readonly family: 4 | 6;
  /** Whether an operator's list names it. */
  readonly listed: boolean;
}

/** Decides which addresses may be reached. */
export interface AddressPolicy {
  /** Whether conveniences for development are on. */
  readonly development: boolean;
  /** The address where it may be reached, else undefined. */
  admit(address: string): AdmittedAddress | undefined;
}

/** What the policy is made of. */
export interface AddressPolicyOptions {
  readonly profile: "development" | "production";
  /** CIDR ranges that are not global and may be reached all the same. */
  readonly allow?: readonly string[];
  /** Prefixes of the network's own NAT64, beside the well-known one. */
  readonly nat64?: readonly string[];
  /** Addresses of this machine: its global ones are no targets either, because packets to them pass no firewall. Read at each decision. */
  readonly own?: () => readonly string[];
}

/** The name of the operator's list, as messages say it. */
const SETTING = "EGRESS_ALLOW";

const interfaceAddresses = (): string[] => Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => address));

/** Where packets to an address end up, in its canonical spelling: NAT64 takes them to the IPv4 address that it carries. */
const destination = (address: ParsedAddress, nat64: readonly Range[]): string => (translated(address, nat64) ?? address).toString();

/** Reads the prefixes of the network's own NAT64. Throws `EgressSetupError`. */
export function parseNat64(entries: readonly string[]): readonly Range[] {
  return entries.map((entry, index) => {
    const [, base = "", length = ""] = /^([^/]+)\/([1-9]\d)$/.exec(entry) ?? [];
    const first = parseAddress(base);
    const fits = first?.kind() === "ipv6" && NAT64_LENGTHS.includes(Number(length)) && ipaddr.IPv6.networkAddressFromCIDR(entry).toString() === first.toString();
    if (!fits || !first) throw new EgressSetupError(`EGRESS_NAT64: entry ${index + 1} must be an IPv6 prefix of ${NAT64_LENGTHS.join(", ")} bits`);
    return [first, Number(length)];
  });
}

/**
 * Reads the operator's list. Link-local, multicast, unspecified and address-translation ranges may not be covered by an entry, loopback only by one
 * that lies within it and in development. Throws `EgressSetupError`.
 */
export function parseAllowList(entries: readonly string[], profile: "development" | "production"): readonly Range[] {
  return entries.map((entry, index) => {
    const refuse = (rule: string): never => {
      throw new EgressSetupError(`${SETTING}: entry ${index + 1} ${rule}`);
    };
    const [, base = "", length = ""] = /^([^/]+)\/(0|[1-9]\d{0,2})$/.exec(entry) ?? [];
    const first = parseAddress(base);
    const bits = Number(length);
    if (!first || length === "" || bits > (isIP(base) === 4 ? 32 : 128)) return refuse("must be a CIDR range such as 10.0.0.0/8 or fd12:3456::/32");
    const range: Range = [first, bits];
    const family = isIP(base) === 4 ? ipaddr.IPv4 : ipaddr.IPv6;
    if (family.networkAddressFromCIDR(entry).toString() !== first.toString()) return refuse("has bits set beyond its prefix length");
    if (LOOPBACK.some((loopback) => within(range, loopback))) {
      return profile === "development" ? range : refuse("may name loopback in the development profile only");
    }
    if ([...LOOPBACK, ...NEVER].some((other) => overlaps(range, other))) {
      return refuse("covers loopback, link-local, multicast, unspecified or translated addresses, which are never allowed");
    }
    if (METADATA.some((other) => within(range, other))) return refuse("names a broadcast or cloud metadata address, which are never allowed");
    return range;
  });
}

/** The policy: global unicast, and what the operator lists. Throws `EgressSetupError` for a list that cannot be honoured. */
export function createAddressPolicy(options: AddressPolicyOptions): AddressPolicy {
  const list = parseAllowList(options.allow ?? [], options.profile);
  const nat64 = [...WELL_KNOWN_NAT64, ...parseNat64(options.nat64 ?? [])];
  const own = options.own ?? interfaceAddresses;
  const isOwn = (address: ParsedAddress): boolean =>
    own().some((text) => {
      const mine = parseAddress(text);
      return mine !== undefined && destination(mine, nat64) === destination(address, nat64);
    });
  return {
    development: options.profile === "development",
    admit: (text) => {
      const parsed = parseAddress(text);
      if (!parsed) return undefined;
      const kind = kindOf(parsed, nat64);
      const listed = isIn(parsed, list);
      if (kind === "never" || (kind !== "global" && !listed)) return undefined;
      if (!listed && isOwn(parsed)) return undefined;
      return { address: parsed.toString(), family: parsed.kind() === "ipv4" ? 4 : 6, listed };
    },
  };
}

/** Reads a list of ports that a provider may use. Throws `EgressSetupError` naming the setting and the entry's position. */
export function parsePorts(setting: string, entries: readonly string[]): readonly number[] {
  return entries.map((entry, index) => {
    if (!/^[1-9]\d{0,4}$/.test(entry) || !isPort(Number(entry))) throw new EgressSetupError(`${setting}: entry ${index + 1} must be a port from 1 to 65535`);
    return Number(entry);
  });
}
