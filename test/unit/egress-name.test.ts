import { describe, expect, test } from "vitest";
import { EgressError, type EgressRule } from "../../src/egress/error.ts";
import { checkPort, parseHost } from "../../src/egress/name.ts";
import { parseUrl } from "../../src/egress/url.ts";

const ruleOf = (run: () => unknown): EgressRule | undefined | "accepted" => {
  try {
    run();
  } catch (error) {
    if (error instanceof EgressError) return error.rule;
    throw error;
  }
  return "accepted";
};

const label63 = "a".repeat(63);
const long253 = [label63, label63, label63, "a".repeat(61)].join(".");

describe("a host", () => {
  test.each([
    ["example.com", "example.com"],
    ["EXAMPLE.Com", "example.com"],
    ["example.com.", "example.com"],
    ["localhost", "localhost"],
    ["db", "db"],
    ["r3---sn-1.example", "r3---sn-1.example"],
    ["bücher.example", "xn--bcher-kva.example"],
    ["BÜCHER.example", "xn--bcher-kva.example"],
    ["faß.example", "xn--fa-hia.example"],
    ["例え.テスト", "xn--r8jz45g.xn--zckzah"],
    ["xn--bcher-kva.example", "xn--bcher-kva.example"],
    ["1.example", "1.example"],
    ["127.0.0.1.example", "127.0.0.1.example"],
    ["3com.com", "3com.com"],
    ["0x7f.example", "0x7f.example"],
    ["0xcafe-", undefined],
    ["1e3", "1e3"],
    [label63, label63],
    [long253, long253],
    [`${long253}.`, long253],
  ])("%j is the name %j", (text, name) => {
    if (name === undefined) expect(ruleOf(() => parseHost(text))).toBe("label");
    else expect(parseHost(text)).toEqual({ kind: "name", name });
  });

  test.each([
    ["192.0.2.1", "192.0.2.1"],
    ["0.0.0.0", "0.0.0.0"],
    ["255.255.255.255", "255.255.255.255"],
    ["::1", "::1"],
    ["[::1]", "::1"],
    ["[2001:DB8::A]", "2001:db8::a"],
    ["::ffff:127.0.0.1", "::ffff:127.0.0.1"],
  ])("%j is the address %j", (text, address) => {
    expect(parseHost(text)).toEqual({ kind: "address", address });
  });

  const refused: Record<EgressRule, readonly string[]> = {
    empty: [""],
    "too-long": [`${label63}a`, `${long253}a`, `a.${long253}`, "a.".repeat(200), "x".repeat(300), `${"ü".repeat(62)}.example`],
    label: [".", "..", "a..b", ".example.com", "example..com", "example.com..", "-a.example", "a-.example", "a.-", "-", "1.2.3.4..", "a.b-"],
    numeric: [
      "0", "1", "127", "127.1", "127.0.1", "2130706433", "017700000001", "0177.0.0.1", "0177.0.0.01", "127.0.0.01", "127.00.0.1", "00127.0.0.1",
      "0x7f000001", "0X7F000001", "0x7f.0x0.0x0.0x1", "0x7f.1", "127.0x1", "0x", "0x.0x.0x.0x", "1.0x", "127.0.0.1.", "127.1.", "0x7f000001.", "2130706433.",
      "1.2.3.4.5", "256.0.0.1", "999.999.999.999", "127.0.0.256", "4294967296", "99999999999999999999", "example.1", "example.0x1", "a.b.08", "0300.0250.0.1",
      "0177.1", "0x7f.0.1", "127.0.00000001", "00000000177.0.0.1", "0x0000007f000001", "0x7F.0x00.0x00.0x01",
      "0.0", "0.0.0", "00", "000000", "0x0", "0x00000000",
      "10.1", "10.0.1", "012.0.0.1", "0xa.0.0.1", "0xa000001", "167772161", "0xac100001", "2886729729", "0254.020.0.1", "100.64.1", "0xa83f8110", "2822734096",
      "10.0.65535", "192.168.1", "3232235777", "0xc0a80101", "0xc0.0xa8.0x1.0x1", "0251.0376.0251.0376", "2852039166", "0xa9fea9fe", "169.16689662",
    ],
    characters: [
      "localhost\0.example.com", "localhost\0", "\0", "127.0.0.1\0", "exam\0ple.com", "a b", " example.com", "example.com ", "\texample.com", "exa\tmple.com",
      "example.com\n", "example.com\r\nHost", "user@example.com", "@", "@127.0.0.1", "user@127.0.0.1", "example.com/", "/etc/passwd", "/var/run/postgresql",
      "a/b", "a/../b", "example.com/path", "exa%6dple.com", "%31%32%37.0.0.1",
      "127.0.0.1%00", "%00", "example.com?x", "example.com#x", "a\\b", "\\\\server\\share",
      "*.example", "a,b", "a;b", "a'b", 'a"b', "a`b", "$(id)", "a|b", "a&b", "<a>", "{a}", "a=b", "a+b", "a!b", "a~b", "a^b",
      "１２７.0.0.1", "１２７．０．０．１", "127。0。0。1", "127｡0.0.1", "127．1", "①②⑦.⓪.⓪.①", "①", "⓪", "０", "０x7f.1", "²130706433", "௧.0.0.1x\u0660",
      "ｅxample.com", "ｅｘａｍｐｌｅ.com", "example。com", "example．com", "example｡com", "ⓔxample.com", "ﬁ.example", "\u212a.example", "℡.example", "exam\u00adple.com",
      "\u200bexample.com", "exa\u200dmple.com", "exa\u2060mple.com", "\ufeffexample.com",
      "example.com\u3000", "a\u00a0b", "\u202eexample.com", "a\uff0fb", "a\uff20b",
      "a\uff1a80", "loc\uff05al", "\ud800.example", "localhost\u0000", "a\u2024b", "a\u2025b",
      "\u0301", "ü b", "ü/b", "ü%2eb", "ü\tb", "ü@b", "\u{1d7cf}.0.0.1",
    ],
    "ip-literal": [
      "example.com:80", "127.0.0.1:22", ":80", ":", "::1%lo", "[::1%lo]", "[::1%25lo]",
      "fe80::1%eth0", "[]", "[127.0.0.1]", "[example.com]", "[::1", "::1]", "[[::1]]",
      "1::2::3", "12345::", "::g", ":::", "0:0:0:0:0:0:0:0:1", "::ffff:127.1",
      "::ffff:0177.0.0.1", "::127.0.0.01", "::ffff:127.0.0.256", "[::1]:80", "http://a", "a:b@c",
      "::１", "[::1]\0:", "[::1] :", "::1 ", " ::1", "::1\n",
    ],
    "not-a-port": [],
    "port-not-listed": [],
    scheme: [],
    form: [],
    headers: [],
  };
  const cases = Object.entries(refused).flatMap(([rule, texts]) => texts.map((text) => [text, rule] as const));

  test.each(cases)("%j is refused: %s", (text, rule) => {
    expect(ruleOf(() => parseHost(text))).toBe(rule);
  });

  test("is refused in more than two hundred disguises", () => {
    expect(cases.length).toBeGreaterThan(200);
  });

  test("is never quoted by the refusal", () => {
    for (const [text] of cases.filter(([text]) => text.trim().length > 3)) {
      try {
        parseHost(text);
      } catch (error) {
        expect(JSON.stringify([String(error), error])).not.toContain(text);
      }
    }
  });
});

