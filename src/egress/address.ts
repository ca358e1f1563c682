import { isIP } from "node:net";
import ipaddr from "ipaddr.js";

/** An address as numbers. */
export type ParsedAddress = ipaddr.IPv4 | ipaddr.IPv6;

/** A range of addresses: the first one and the length of the common prefix in bits. */
export type Range = readonly [ParsedAddress, number];

/**
 * What an address is to us: `global` may be reached; `restricted` (private, shared, documentation, …) where an operator lists it;
 * `loopback` where an operator lists it in development; `never` not at all.
 */
export type AddressKind = "global" | "restricted" | "loopback" | "never";

/** An address from its one strict spelling, or undefined. The library alone would read octal, hexadecimal and short forms. */
export const parseAddress = (text: string): ParsedAddress | undefined => (isIP(text) === 0 || text.includes("%") ? undefined : ipaddr.parse(text));

const ranges = (...texts: string[]): Range[] => texts.map((text) => ipaddr.parseCIDR(text));

/** The machine itself. */
export const LOOPBACK: readonly Range[] = ranges("127.0.0.0/8", "::1/128");

/** Ranges that nobody may reach through us, whatever a list says, and that no list may cover. */
export const NEVER: readonly Range[] = ranges(
  "0.0.0.0/8", // "this network" (RFC 791): Linux takes 0.0.0.0 for itself
  "169.254.0.0/16", // link-local (RFC 3927), where clouds serve instance metadata
  "224.0.0.0/4", // multicast (RFC 5771)
  "fe80::/10", // link-local (RFC 4291)
  "fec0::/10", // site-local, deprecated (RFC 3879)
  "ff00::/8", // multicast (RFC 4291)
  "100::/64", // discard-only (RFC 6666)
  // Forms that carry an IPv4 address and let it pass for another one.
  "::/96", // unspecified, and IPv4-compatible (RFC 4291 section 2.5.5.1)
  "::ffff:0:0/96", // IPv4-mapped (RFC 4291 section 2.5.5.2)
  "::ffff:0:0:0/96", // IPv4-translated, SIIT (RFC 2765)
  "64:ff9b:1::/48", // NAT64 for local use (RFC 8215): where its IPv4 address stands is not known
  "2001::/32", // Teredo (RFC 4380)
  "2002::/16", // 6to4 (RFC 3056)
);

/** Single services of the machine's own cloud. They may lie inside a range that a list covers, and stay closed there. */
export const METADATA: readonly Range[] = ranges(
  "255.255.255.255/32", // limited broadcast (RFC 919)
  "168.63.129.16/32", // Azure: platform channel, in global space
  "100.100.100.200/32", // Alibaba Cloud: metadata, in shared space
  "192.0.0.192/32", // Oracle Cloud: metadata of its first generation
  "fd00:ec2::/32", // AWS: metadata, DNS and pod identity
  "fd20:ce::254/128", // Google Cloud: metadata
  "fd00:c1::a9fe:a9fe/128", // Oracle Cloud: metadata
  "fd00:42::42/128", // Scaleway: metadata
);

/** NAT64 with the well-known prefix (RFC 6052 section 2.1): what resolvers of IPv6-only networks answer for every IPv4 host. */
export const WELL_KNOWN_NAT64: readonly Range[] = ranges("64:ff9b::/96");
/** Lengths of prefixes for NAT64 (RFC 6052 section 2.2). */
export const NAT64_LENGTHS: readonly number[] = [32, 40, 48, 56, 64, 96];
/** Byte of an address that RFC 6052 leaves out where an IPv4 address would lie across it. */
const SKIPPED_BYTE = 8;
/** The only IPv6 space that IANA has given out for global unicast. */
const GLOBAL_IPV6 = ranges("2000::/3");

/** Whether a range begins in another one of at most its length. */
export const within = ([first, bits]: Range, outer: Range): boolean =>
  first.kind() === outer[0].kind() && bits >= outer[1] && first.match(outer[0], outer[1]);

/** Whether two ranges have an address in common: one lies within the other. */
export const overlaps = (a: Range, b: Range): boolean => within(a, b) || within(b, a);

/** Whether an address lies in one of the ranges. */
export function isIn(address: ParsedAddress, list: readonly Range[]): boolean {
  const single: Range = [address, address.kind() === "ipv4" ? 32 : 128];
  return list.some((range) => within(single, range));
}

/** ISATAP (RFC 5214 section 6.1): an IPv4 address in the interface identifier, under any prefix; the u and g bits may vary. */
function isIsatap(address: ParsedAddress): boolean {
  if (!("parts" in address)) return false;
  const [, , , , marker = 0, protocol] = address.parts;
  return protocol === 0x5efe && (marker & ~0x0300) === 0;
}

/** The IPv4 address that NAT64 takes packets to, where one of its prefixes covers this one (RFC 6052 section 2.2). */
export function translated(address: ParsedAddress, prefixes: readonly Range[]): ipaddr.IPv4 | undefined {
  const prefix = prefixes.find((range) => isIn(address, [range]));
  if (!prefix) return undefined;
  const bytes = address.toByteArray();
  const from = prefix[1] / 8;
  return new ipaddr.IPv4(from === 12 ? bytes.slice(12) : [...bytes.keys()].filter((at) => at >= from && at !== SKIPPED_BYTE).slice(0, 4).map((at) => bytes[at] as number));
}

/** What an address is to us, in a network whose NAT64 has these prefixes. */
export function kindOf(address: ParsedAddress, nat64: readonly Range[] = WELL_KNOWN_NAT64): AddressKind {
  if (isIn(address, LOOPBACK)) return "loopback";
  if (isIn(address, NEVER) || isIn(address, METADATA) || isIsatap(address)) return "never";
  const inside = translated(address, nat64);
  // The well-known prefix may not carry anything but global IPv4 addresses (RFC 6052 section 3.1), and no other one takes us inside either.
  if (inside) return kindOf(inside) === "global" ? "global" : "never";
  if (address.range() !== "unicast") return "restricted";
  return address.kind() === "ipv4" || isIn(address, GLOBAL_IPV6) ? "global" : "never";
}
