import fc from "fast-check";
import ipaddr from "ipaddr.js";
import { isIP } from "node:net";
import { expect, it } from "vitest";
import { kindOf, parseAddress, type Range } from "../../src/egress/address.ts";
import { EgressError, EgressSetupError } from "../../src/egress/error.ts";
import { parseHost } from "../../src/egress/name.ts";
import { createAddressPolicy } from "../../src/egress/policy.ts";
import { parseUrl } from "../../src/egress/url.ts";

const RUNS = process.env["FLOW_TEST_LONG"] ? 50_000 : 2_000;
const check = (property: fc.IProperty<unknown[]> | fc.IProperty<[never]>): void => fc.assert(property as fc.IProperty<unknown>, { numRuns: RUNS });
const closed = createAddressPolicy({ profile: "production", own: () => [] });

/** The special-purpose registries of IANA and the multicast and reserved spaces, by their own words and not by the library's. */
const SPECIAL = [
  "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
  "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24",
  "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24",
  "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32", "168.63.129.16/32",
  "::/128", "::1/128", "::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b:1::/48",
  "100::/64", "2001::/23", "2001::/32", "2001:1::/32", "2001:2::/48", "2001:3::/32",
  "2001:4:112::/48", "2001:10::/28", "2001:20::/28", "2001:30::/28", "2001:db8::/32", "2002::/16",
  "2620:4f:8000::/48", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10",
  "ff00::/8", "::/3", "4000::/2", "8000::/1", "fd00:ec2::/32",
].map((text): Range => ipaddr.parseCIDR(text));

