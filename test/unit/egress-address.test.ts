import { describe, expect, test } from "vitest";
import { kindOf, parseAddress } from "../../src/egress/address.ts";
import { EgressSetupError } from "../../src/egress/error.ts";
import { createAddressPolicy, parseAllowList, parsePorts } from "../../src/egress/policy.ts";

const none = () => [];
const open = createAddressPolicy({ profile: "production", own: none });
const kind = (text: string) => {
  const address = parseAddress(text);
  return address ? kindOf(address) : "no address";
};

describe("an address", () => {
  test.each([
    "8.8.8.8", "1.1.1.1", "93.184.216.34", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0", "223.255.255.255",
    "198.17.255.255", "198.20.0.0", "169.253.255.255", "169.255.0.0", "126.255.255.255",
    "128.0.0.0", "168.63.129.15", "168.63.129.17", "9.255.255.255", "11.0.0.0",
    "2606:4700::1111", "2a00:1450:4001::1", "2001:4860:4860::8888", "2400::", "2620:fe::fe", "64:ff9b::8.8.8.8", "64:ff9b::5db8:d822",
  ])("%s is global", (text) => {
    expect(kind(text)).toBe("global");
    expect(open.admit(text)).toMatchObject({ listed: false });
  });

  test.each([
    "10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0", "192.168.255.255", "100.64.0.0", "100.127.255.255", "192.0.0.1", "192.0.0.170",
    "192.0.2.1", "192.88.99.1", "198.18.0.0", "198.19.255.255", "198.51.100.7",
    "203.0.113.9", "240.0.0.1", "255.255.255.254", "192.175.48.1", "192.31.196.1", "192.52.193.1",
    "fc00::", "fd12:3456::1", "fdff:ffff::1", "2001:2::1", "2001:db8::1", "2001:10::1",
    "2001:20::1", "2001:30::1", "2001:3::1", "2001:1::1", "2001:4:112::1", "2620:4f:8000::1",
    "3fff::1", "5f00::1",
  ])("%s is restricted", (text) => {
    expect(kind(text)).toBe("restricted");
    expect(open.admit(text)).toBeUndefined();
  });

  test.each(["127.0.0.1", "127.0.0.0", "127.255.255.255", "127.1.2.3", "::1", "0:0:0:0:0:0:0:1"])("%s is loopback", (text) => {
    expect(kind(text)).toBe("loopback");
    expect(open.admit(text)).toBeUndefined();
  });

  test.each([
    "0.0.0.0", "0.1.2.3", "169.254.0.1", "169.254.169.254", "169.254.170.2", "169.254.169.123", "168.63.129.16", "100.100.100.200", "192.0.0.192",
    "224.0.0.1", "239.255.255.255", "232.1.1.1", "255.255.255.255",
    "::", "fe80::1", "febf::1", "fec0::1", "ff02::1", "ff0e::1", "100::1", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42",
    // IPv4-mapped, IPv4-compatible, IPv4-translated
    "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:8.8.8.8", "::ffff:169.254.169.254", "::ffff:10.0.0.1",
    "::127.0.0.1", "::7f00:1", "::8.8.8.8", "::a9fe:a9fe", "::2",
    "::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8", "::ffff:0:a00:1",
    // NAT64, 6to4, Teredo
    "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe",
    "64:ff9b::192.168.1.1", "64:ff9b::168.63.129.16", "64:ff9b::0.0.0.0", "64:ff9b::100.64.0.1",
    "64:ff9b:1::8.8.8.8", "64:ff9b:1::7f00:1", "64:ff9b:1:ffff::1", "64:ff9b:2::8.8.8.8", "64:ff9b:0:1::8.8.8.8",
    "2002:7f00:1::", "2002:808:808::1", "2002:a9fe:a9fe::", "2002:a00:1::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:0:7f00:1::",
    // ISATAP under global, private and link-local prefixes
    "2606:4700::5efe:7f00:1", "2606:4700::5efe:10.0.0.1", "2606:4700::200:5efe:8.8.8.8",
    "2a00:1450:4001:1:0:5efe:a9fe:a9fe", "2a00::300:5efe:1.1.1.1", "fe80::5efe:a00:1",
    "fd12:3456::5efe:a00:1",
    // space that IANA has not given out
    "4000::1", "1000::1", "200::1", "8000::1", "e000::1", "fe00::1", "fb00::1", "1::1", "::1:0:0:1", "6000::",
  ])("%s is never reached, whatever a list says", (text) => {
    expect(kind(text)).toBe("never");
    const generous = ["10.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "168.0.0.0/8", "240.0.0.0/5", "127.0.0.0/8", "::1/128", "fc00::/7", "2600::/8", "2a00::/8", "4000::/3", "1000::/8"];
    expect(createAddressPolicy({ profile: "development", allow: generous, own: none }).admit(text)).toBeUndefined();
  });

  test.each(["", "127.1", "0x7f.0.0.1", "0177.0.0.1", "010.8.8.8", "2130706433", "8.8.8.8 ", "8.8.8.8%lo", "fe80::1%lo", "2606:4700::1%eth0", "[::1]", "localhost", "8.8.8.8/32", "8.8.8.8\0"])(
    "%j is no address",
    (text) => {
      expect(kind(text)).toBe("no address");
      expect(open.admit(text)).toBeUndefined();
    },
  );

  test.each([
    ["2001:470:1::/32", "2001:470:a00:1::", "10.0.0.1"],
    ["2001:470:100::/40", "2001:470:10a:0:1::", "10.0.0.1"],
    ["2001:470:1::/48", "2001:470:1:a00:0:100::", "10.0.0.1"],
    ["2001:470:1:100::/56", "2001:470:1:10a:0:1::", "10.0.0.1"],
    ["2001:470:1:1::/64", "2001:470:1:1:a:0:100::", "10.0.0.1"],
    ["2001:470:1:1::/96", "2001:470:1:1::a00:1", "10.0.0.1"],
  ])("under the prefix %s of a NAT64 is judged by what it carries: %s is %s", (prefix, inside) => {
    // RFC 6052 section 2.4 has the forms.
    const base = prefix === "2001:470:1::/32" ? "2001:470::/32" : prefix;
    const policy = createAddressPolicy({ profile: "production", nat64: [base], own: none });
    expect(open.admit(inside)).toBeDefined();
    expect(policy.admit(inside)).toBeUndefined();
    expect(policy.admit("2a00:1450::1")).toBeDefined();
  });

  test("under the prefix of a NAT64 is reached where it carries a global one", () => {
    const policy = createAddressPolicy({ profile: "production", nat64: ["2001:470:1:1::/96"], own: none });
    expect(policy.admit("2001:470:1:1::808:808")).toBeDefined();
  });

  test.each(["2001:470::/33", "10.0.0.0/8", "2001:470::1/96", "", "2001:470::"])("%j is no prefix of a NAT64", (text) => {
    expect(() => createAddressPolicy({ profile: "production", nat64: ["2001:470::/32", text] })).toThrow("EGRESS_NAT64: entry 2 must be an IPv6 prefix of 32, 40, 48, 56, 64, 96 bits");
  });

  test("of this machine is not reached although it is global, except where it is listed", () => {
    const own = () => ["8.8.4.4", "2606:4700:0:0:0:0:0:1", "fe80::1%eth0"];
    const policy = createAddressPolicy({ profile: "production", own });
    expect([policy.admit("8.8.4.4"), policy.admit("2606:4700::1")]).toEqual([undefined, undefined]);
    expect(policy.admit("8.8.8.8")).toBeDefined();
    expect([policy.admit("64:ff9b::8.8.4.4"), policy.admit("64:ff9b::808:404")]).toEqual([undefined, undefined]);
    expect(policy.admit("64:ff9b::8.8.8.8")).toBeDefined();
    expect(createAddressPolicy({ profile: "production", own: () => ["64:ff9b::8.8.4.4"] }).admit("8.8.4.4")).toBeUndefined();
    expect(createAddressPolicy({ profile: "production", own, allow: ["8.8.4.4/32"] }).admit("8.8.4.4")).toMatchObject({ listed: true });
  });
});

describe("the operator's list", () => {
  test("opens the private ranges that it names and no others", () => {
    const policy = createAddressPolicy({ profile: "production", allow: ["10.1.0.0/16", "fd12:3456::/32", "100.64.0.0/10"], own: none });
    expect(policy.admit("10.1.255.255")).toEqual({ address: "10.1.255.255", family: 4, listed: true });
    expect(policy.admit("FD12:3456:0:0::A")).toEqual({ address: "fd12:3456::a", family: 6, listed: true });
    expect(policy.admit("100.64.0.1")).toMatchObject({ listed: true });
    expect(policy.admit("8.8.8.8")).toMatchObject({ listed: false });
    for (const closed of ["10.0.255.255", "10.2.0.0", "fd12:3457::1", "192.168.0.1", "127.0.0.1", "100.100.100.200", "::ffff:10.1.0.1", "64:ff9b::10.1.0.1"]) expect(policy.admit(closed)).toBeUndefined();
  });

  test("names loopback in the development profile only", () => {
    const policy = createAddressPolicy({ profile: "development", allow: ["127.0.0.0/8", "::1/128"], own: none });
    expect(policy.admit("127.0.0.1")).toEqual({ address: "127.0.0.1", family: 4, listed: true });
    expect(policy.admit("::1")).toEqual({ address: "::1", family: 6, listed: true });
    expect(createAddressPolicy({ profile: "development", own: none }).admit("127.0.0.1")).toBeUndefined();
    for (const entry of ["127.0.0.0/8", "127.0.0.1/32", "::1/128"]) expect(() => parseAllowList([entry], "production")).toThrow(/loopback in the development profile/);
  });

  test.each([
    "", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/-1", "10.0.0.0/8/8",
    "10/8", "10.0/16", "012.0.0.0/8", "0x0a.0.0.0/8", "fd00::/129", "fd00::%lo/8", "localhost/8",
    "[fd00::]/8", "*", "private", "10.0.0.0 /8", "10.0.0.0/8 ",
  ])("refuses %j, which is no CIDR range", (entry) => {
    expect(() => parseAllowList([entry], "development")).toThrow(/^EGRESS_ALLOW: entry 1 must be a CIDR range/);
  });
  test.each(["10.0.0.1/8", "192.168.1.0/16", "fd12:3456::1/32"])("refuses %j, whose host bits are set", (entry) => {
    expect(() => parseAllowList(["10.0.0.0/8", entry], "production")).toThrow(/^EGRESS_ALLOW: entry 2 has bits set/);
  });
  test.each([
    "0.0.0.0/0", "::/0", "0.0.0.0/8", "0.0.0.0/32", "169.254.0.0/16",
    "169.254.169.254/32", "169.0.0.0/8", "224.0.0.0/4", "239.1.1.1/32", "192.0.0.0/2", "64.0.0.0/2",
    "fe80::/10", "fe80::1/128", "ff00::/8", "f000::/4", "::/96", "::/128",
    "::ffff:0:0/96", "::ffff:10.0.0.0/104", "64:ff9b:1::/48", "2002::/16", "2001::/16", "2001::/32", "2000::/3",
  ])("refuses %j, which covers what is never allowed", (entry) => {
    for (const profile of ["development", "production"] as const) expect(() => parseAllowList([entry], profile)).toThrow(/entry 1 covers/);
  });
  test.each(["168.63.129.16/32", "100.100.100.200/32", "255.255.255.255/32", "fd00:ec2::/32", "fd00:ec2::254/128", "fd20:ce::254/128"])("refuses %j, a metadata address", (entry) => {
    expect(() => parseAllowList([entry], "development")).toThrow(/entry 1 names a broadcast or cloud metadata address/);
  });
  test("is refused with an error of its own that quotes nothing", () => {
    const error = (() => {
      try {
        return parseAllowList(["canary.example/8"], "production");
      } catch (error) {
        return error;
      }
    })();
    expect(error).toBeInstanceOf(EgressSetupError);
    expect(String(error)).not.toContain("canary");
  });
});

describe("a list of ports", () => {
  test("is read, and refused by position", () => {
    expect(parsePorts("EGRESS_PORTS_SFTP", ["22", "65535"])).toEqual([22, 65_535]);
    for (const entry of ["0", "65536", "022", "ssh", "-1", "1e3", "22-23", ""]) {
      expect(() => parsePorts("EGRESS_PORTS_SFTP", ["22", entry])).toThrow("EGRESS_PORTS_SFTP: entry 2 must be a port from 1 to 65535");
    }
  });
});
