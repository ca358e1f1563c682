import { MAX_SECRET_BYTES, type SecretDocument } from "../domain/credential.ts";
import { fail } from "../domain/errors.ts";
import { UnreadableError } from "./unreadable.ts";

const SCHEMA = 1;
const HEADER_BYTES = 5;
const BUCKET_BYTES = 256;
/** Deepest nesting of arrays and objects, the document itself included. */
const MAX_DEPTH = 100;
const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * The plaintext of a sealed secret:
 *
 *     schema u8 = 1 | length u32, big-endian | JSON text of that many bytes | zero bytes
 *
 * The whole is padded to the next multiple of 256 bytes, so that the size of a sealed value tells a bucket and not the
 * length of a password. The JSON text is at most MAX_SECRET_BYTES of UTF-8 and canonical as RFC 8785 describes: no white
 * space, members sorted by UTF-16 code units, numbers and strings as ECMAScript writes them. It goes beyond RFC 8785 in
 * one point: a lone surrogate is kept, as the escape `\udXXX` that ECMAScript gives it, and never becomes U+FFFD.
 *
 * Members that are undefined are left out. Throws INVALID_CREDENTIALS for a document that is too large or nested too
 * deeply, and TypeError for what JSON cannot say. The caller wipes what it gets.
 */
export function encodeDocument(document: SecretDocument): Buffer {
  const json = Buffer.from(canonicalJson(document, 1), "utf8");
  if (json.length > MAX_SECRET_BYTES) throw refused(`The secret is larger than ${MAX_SECRET_BYTES} bytes of JSON text`);
  const plaintext = Buffer.alloc(paddedBytes(json.length));
  plaintext.writeUInt8(SCHEMA, 0);
  plaintext.writeUInt32BE(json.length, 1);
  json.copy(plaintext, HEADER_BYTES);
  json.fill(0);
  return plaintext;
}

/** Reads the plaintext of a sealed secret. Throws UnreadableError `malformed_document`. */
export function decodeDocument(plaintext: Buffer): SecretDocument {
  if (plaintext.length < HEADER_BYTES || plaintext.readUInt8(0) !== SCHEMA) throw new UnreadableError("malformed_document");
  const jsonBytes = plaintext.readUInt32BE(1);
  const end = HEADER_BYTES + jsonBytes;
  const sized = jsonBytes <= MAX_SECRET_BYTES && plaintext.length === paddedBytes(jsonBytes);
  const padded = sized && plaintext.subarray(end).equals(Buffer.alloc(plaintext.length - end));
  const document = padded ? parseJson(plaintext.subarray(HEADER_BYTES, end)) : undefined;
  if (!isObject(document)) throw new UnreadableError("malformed_document");
  return document;
}

const paddedBytes = (jsonBytes: number): number => Math.ceil((HEADER_BYTES + jsonBytes) / BUCKET_BYTES) * BUCKET_BYTES;

const isObject = (value: unknown): value is SecretDocument => typeof value === "object" && value !== null && !Array.isArray(value);

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(strictUtf8.decode(bytes));
  } catch {
    // The parser's message quotes the text, which is a secret: it goes no further.
    return undefined;
  }
}

function canonicalJson(value: unknown, depth: number): string {
  if (value === null || typeof value === "string" || typeof value === "boolean") return JSON.stringify(value);
  if (typeof value === "number" && Number.isFinite(value)) return JSON.stringify(value);
  if (depth > MAX_DEPTH) throw refused(`The secret is nested deeper than ${MAX_DEPTH} levels`);
  if (Array.isArray(value)) return `[${Array.from(value, (item) => canonicalJson(item, depth + 1)).join(",")}]`;
  if (!isPlain(value)) throw new TypeError("a secret document holds a value that JSON cannot say");
  const members = Object.keys(value)
    .filter((name) => value[name] !== undefined)
    .sort()
    .map((name) => `${JSON.stringify(name)}:${canonicalJson(value[name], depth + 1)}`);
  return `{${members.join(",")}}`;
}

/** An object literal, or one without a prototype. A Date or a Map would silently become something else. */
function isPlain(value: unknown): value is SecretDocument {
  if (!isObject(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

const refused = (message: string) => fail("INVALID_CREDENTIALS", { violations: [{ in: "body", path: ["credentials"], type: "value_error", message }] });