/** An address of a range: its prefix, and any bits behind it. */
const inRange = ([first, bits]: Range): fc.Arbitrary<string> => {
  const base = first.toByteArray();
  return fc.uint8Array({ minLength: base.length, maxLength: base.length }).map((random) => {
    const bytes = base.map((byte, index) => {
      const fixed = Math.min(8, Math.max(0, bits - index * 8));
      const mask = (0xff << (8 - fixed)) & 0xff;
      return (byte & mask) | ((random[index] ?? 0) & ~mask & 0xff);
    });
    return ipaddr.fromByteArray(bytes).toString();
  });
};
const v4 = fc.uint8Array({ minLength: 4, maxLength: 4 }).map((bytes) => [...bytes]);
const hex = (bytes: readonly number[]): string => [0, 2].map((at) => (((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0)).toString(16)).join(":");

/** NAT64's own prefix lies in `::/3` and is judged by what it carries. */
const isNat64 = (text: string): boolean => text.startsWith("64:ff9b::") && (parseAddress(text)?.toByteArray().slice(4, 12).every((byte) => byte === 0) ?? false);

it("no address of any special-purpose range is reached", () => {
  check(fc.property(fc.constantFrom(...SPECIAL).chain(inRange), (text) => {
    fc.pre(!isNat64(text));
    expect(closed.admit(text)).toBeUndefined();
  }));
});

it("an embedded IPv4 address is never reached, except a global one behind the well-known NAT64 prefix", () => {
  const forms = fc.constantFrom<(bytes: number[]) => string>(
    (b) => `::ffff:${b.join(".")}`,
    (b) => `::ffff:${hex(b)}`,
    (b) => `::${b.join(".")}`,
    (b) => `::ffff:0:${hex(b)}`,
    (b) => `64:ff9b:1::${hex(b)}`,
    (b) => `2002:${hex(b)}::1`,
    (b) => `2001:0:${hex(b)}::1`,
    (b) => `2001:0:4136:e378:8000:63bf:${hex(b.map((byte) => byte ^ 0xff))}`,
    (b) => `2606:4700:1:2:0:5efe:${hex(b)}`,
    (b) => `2606:4700:1:2:200:5efe:${hex(b)}`,
    (b) => `2a00:1:2:3:300:5efe:${hex(b)}`,
  );
  const open = createAddressPolicy({ profile: "development", allow: ["10.0.0.0/8", "127.0.0.0/8", "192.168.0.0/16", "2606:4700::/32", "2a00::/16"], own: () => [] });
  check(fc.property(v4, forms, (bytes, form) => {
    expect(closed.admit(form(bytes))).toBeUndefined();
    expect(open.admit(form(bytes))).toBeUndefined();
  }));
  check(fc.property(v4, (bytes) => {
    const inner = closed.admit(bytes.join("."));
    expect(closed.admit(`64:ff9b::${hex(bytes)}`) !== undefined).toBe(inner !== undefined);
  }));
});

it("what is admitted is a strict literal of one canonical spelling, and stays admitted in it", () => {
  const global = fc.oneof(v4.map((bytes) => bytes.join(".")), fc.ipV6());
  check(fc.property(fc.oneof(global, fc.string()), (text) => {
    const admitted = closed.admit(text);
    if (!admitted) return;
    expect(isIP(text)).toBe(admitted.family);
    expect(isIP(admitted.address)).toBe(admitted.family);
    expect(closed.admit(admitted.address)).toEqual(admitted);
    expect(kindOf(ipaddr.parse(admitted.address))).toBe("global");
  }));
});

it("a listed range opens its own addresses only", () => {
  const lists = fc.constantFrom("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fd12:3456::/32", "fc00::/7");
  check(fc.property(lists, fc.constantFrom(...SPECIAL).chain(inRange), (list, text) => {
    fc.pre(!isNat64(text));
    const policy = createAddressPolicy({ profile: "production", allow: [list], own: () => [] });
    const admitted = policy.admit(text);
    const [base, bits] = ipaddr.parseCIDR(list);
    const parsed = ipaddr.parse(text);
    if (admitted) expect([parsed.kind(), parsed.match(base, bits)]).toEqual([base.kind(), true]);
  }));
});

it("a host is a lower-case name of letters, digits, hyphens and underscores, a strict literal, or refused without a word of it", () => {
  const alphabet = fc.constantFrom(..."abcz019.-:[]%@/\\ _x\0\t\nüß①０。．｡１٢\u00ad\u200d\ud800", "xn--", "0x", "127.", "localhost", "::", "1");
  const text = fc.oneof(fc.string({ unit: "binary", maxLength: 300 }), fc.array(alphabet, { maxLength: 20 }).map((parts) => parts.join("")));
  check(fc.property(text, (text) => {
    try {
      const host = parseHost(text);
      if (host.kind === "address") {
        expect(isIP(host.address)).toBeGreaterThan(0);
      } else {
        expect(host.name).toMatch(/^(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*$/);
        expect(host.name.split(".").at(-1)).not.toMatch(/^(?:\d+|0x[0-9a-f]*)$/);
        expect(isIP(host.name)).toBe(0);
        expect(parseHost(host.name)).toEqual(host);
      }
    } catch (error) {
      if (!(error instanceof EgressError)) throw error;
      expect([error.reason, error.message]).toEqual(["refused-name", "The host is not a valid host name or IP address"]);
    }
  }));
});

it("a URL leads to the host that a URL parser sees, or is refused", () => {
  const piece = fc.constantFrom(..."ab1.-:/@?#[]%\\", "127.0.0.1", "[::1]", "example.com", ":8443", "0x7f", "//", "..", "%2e", "https:");
  check(fc.property(fc.array(piece, { maxLength: 8 }).map((parts) => `https://${parts.join("")}`), (text) => {
    try {
      const target = parseUrl(text);
      const seen = new URL(text);
      const name = target.host.kind === "name" ? target.host.name : target.host.address;
      expect(parseHost(seen.hostname)).toEqual(target.host.kind === "name" ? { kind: "name", name } : { kind: "address", address: expect.any(String) });
      expect([Number(seen.port) || 443, seen.username, seen.password]).toEqual([target.port, "", ""]);
    } catch (error) {
      if (!(error instanceof EgressError)) throw error;
    }
  }));
});

it("a list entry is honoured or refused by its position", () => {
  const entry = fc.oneof(fc.string(), fc.tuple(fc.oneof(v4.map((b) => b.join(".")), fc.ipV6()), fc.integer({ min: 0, max: 130 })).map(([base, bits]) => `${base}/${bits}`));
  check(fc.property(entry, (entry) => {
    try {
      const policy = createAddressPolicy({ profile: "production", allow: [entry], own: () => [] });
      for (const never of ["127.0.0.1", "::1", "169.254.169.254", "0.0.0.0", "168.63.129.16", "fe80::1", "fd00:ec2::254"]) expect(policy.admit(never)).toBeUndefined();
    } catch (error) {
      if (!(error instanceof EgressSetupError)) throw error;
      expect(error.message).toMatch(/^EGRESS_ALLOW: entry 1 /);
    }
  }));
});
