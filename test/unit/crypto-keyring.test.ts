import { randomBytes } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { inspect } from "node:util";
import { describe, expect, test } from "vitest";
import { KeyringError, parseMasterKeys, wrappingKeyId } from "../../src/crypto/keyring.ts";
import { UnreadableError } from "../../src/crypto/unreadable.ts";
import { readVectors } from "../vectors/vectors.ts";

const one = randomBytes(32).toString("base64");
const two = randomBytes(32).toString("base64");
const place = { organizationId: "0198c0de-0000-7000-8000-000000000001", version: 1 };

function refusal(text: string, primaryId = "a"): string {
  try {
    parseMasterKeys(text, primaryId);
  } catch (error) {
    expect(error).toBeInstanceOf(KeyringError);
    return (error as KeyringError).message;
  }
  throw new Error("the keys were accepted");
}

test("the primary key is the one that is named, not the first or the last", () => {
  const three = randomBytes(32).toString("base64");
  const keyring = parseMasterKeys(`a:${one},b:${two},c:${three}`, "b");
  expect(keyring.ids).toEqual(["a", "b", "c"]);
  expect(keyring.primaryId).toBe("b");
  expect(wrappingKeyId(keyring.wrap(randomBytes(32), place))).toBe("b");
});

test("a key wrapped under an older primary still unwraps", () => {
  const key = randomBytes(32);
  const wrapped = parseMasterKeys(`a:${one}`, "a").wrap(key, place);
  expect(parseMasterKeys(`b:${two},a:${one}`, "b").unwrap(wrapped, place).equals(key)).toBe(true);
});

test("a wrapped key whose master key is not loaded is not tried with the others", () => {
  const wrapped = parseMasterKeys(`a:${one}`, "a").wrap(randomBytes(32), place);
  const renamed = parseMasterKeys(`b:${one}`, "b");
  expect(() => renamed.unwrap(wrapped, place)).toThrow(expect.objectContaining({ code: "unknown_master_key" }));
});

test("another key under the same id does not unwrap", () => {
  const wrapped = parseMasterKeys(`a:${one}`, "a").wrap(randomBytes(32), place);
  expect(() => parseMasterKeys(`a:${two}`, "a").unwrap(wrapped, place)).toThrow(UnreadableError);
});

test("a check value is the same wherever its key is loaded, and another for another key", () => {
  const first = parseMasterKeys(`a:${one},b:${two}`, "a");
  const second = parseMasterKeys(`c:${one}`, "c");
  expect(first.checkValue("a")).toEqual(second.checkValue("c"));
  expect(first.checkValue("a")).not.toEqual(first.checkValue("b"));
  expect(first.checkValue("a")).toHaveLength(32);
  expect(first.checkValue("a").toString("base64")).not.toBe(one);
  expect(() => first.checkValue("z")).toThrow(KeyringError);
});

