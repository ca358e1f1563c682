import { readFileSync } from "node:fs";
import { inspect } from "node:util";
import { describe, expect, test } from "vitest";
import { masterKeyCheckValue } from "../../src/crypto/derive.ts";
import { FernetError, openFernet, readFernetKeys } from "../../src/crypto/fernet.ts";
import { fernetToken, newFernetKey } from "../support/fernet.ts";

interface Vector {
  readonly desc?: string;
  readonly token: string;
  readonly now: string;
  readonly ttl_sec: number;
  readonly src?: string;
  readonly made?: string;
  readonly opens_without_a_clock?: true;
}

/** The vectors of the specification (verify.json, generate.json and invalid.json). */
const vectors = JSON.parse(readFileSync("test/vectors/fernet.json", "utf8")) as { secret: string; verify: Vector[]; invalid: Vector[] };
const keys = readFernetKeys(vectors.secret);
const freshness = ({ now, ttl_sec: ttlSeconds }: Vector) => ({ now: new Date(now), ttlSeconds });

const faultOf = (work: () => unknown): Error | undefined => {
  try {
    work();
    return undefined;
  } catch (error) {
    return error as Error;
  }
};

describe("the published vectors", () => {
  test.each(vectors.verify)("$src verifies, and says when it was made", (vector) => {
    const { plaintext, sealedAt } = openFernet(keys, vector.token, freshness(vector));
    expect([plaintext.toString(), sealedAt]).toEqual([vector.src, new Date(vector.made ?? "")]);
    expect(fernetToken(vectors.secret, vector.src ?? "", { at: new Date(vector.made ?? ""), iv: Buffer.from(Array.from({ length: 16 }, (_, n) => n)) })).toBe(vector.token);
  });

  test.each(vectors.invalid)("$desc is refused as every other fault is", (vector) => {
    const error = faultOf(() => openFernet(keys, vector.token, freshness(vector)));
    expect(error).toBeInstanceOf(FernetError);
    expect(error?.message).toBe("the token does not open");
  });

  test("an import looks at no clock: the expired and the future one open, and their times are told; the others do not", () => {
    const opened = vectors.invalid.filter(({ token }) => faultOf(() => openFernet(keys, token)) === undefined);
    expect(opened.map(({ desc }) => desc)).toEqual(vectors.invalid.filter((vector) => vector.opens_without_a_clock).map(({ desc }) => desc));
    expect(opened.map(({ token }) => openFernet(keys, token).sealedAt.toISOString())).toEqual(["1985-10-26T18:20:01.000Z", "1985-10-26T08:20:01.000Z"]);
  });
});

test("one of several keys opens a token, whichever of them made it, and no other does", () => {
  const [old, current, stranger] = [newFernetKey(), newFernetKey(), newFernetKey()];
  const ring = readFernetKeys(`${current}\n${old}\n`);
  for (const key of [old, current]) expect(openFernet(ring, fernetToken(key, '{"a":"ü"}')).plaintext.toString()).toBe('{"a":"ü"}');
  expect(faultOf(() => openFernet(ring, fernetToken(stranger, "{}")))).toBeInstanceOf(FernetError);
});

test("every altered byte and every cut is refused", () => {
  const key = newFernetKey();
  const token = fernetToken(key, "canary of twenty-five bytes");
  const bytes = Buffer.from(token, "base64url");
  const ring = readFernetKeys(key);
  for (let at = 0; at < bytes.length; at++) {
    const altered = Buffer.from(bytes);
    altered[at] = (altered[at] ?? 0) ^ 0x10;
    const text = altered.toString("base64url");
    expect(faultOf(() => openFernet(ring, text.padEnd(Math.ceil(text.length / 4) * 4, "=")))).toBeInstanceOf(FernetError);
    expect(faultOf(() => openFernet(ring, token.slice(0, at)))).toBeInstanceOf(FernetError);
  }
  expect(faultOf(() => openFernet(ring, token.replace(/=+$/, "")))).toBeInstanceOf(FernetError);
});

test.each(["", "short", newFernetKey().slice(0, -1), `${newFernetKey()},nonsense`])("a keys file with what is no key is refused without showing it", (text) => {
  const error = faultOf(() => readFernetKeys(text));
  expect(error).toBeInstanceOf(FernetError);
  if (text !== "") expect(error?.message).not.toContain(text);
});

test("keys do not print, and are known by what a master key of the same bytes would be known by", () => {
  const key = newFernetKey();
  const [read] = readFernetKeys(key);
  expect(inspect(read, { depth: 9, showHidden: true })).not.toContain(key.slice(0, 8));
  expect(read?.checkValue).toEqual(masterKeyCheckValue(Buffer.from(key, "base64url")));
});
