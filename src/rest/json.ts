import type { JsonValue } from "@bufbuild/protobuf";
import { createScanner } from "jsonc-parser";

/** Bounds of one JSON text. */
export interface JsonLimits {
  /** Deepest nesting of objects and arrays. */
  readonly maxDepth: number;
  /** Most members over all objects and elements over all arrays together. */
  readonly maxKeys: number;
}

/** A JSON text as a value, or why it is refused: a fixed sentence that quotes nothing of the text. */
export type JsonText = { readonly value: JsonValue } | { readonly refused: string };

/** Names that lead to an object's prototype in JavaScript. */
const PROTOTYPE_KEYS: ReadonlySet<string> = new Set(["__proto__", "constructor", "prototype"]);

/** The scanner's numbers for the tokens of JSON; it declares them as an enum that is gone once compiled. */
const OPEN_BRACE = 1;
const CLOSE_BRACE = 2;
const OPEN_BRACKET = 3;
const CLOSE_BRACKET = 4;
const COLON = 6;
const [NULL, TRUE, FALSE, TEXT, NUMBER] = [7, 8, 9, 10, 11];
const END = 17;

/** Tokens with which a value begins; the key of a member is a text like any other. */
const BEGINNINGS: ReadonlySet<number | undefined> = new Set([OPEN_BRACE, OPEN_BRACKET, NULL, TRUE, FALSE, TEXT, NUMBER]);

/**
 * Counts the keys of a text and holds it to its limits, before anything is made of it and without recursion: what is
 * hidden behind a repeated key counts too. Whether it is JSON at all is not decided here.
 */
function measure(text: string, limits: JsonLimits): { refused: string } | { keys: number } {
  const scanner = createScanner(text, true);
  let depth = 0;
  let keys = 0;
  // Every value but the outermost is an element, or one of the two that make a member: its key and what stands after it.
  let entries = -1;
  for (let token: number = scanner.scan(); token !== END; token = scanner.scan()) {
    if (BEGINNINGS.has(token)) entries += 1;
    if (token === OPEN_BRACE || token === OPEN_BRACKET) depth += 1;
    else if (token === CLOSE_BRACE || token === CLOSE_BRACKET) depth -= 1;
    else if (token === COLON) {
      keys += 1;
      entries -= 1;
    }
    if (depth > limits.maxDepth) return { refused: `JSON should not be nested deeper than ${limits.maxDepth} levels` };
    if (entries > limits.maxKeys) return { refused: `JSON should not have more than ${limits.maxKeys} keys` };
  }
  return { keys };
}

/** Counts the keys of a value and looks for what it must not hold; without recursion, like everything else here. */
function inspect(root: unknown): { refused: string } | { keys: number } {
  const pending = [root];
  let keys = 0;
  while (pending.length > 0) {
    const value = pending.pop();
    if (typeof value === "string" && !value.isWellFormed()) return { refused: "JSON text should be valid Unicode" };
    if (typeof value === "number" && !Number.isFinite(value)) return { refused: "JSON numbers should be finite" };
    if (typeof value !== "object" || value === null) continue;
    const members = Object.entries(value);
    if (!Array.isArray(value)) {
      keys += members.length;
      if (members.some(([key]) => PROTOTYPE_KEYS.has(key))) return { refused: "JSON keys should not name an object's prototype" };
      if (members.some(([key]) => !key.isWellFormed())) return { refused: "JSON text should be valid Unicode" };
    }
    for (const [, member] of members) pending.push(member);
  }
  return { keys };
}

/**
 * Reads a JSON text (RFC 8259), strictly: UTF-8 without a byte order mark, unique keys, finite numbers, bounded depth
 * and size, and no key that could reach a prototype. The engine alone keeps the last of several equal keys silently.
 */
export function parseJson(bytes: Uint8Array, limits: JsonLimits): JsonText {
  let written: ReturnType<typeof measure>;
  let value: JsonValue;
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    written = measure(text, limits);
    if ("refused" in written) return written;
    value = JSON.parse(text) as JsonValue;
  } catch {
    return { refused: "JSON decode error" };
  }
  const inspected = inspect(value);
  if ("refused" in inspected) return inspected;
  return written.keys === inspected.keys ? { value } : { refused: "JSON keys should be unique" };
}
