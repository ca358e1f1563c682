import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { plainAddress, Redirects } from "../../src/domain/redirects.ts";

describe("addresses to go on to", () => {
  const allowed = new Redirects(["https://app.example/a", "https://other.example", "http://[::1]:3000/b/"]);

  test("are matched by origin and whole path segments", () => {
    for (const text of ["https://app.example/a", "https://app.example/a/", "https://app.example/a/b?c=https://x.example", "https://other.example", "https://other.example/x", "http://[::1]:3000/b/", "http://[::1]:3000/b/c"]) expect([text, allowed.allows(text)]).toEqual([text, true]);
    for (const text of ["https://app.example/ab", "https://app.example/", "http://[::1]:3000/b", "http://other.example/", "https://other.example:8443/", ""]) expect([text, allowed.allows(text)]).toEqual([text, false]);
    expect(allowed.origins).toEqual(["https://app.example", "https://other.example", "http://[::1]:3000"]);
    expect(new Redirects([]).allows("https://app.example/a")).toBe(false);
  });

  test("lead, whatever is given, to an allowed origin and path in every reader's eyes", () => {
    const pieces = fc.constantFrom("https:", "http:", "//", "/", "\\", "app.example", "other.example", "evil.example", "/a", "..", "%2e%2e", "%2f", "@", ":", "#", "?", "a", "\t", "\n", " ", ":443", "[::1]", "3000", "é", "xn--", "%00");
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 9 }).map((parts) => parts.join("")), (text) => {
        for (const address of [text, `https://app.example${text}`, `https://app.example/a${text}`]) {
          if (!allowed.allows(address)) continue;
          const url = new URL(address);
          expect(["https://app.example", "https://other.example", "http://[::1]:3000"]).toContain(url.origin);
          if (url.origin === "https://app.example") expect(url.pathname).toMatch(/^\/a(?:\/|$)/);
          expect(decodeURIComponent(url.pathname).split("/")).not.toContain("..");
          expect([url.username, url.password, url.hash, /[\\\s]/.test(address)]).toEqual(["", "", "", false]);
        }
      }),
      { numRuns: process.env["FLOW_TEST_LONG"] === undefined ? 2_000 : 100_000 },
    );
  });

  test.each(["ftp://app.example", "https://app.example#", "https://app.example/?", "https://u@app.example/", "http://app.example/", "https://app.example/%2f", "https://app.example/..", "app.example", ""])("%j is no entry", (entry) => {
    expect(() => new Redirects([entry])).toThrow(TypeError);
  });

  test("are not longer than 1,024 characters", () => {
    const base = "https://app.example/a";
    expect([1_024, 1_025].map((length) => plainAddress(base.padEnd(length, "x")) !== undefined)).toEqual([true, false]);
  });
});
