import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseJson } from "../../src/rest/json.ts";

const limits = { maxDepth: 4, maxKeys: 6 };
const parse = (text: string | Buffer) => parseJson(Buffer.from(text), limits);

describe("a JSON body", () => {
  it("becomes its value, whatever its type", () => {
    for (const value of [{ a: [1, null, true, "é"], b: {} }, [], "text", 0, null]) expect(parse(JSON.stringify(value))).toEqual({ value });
  });

  it.each([
    ["", "nothing"],
    ["{", "an open object"],
    ["{'a':1}", "single quotes"],
    ['{"a":1,}', "a trailing comma"],
    ['{"a":1} x', "text after the value"],
    ["// c\n{}", "a comment"],
    ["NaN", "NaN"],
    ["\u{feff}{}", "a byte order mark"],
  ])("is refused where it is not JSON: %j, %s", (text) => {
    expect(parse(text)).toEqual({ refused: "JSON decode error" });
  });

  it("is refused where it is not UTF-8", () => {
    expect(parse(Buffer.from([0x22, 0xff, 0x22]))).toEqual({ refused: "JSON decode error" });
    expect(parse(Buffer.from('{"a":1}', "utf16le"))).toEqual({ refused: "JSON decode error" });
  });

  it("may name a key once in an object, and again in another", () => {
    expect(parse('{"a":{"a":1},"b":[{"a":1}]}')).toHaveProperty("value");
    for (const text of ['{"a":1,"a":1}', '{"x":{"a":1,"a":2}}', '[{"a":1,"\\u0061":2}]', '{"0":1,"0":1}']) {
      expect(parse(text)).toEqual({ refused: "JSON keys should be unique" });
    }
  });

  it("may not name an object's prototype at any level", () => {
    for (const key of ["__proto__", "constructor", "prototype", "\\u005f_proto__"]) {
      for (const text of [`{"${key}":{"polluted":1}}`, `{"a":{"${key}":1}}`, `[[{"${key}":null}]]`]) {
        expect(parse(text)).toEqual({ refused: "JSON keys should not name an object's prototype" });
      }
    }
    expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
  });

  it("may nest to the limit and not deeper", () => {
    expect(parse('[{"a":[{}]}]')).toHaveProperty("value");
    expect(parse('[{"a":[[[]]]}]')).toHaveProperty("refused");
    expect(parse("[".repeat(100_000) + "]".repeat(100_000))).toEqual({ refused: "JSON should not be nested deeper than 4 levels" });
    expect(parse('{"a":'.repeat(100_000) + "1" + "}".repeat(100_000))).toEqual({ refused: "JSON should not be nested deeper than 4 levels" });
  });

  it("may have keys and elements up to the limit, over all objects and arrays", () => {
    expect(parse('{"a":[1,2,3,4,5]}')).toHaveProperty("value");
    expect(parse('{"a":[1,2,3,4,5],"b":1}')).toEqual({ refused: "JSON should not have more than 6 keys" });
    expect(parse(JSON.stringify(Array.from({ length: 200_000 }, () => 1)))).toHaveProperty("refused");
  });

  it("is measured before it is read, so that a repeated key hides neither depth nor keys, at any depth", () => {
    const deep = "[".repeat(5_000) + "]".repeat(5_000);
    for (const text of [`{"a":${deep},"a":1}`, `{"a":${deep}`, `{"a":"${deep}","a":${deep}`]) {
      expect(parse(text)).toEqual({ refused: "JSON should not be nested deeper than 4 levels" });
    }
    expect(parse('{"a":[1,2,3,4,5,6],"a":1}')).toEqual({ refused: "JSON should not have more than 6 keys" });
    expect(parse(`[${'"[[[[[[",'.repeat(5)}"{{{{{{:::"]`)).toHaveProperty("value");
  });

  it("has as many keys and levels as the engine finds in it", () => {
    const count = (value: unknown): { entries: number; depth: number } => {
      if (typeof value !== "object" || value === null) return { entries: 0, depth: 0 };
      const inner = Object.values(value).map(count);
      return { entries: inner.reduce((sum, { entries }) => sum + entries, inner.length), depth: 1 + Math.max(0, ...inner.map(({ depth }) => depth)) };
    };
    const spaced = fc.tuple(fc.json({ maxDepth: 5 }), fc.constantFrom("", " ", "\t", "\n  ")).map(([text, space]) => JSON.stringify(JSON.parse(text), null, space));
    fc.assert(
      fc.property(spaced, (text) => {
        const { entries, depth } = count(JSON.parse(text));
        const refused = (maxDepth: number, maxKeys: number) => JSON.stringify(parseJson(Buffer.from(text), { maxDepth, maxKeys }));
        expect(refused(depth, entries)).not.toMatch(/levels|than \d+ keys/);
        if (depth > 0) expect(refused(depth - 1, entries)).toContain("levels");
        if (entries > 0) expect(refused(depth, entries - 1)).toMatch(/than \d+ keys/);
      }),
      { seed: 1, numRuns: 500 },
    );
  });

  it("is refused wherever the engine refuses it, and taken nowhere else than within the rules", () => {
    const wide = { maxDepth: 100, maxKeys: 1_000 };
    const damaged = fc.tuple(fc.json({ maxDepth: 3 }), fc.nat(), fc.constantFrom("", "[", "]", "{", "}", ",", ":", '"', "\\", "/", "1", "\u0000", "\u2028"));
    fc.assert(
      fc.property(damaged, ([json, at, put]) => {
        const cut = at % (json.length + 1);
        const text = json.slice(0, cut) + put + json.slice(cut + 1);
        let value: unknown;
        try {
          value = JSON.parse(text);
        } catch {
          expect(parseJson(Buffer.from(text), wide)).toHaveProperty("refused");
          return;
        }
        const read = parseJson(Buffer.from(text), wide);
        if ("value" in read) expect(read.value).toEqual(value);
        else expect(read.refused).toMatch(/unique|prototype|Unicode|finite/);
      }),
      { seed: 1, numRuns: 2_000 },
    );
  });

  it("may not hold what a message cannot carry: lone surrogates and numbers beyond the range", () => {
    expect(parse('{"a":"\\ud800"}')).toEqual({ refused: "JSON text should be valid Unicode" });
    expect(parse('{"\\udfff":1}')).toEqual({ refused: "JSON text should be valid Unicode" });
    expect(parse('{"a":1e400}')).toEqual({ refused: "JSON numbers should be finite" });
  });

  it("is read as the engine reads it, whatever it holds within the limits", () => {
    const wide = { maxDepth: 100, maxKeys: 100_000 };
    const plain = (text: string) => !/__proto__|constructor|prototype/.test(text);
    fc.assert(
      fc.property(fc.json({ maxDepth: 6 }).filter(plain), (text) => {
        expect(parseJson(Buffer.from(text), wide)).toEqual({ value: JSON.parse(text) });
      }),
      { seed: 1, numRuns: 500 },
    );
  });

  it("is read or refused, whatever the bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        expect(Object.keys(parseJson(bytes, limits))).toHaveLength(1);
      }),
      { seed: 1, numRuns: 2_000 },
    );
  });

  it("is refused in words that quote nothing of it", () => {
    for (const text of ['{"canary-key":1,"canary-key":2}', "canary-text", '{"__proto__":"canary"}', '{"canary":"\\ud800"}']) {
      expect(JSON.stringify(parse(text))).not.toContain("canary");
    }
  });
});
