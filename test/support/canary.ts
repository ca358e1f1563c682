import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";

/** A value that occurs nowhere by chance, to be planted as a secret and then looked for. */
export const canary = (name: string): string => `canary-${name}-${randomBytes(12).toString("hex")}`;

/** The forms in which a value could surface: plain, reversed, hex, base64 at each alignment, percent-encoded, UTF-16. */
export function encodings(value: string): Map<string, Buffer> {
  const bytes = Buffer.from(value);
  const forms = new Map<string, Buffer>([
    ["plain", bytes],
    ["reversed", Buffer.from(value.split("").reverse().join(""))],
    ["hex", Buffer.from(bytes.toString("hex"))],
    ["upper-case hex", Buffer.from(bytes.toString("hex").toUpperCase())],
    ["percent", Buffer.from([...bytes].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join(""))],
    ["UTF-16", Buffer.from(value, "utf16le")],
  ]);
  for (const offset of [0, 1, 2]) {
    const text = Buffer.concat([Buffer.alloc(offset), bytes]).toString("base64");
    // The first and last characters mix with the neighbours; what is between them must not occur.
    const core = text.slice(4, text.length - 4);
    forms.set(`base64 at ${offset}`, Buffer.from(core));
    forms.set(`base64url at ${offset}`, Buffer.from(core.replaceAll("+", "-").replaceAll("/", "_")));
  }
  return forms;
}

/** Names the forms of the planted values that occur in some bytes; empty when nothing leaked. */
export function leaks(planted: readonly string[], where: string, bytes: Buffer): string[] {
  return planted.flatMap((value) => [...encodings(value)].filter(([, form]) => bytes.includes(form)).map(([form]) => `${value} as ${form} in ${where}`));
}

/** The same, over every file below a folder. */
export function leaksBelow(planted: readonly string[], folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => join(folder, name))
    .filter((path) => statSync(path, { throwIfNoEntry: false })?.isFile())
    .flatMap((path) => leaks(planted, path, readFileSync(path)));
}