describe("a port", () => {
  test.each([0, -1, 65_536, 1.5, Number.NaN, Number.POSITIVE_INFINITY])("%s is none", (port) => {
    expect(ruleOf(() => checkPort({}, "sftp", port))).toBe("not-a-port");
  });
  test("may be any where the provider has no list, and only a listed one where it has", () => {
    const rules = { sftp: [22, 2222], postgresql: [] };
    expect(ruleOf(() => checkPort(rules, "sftp", 2222))).toBe("accepted");
    expect(ruleOf(() => checkPort(rules, "sftp", 5432))).toBe("port-not-listed");
    expect(ruleOf(() => checkPort(rules, "postgresql", 1))).toBe("accepted");
    expect(ruleOf(() => checkPort(rules, "constructor", 65_535))).toBe("accepted");
    expect(ruleOf(() => checkPort(rules, undefined, 25))).toBe("accepted");
  });
});

describe("a URL", () => {
  test.each([
    ["https://example.com", { scheme: "https", port: 443, authority: "example.com", path: "/" }],
    ["HTTPS://Example.com:443/a/../b?q=1#f", { scheme: "https", port: 443, authority: "example.com", path: "/b?q=1" }],
    ["https://example.com:8443/x", { scheme: "https", port: 8443, authority: "example.com:8443", path: "/x" }],
    ["http://[2001:db8::1]:8080?a", { scheme: "http", port: 8080, authority: "[2001:db8::1]:8080", path: "/?a" }],
  ])("%s has its parts", (text, parts) => {
    expect(parseUrl(text)).toMatchObject(parts);
  });

  test.each([
    ...["", "example.com", "//example.com", "https:/example.com", "https:example.com", "https://a b", "https://a\\@b", "https://a/\n", "https://é.example"].map((text) => [text, "form"]),
    ...["https://user@example.com", "https://u:p@example.com", "https://a:80:80", "https://a:", "https://a:0", "https://a:65536", "https://[::1"].map((text) => [text, "form"]),
    ...["ftp://a", "file:///etc/passwd", "data://a", "gopher://a", "httpss://a", "ws://a"].map((text) => [text, "scheme"]),
    ...["https://127.1", "https://0x7f000001/", "https://2130706433", "https://0177.0.0.1", "https://a.0x1"].map((text) => [text, "numeric"]),
    ...["https://", "https:///x", "https://?x"].map((text) => [text, "empty"]),
    ...["https://%31.example", "https://a%00b"].map((text) => [text, "characters"]),
    ["https://[::1%25lo]", "ip-literal"],
  ])("%j is refused: %s", (text, rule) => {
    expect(ruleOf(() => parseUrl(text))).toBe(rule);
  });
  test("of absurd length is refused", () => {
    expect(ruleOf(() => parseUrl(`https://a/${"x".repeat(9_000)}`))).toBe("form");
  });
});