describe("a setting is refused by the rule it breaks, and names the key", () => {
  const bytes = (make: (index: number) => number) => Buffer.from(Array.from({ length: 32 }, (_, index) => make(index) & 0xff)).toString("base64");
  test.each<[string, string, RegExp]>([
    ["a short key", `a:${randomBytes(31).toString("base64")}`, /"a" is not 32 bytes long/],
    ["a long key", `a:${randomBytes(33).toString("base64")}`, /"a" is not 32 bytes long/],
    ["an AES-128 key", `a:${randomBytes(16).toString("base64")}`, /"a" is not 32 bytes long/],
    ["an empty key", "a:", /"a" is not 32 bytes long/],
    ["a key in hex", `a:${randomBytes(32).toString("hex")}`, /"a" is not 32 bytes long/],
    ["missing padding", `a:${one.slice(0, -1)}`, /"a" is not base64 with padding/],
    ["doubled padding", `a:${one}=`, /"a" is not base64 with padding/],
    ["trailing bits that are not zero", "a:ERITFBUWFxgZGhscHR4fICEiIyQlJicoKSorLC0uLzB=", /"a" is not base64 with padding/],
    ["the alphabet for URLs", `a:${"_-".repeat(21)}_=`, /"a" is not base64 with padding/],
    ["white space in a key", `a:${one.slice(0, 8)} ${one.slice(8)}`, /"a" is not base64 with padding/],
    ["white space before a key", `a: ${one}`, /"a" is not base64 with padding/],
    ["an empty line", `a:${one}\n`, /entry 2/],
    ["two ids alike", `a:${one},a:${two}`, /"a" is given twice/],
    ["one key under two ids", `a:${one},b:${one}`, /"a" and "b" are the same key/],
    ["a missing primary key", `b:${one}`, /"a" is not among the master keys/],
    ["zeros", `a:${bytes(() => 0)}`, /"a" repeats one byte/],
    ["one byte repeated", `a:${bytes(() => 0xd7)}`, /"a" repeats one byte/],
    ["ascending bytes", `a:${bytes((index) => index)}`, /"a" counts up or down/],
    ["ascending bytes from elsewhere", `a:${bytes((index) => 200 + index)}`, /"a" counts up or down/],
    ["descending bytes", `a:${bytes((index) => 255 - 3 * index)}`, /"a" counts up or down/],
    ["a pattern of four", `a:${Buffer.alloc(32, "deadbeef", "hex").toString("base64")}`, /"a" repeats a pattern/],
    ["half a key twice", `a:${Buffer.alloc(32, randomBytes(16)).toString("base64")}`, /"a" repeats a pattern/],
    ["a phrase", `a:${Buffer.from("changemechangemechangemechangeme").toString("base64")}`, /"a" repeats a pattern/],
    ["another phrase", `a:${Buffer.from("correct horse battery staple 123").toString("base64")}`, /"a" is text/],
    ["a word filled up with zeros", `a:${Buffer.from("my-master-key".padEnd(32, "\0")).toString("base64")}`, /"a" is text/],
    ["16 bytes in hex", `a:${Buffer.from(randomBytes(16).toString("hex")).toString("base64")}`, /"a" is text/],
    ["few different bytes", `a:${bytes((index) => 128 + Math.floor(index / 3))}`, /"a" has too few different bytes/],
  ])("%s", (_, text, message) => {
    expect(refusal(text)).toMatch(message);
  });

  test.each<[string, string]>([
    ["nothing", ""],
    ["no colon", one],
    ["an empty id", `:${one}`],
    ["a space before an id", `a:${one}, b:${two}`],
    ["a comma at the end", `a:${one},`],
    ["an id of 33 characters", `${"x".repeat(33)}:${one}`],
    ["an id outside the alphabet", `ä:${one}`],
    ["an id that starts with a dot", `.a:${one}`],
  ])("%s is no id", (_, text) => {
    expect(refusal(text)).toMatch(/^entry [12] of the master keys does not start with an id/);
  });
});

test("no refusal shows a key, not even one that stands in the place of an id", () => {
  const hex = Buffer.from(one, "base64").toString("hex");
  const settings = [`${one}:a`, `${hex}:${one}`, `a:${one}=`, `a:${one},b:${one}`, `a:${one}x`, `b:${one}`, `${one.slice(0, -1)}:a`, hex];
  for (const text of settings) {
    for (const primaryId of ["a", one]) {
      const message = refusal(text, primaryId);
      expect(message).not.toContain(one.slice(0, 10));
      expect(message).not.toContain(hex.slice(0, 10));
    }
  }
  expect(refusal(`a:${one}`, one)).not.toContain(one.slice(0, 10));
});

test("a keyring does not print its keys", () => {
  const keyring = parseMasterKeys(`a:${one}`, "a");
  const printed = `${inspect(keyring, { depth: 9, showHidden: true })}${JSON.stringify(keyring)}`;
  expect(printed).not.toContain(one.slice(0, 10));
  expect(printed).not.toContain(Buffer.from(one, "base64").toString("hex").slice(0, 10));
});

test("keys that are published are refused: the test vectors', and whatever stands in the documentation", () => {
  for (const { id, key } of readVectors().master_keys) expect(refusal(`${id}:${key}`, id)).toMatch(/is text|is published/);
  const root = new URL("../../", import.meta.url);
  const folders = ["examples/", "deploy/", "docs/"].filter((name) => existsSync(new URL(name, root)));
  const files = folders.flatMap((name) => readdirSync(new URL(name, root), { recursive: true, withFileTypes: true }));
  const paths = files.filter((file) => file.isFile()).map((file) => `${file.parentPath}/${file.name}`);
  if (existsSync(new URL("README.md", root))) paths.push(new URL("README.md", root).pathname);
  const published = paths.flatMap((path) => readFileSync(path, "utf8").match(/(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{43}=/g) ?? []);
  for (const key of published) expect(refusal(`a:${key}`)).toMatch(/master key "a"/);
});
