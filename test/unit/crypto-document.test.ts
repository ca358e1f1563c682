import { expect, test } from "vitest";
import { decodeDocument, encodeDocument } from "../../src/crypto/document.ts";
import { UnreadableError } from "../../src/crypto/unreadable.ts";
import { MAX_SECRET_BYTES, type SecretDocument } from "../../src/domain/credential.ts";
import { CredentialError } from "../../src/domain/errors.ts";

const textOf = (plaintext: Buffer) => plaintext.toString("utf8", 5, 5 + plaintext.readUInt32BE(1));
const sized = (bytes: number): SecretDocument => ({ p: "x".repeat(bytes - '{"p":""}'.length) });

/** A plaintext of the documented form around any bytes. */
function framed(json: Buffer | string, { schema = 1, length = Buffer.byteLength(json), total = Math.ceil((5 + length) / 256) * 256, fill = 0 } = {}): Buffer {
  const plaintext = Buffer.alloc(total, fill);
  plaintext.writeUInt8(schema, 0);
  plaintext.writeUInt32BE(length, 1);
  Buffer.from(json).copy(plaintext, 5);
  return plaintext;
}

test("the text is canonical: sorted by UTF-16 code units, without white space, shortest numbers", () => {
  // The strings of RFC 8785 section 3.2.3, in its order.
  const names = ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\u{1f600}", "\ufb33"];
  const shuffled = Object.fromEntries([3, 6, 0, 5, 1, 4, 2].map((index) => [names[index] ?? "", index]));
  expect(Object.keys(JSON.parse(textOf(encodeDocument(shuffled))) as object).sort()).toEqual([...names].sort());
  expect(textOf(encodeDocument(shuffled))).toBe(`{${names.map((name, index) => `${JSON.stringify(name)}:${index}`).join(",")}}`);
  expect(textOf(encodeDocument({ b: [1.0, 1e21, 0.000001, -0, true, null], a: { d: "€\u000f\n\"\\", c: undefined } }))).toBe(
    '{"a":{"d":"€\\u000f\\n\\"\\\\"},"b":[1,1e+21,0.000001,0,true,null]}',
  );
});

test("a lone surrogate comes back as it was, and is never replaced", () => {
  const document = { "\udfff": "a\ud800", pair: "\ud83d\ude00", list: ["\udc00\ud800"] };
  const back = decodeDocument(encodeDocument(document));
  expect(back).toEqual(document);
  expect(JSON.stringify(back)).not.toContain("\ufffd");
});

test("members that other code treats specially come back as they were", () => {
  const document = JSON.parse('{"__proto__":{"polluted":true},"constructor":1,"toJSON":"x","":2,"\\u0000":3,"\ufeff":"\ufeff"}') as SecretDocument;
  const back = decodeDocument(encodeDocument(document));
  expect(Object.getOwnPropertyNames(back).sort()).toEqual(Object.getOwnPropertyNames(document).sort());
  expect(textOf(encodeDocument(back))).toBe(textOf(encodeDocument(document)));
  expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
});

test("the size tells a bucket of 256 bytes and nothing more", () => {
  for (const [bytes, size] of [[8, 256], [20, 256], [251, 256], [252, 512], [507, 512], [508, 768]] as const) {
    const plaintext = encodeDocument(sized(bytes));
    expect(plaintext).toHaveLength(size);
    expect(plaintext.subarray(5 + bytes).every((byte) => byte === 0)).toBe(true);
  }
});

test("the largest document is MAX_SECRET_BYTES of UTF-8, and one byte more is refused as the caller's fault", () => {
  const largest = sized(MAX_SECRET_BYTES);
  expect(decodeDocument(encodeDocument(largest))).toEqual(largest);
  for (const document of [sized(MAX_SECRET_BYTES + 1), { p: "é".repeat(MAX_SECRET_BYTES / 2) }]) {
    expect(() => encodeDocument(document)).toThrow(expect.objectContaining({ name: "CredentialError", reason: "INVALID_CREDENTIALS" }));
  }
});

test("a document nested beyond the limit is refused, however deep", () => {
  const nested = (levels: number): SecretDocument => JSON.parse(`${'{"a":'.repeat(levels)}0${"}".repeat(levels)}`) as SecretDocument;
  expect(decodeDocument(encodeDocument(nested(100)))).toEqual(nested(100));
  for (const levels of [101, 10_000]) expect(() => encodeDocument(nested(levels))).toThrow(CredentialError);
});

test.each<[string, unknown]>([
  ["a date", new Date(0)],
  ["a buffer", Buffer.from("x")],
  ["a map", new Map()],
  ["a big integer", 1n],
  ["not a number", Number.NaN],
  ["infinity", Number.POSITIVE_INFINITY],
  ["a function", () => 1],
  ["a symbol", Symbol("x")],
  ["undefined in a list", [undefined]],
  ["a hole in a list", Array(1)],
])("%s is refused, since JSON would quietly make something else of it", (_, value) => {
  expect(() => encodeDocument({ value })).toThrow(TypeError);
});

test("the framing of the refusals below is the real one", () => {
  expect(decodeDocument(framed('{"a":1}'))).toEqual({ a: 1 });
  expect(framed('{"a":1}')).toEqual(encodeDocument({ a: 1 }));
});

test.each<[string, Buffer]>([
  ["nothing", Buffer.alloc(0)],
  ["less than its header", Buffer.from([1, 0, 0, 0])],
  ["zeros", Buffer.alloc(256)],
  ["another schema", framed("{}", { schema: 2 })],
  ["no padding", framed("{}", { total: 7 })],
  ["padding that is not zero", framed("{}", { fill: 1 })],
  ["a bucket too many", framed("{}", { total: 512 })],
  ["a length beyond the end", framed("{}", { length: 300, total: 256 })],
  ["a length that is huge", framed("{}", { length: 0xffffffff, total: 256 })],
  ["more than the limit", framed(`{"p":"${"x".repeat(MAX_SECRET_BYTES)}"}`)],
  ["no text", framed("")],
  ["no JSON", framed("hunter2")],
  ["two documents", framed("{}{}")],
  ["a byte order mark", framed("\ufeff{}")],
  ["a list", framed("[]")],
  ["null", framed("null")],
  ["a string", framed('"x"')],
  ["bytes that are not UTF-8", framed(Buffer.from('{"a":"\xff"}', "latin1"))],
  ["a surrogate encoded as UTF-8", framed(Buffer.concat([Buffer.from('{"a":"'), Buffer.from([0xed, 0xa0, 0x80]), Buffer.from('"}')]))],
])("%s is no document", (_, plaintext) => {
  let thrown: unknown;
  try {
    decodeDocument(plaintext);
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toBeInstanceOf(UnreadableError);
  expect(thrown).toMatchObject({ code: "malformed_document" });
  // A parser's message would quote the secret.
  expect((thrown as Error).cause).toBeUndefined();
  expect((thrown as Error).stack).not.toContain("hunter2");
});
