import type { JsonValue } from "@bufbuild/protobuf";
import { visit } from "jsonc-parser";

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

/** Counts what a value holds and looks for what it must not hold; without recursion, since depth is not yet known. */
function inspect(root: unknown, limits: JsonLimits): { refused: string } | { keys: number } {
  const pending = [{ value: root, depth: 1 }];
  let keys = 0;
  let entries = 0;
  for (let next = pending.pop(); next; next = pending.pop()) {
    const { value, depth } = next;
    if (typeof value === "string" && !value.isWellFormed()) return { refused: "JSON text should be valid Unicode" };
    if (typeof value === "number" && !Number.isFinite(value)) return { refused: "JSON numbers should be finite" };
    if (typeof value !== "object" || value === null) continue;
    if (depth > limits.maxDepth) return { refused: `JSON should not be nested deeper than ${limits.maxDepth} levels` };
    const members = Object.entries(value);
    entries += members.length;
    if (entries > limits.maxKeys) return { refused: `JSON should not have more than ${limits.maxKeys} keys` };
    if (!Array.isArray(value)) {
      keys += members.length;
      if (members.some(([key]) => PROTOTYPE_KEYS.has(key))) return { refused: "JSON keys should not name an object's prototype" };
      if (members.some(([key]) => !key.isWellFormed())) return { refused: "JSON text should be valid Unicode" };
    }
    for (const [, member] of members) pending.push({ value: member, depth: depth + 1 });
  }
  return { keys };
}

/**
 * Reads a JSON text (RFC 8259), strictly: UTF-8 without a byte order mark, unique keys, finite numbers, bounded depth
 * and size, and no key that could reach a prototype. The engine alone keeps the last of several equal keys silently.
 */
export function parseJson(bytes: Uint8Array, limits: JsonLimits): JsonText {
  let text: string;
  let value: JsonValue;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    value = JSON.parse(text) as JsonValue;
  } catch {
    return { refused: "JSON decode error" };
  }
  const inspected = inspect(value, limits);
  if ("refused" in inspected) return inspected;
  let written = 0;
  visit(text, {
    onObjectProperty: () => {
      written += 1;
    },
  });
  return written === inspected.keys ? { value } : { refused: "JSON keys should be unique" };
}
