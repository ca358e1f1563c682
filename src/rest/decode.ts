import { create, type DescEnum, type DescField, fromJson, type JsonObject, type JsonValue, toBinary } from "@bufbuild/protobuf";
import { reflect, reflectList } from "@bufbuild/protobuf/reflect";
import { TimestampSchema } from "@bufbuild/protobuf/wkt";
import { browserField, type BrowserFacts, browserMessage } from "./browser.ts";
import type { JsonText } from "./json.ts";
import { isFlag, isList, isWhole, type Route } from "./routes.ts";
import { spellingOf } from "./spelling.ts";

/** One fault of a request, as it is reported to the service in `x-rest-faults-bin`. Never holds a value of the request. */
export interface Fault {
  readonly in: "path" | "body";
  /** Path of the field, outermost first; empty for the body itself. */
  readonly path: readonly string[];
  /** Kind of fault as a stable lower-case word. */
  readonly type: string;
  /** A sentence for people. */
  readonly message: string;
}

/** A request message, with whatever could be read, and the faults of what could not. */
export interface Decoded {
  readonly bytes: Uint8Array;
  readonly faults: readonly Fault[];
}

const MAX_UINT32 = 0xffff_ffff;

type Refusal = Pick<Fault, "type" | "message">;
type Value = { readonly value: unknown } | { readonly refused: Refusal };

const refuse = (type: string, message: string): Value => ({ refused: { type, message } });

const isObject = (value: JsonValue): value is JsonObject => typeof value === "object" && value !== null && !Array.isArray(value);

/** `'a', 'b' or 'c'`. */
function oneOf(words: readonly string[]): string {
  const quoted = words.map((word) => `'${word}'`);
  const last = quoted.pop() ?? "";
  return quoted.length === 0 ? last : `${quoted.join(", ")} or ${last}`;
}

function decodeEnum(field: { readonly enum: DescEnum }, value: JsonValue): Value {
  const { words, number } = spellingOf(field.enum);
  const found = typeof value === "string" ? number(value) : undefined;
  return found === undefined ? refuse("enum", `Input should be ${oneOf(words)}`) : { value: found };
}

/** Reads one field of a kind that routes are made for. */
function decodeField(field: DescField, value: JsonValue): Value {
  if (field.fieldKind === "enum") return decodeEnum(field, value);
  if (isList(field)) return decodeList(field, value);
  if (isFlag(field)) return typeof value === "boolean" ? { value } : refuse("bool_type", "Input should be a valid boolean");
  if (field.fieldKind === "message" && field.message.typeName === TimestampSchema.typeName) return decodeTime(value);
  if (field.fieldKind === "message") {
    if (!isObject(value)) return refuse("dict_type", "Input should be a valid dictionary");
    return { value: reflect(field.message, fromJson(field.message, value)) };
  }
  if (isWhole(field)) return decodeWhole(value);
  return typeof value === "string" ? { value } : refuse("string_type", "Input should be a valid string");
}

/** A list whose items are all good. */
function decodeList(field: DescField & { fieldKind: "list" }, value: JsonValue): Value {
  if (!Array.isArray(value)) return refuse("list_type", "Input should be a valid list");
  const items = value.map((item): Value => {
    if (field.listKind === "enum") return decodeEnum(field, item);
    return typeof item === "string" ? { value: item } : refuse("string_type", "Every item should be a valid string");
  });
  const bad = items.find((item) => "refused" in item);
  return bad ?? { value: reflectedList(field, items) };
}

/** A list in the form in which a message takes it. */
function reflectedList(field: DescField & { fieldKind: "list" }, items: readonly Value[]) {
  const list = reflectList(field);
  for (const item of items) if ("value" in item) list.add(item.value);
  return list;
}

/** A time with its offset (RFC 3339). */
function decodeTime(value: JsonValue): Value {
  const wrong = refuse("datetime_parsing", "Input should be a valid datetime with an offset, such as 2030-01-31T12:00:00Z");
  if (typeof value !== "string") return wrong;
  try {
    return { value: reflect(TimestampSchema, fromJson(TimestampSchema, value)) };
  } catch {
    return wrong;
  }
}

/** A whole number, or a text of digits: callers write ports both ways. */
function decodeWhole(value: JsonValue): Value {
  const number = typeof value === "string" && /^\d{1,10}$/.test(value) ? Number(value) : value;
  return typeof number === "number" && Number.isInteger(number) && number >= 0 && number <= MAX_UINT32
    ? { value: number }
    : refuse("int_parsing", "Input should be a valid whole number");
}

/** Whether null stands for "not given": where a field is `optional`, or is a scalar whose zero value means the same. */
const nullIsAbsent = (field: DescField): boolean => field.fieldKind === "scalar" || field.fieldKind === "list" || field.proto.proto3Optional;

function decodePath(field: DescField, encoded: string): Value {
  let text: string;
  try {
    text = decodeURIComponent(encoded);
  } catch {
    return refuse("string_unicode", "Input should be a valid string, unable to parse raw data as a unicode string");
  }
  // Only ASCII letters are folded: the Kelvin sign, for one, would fold into "k".
  return decodeField(field, field.fieldKind === "enum" ? text.replace(/[A-Z]/g, (letter) => letter.toLowerCase()) : text);
}

type Setter = (field: DescField, value: Value) => void;

/** Sets every field that the body gives; a fault of the body as a whole is returned. */
function decodeBody(route: Route, body: JsonText | undefined, bound: ReadonlyMap<string, string>, set: Setter): Refusal | undefined {
  if (body === undefined) return { type: "missing", message: "Field required" };
  if ("refused" in body) return { type: "json_invalid", message: body.refused };
  if (!isObject(body.value)) return { type: "model_attributes_type", message: "Input should be a valid dictionary or object to extract fields from" };
  for (const field of route.method.input.fields) {
    const value = Object.hasOwn(body.value, field.name) ? body.value[field.name] : undefined;
    if (value === undefined || bound.has(field.name) || (value === null && nullIsAbsent(field))) continue;
    set(field, decodeField(field, value));
  }
  return undefined;
}

/**
 * Makes the request message of a route. Fields go by their documented names only; unknown ones are left out, and a
 * field that the path binds is never read from the body.
 *
 * @param params variables of the path, still percent-encoded
 * @param query what follows the question mark
 * @param browser what a browser brings, for a request that asks for it
 * @param body the body as JSON; undefined where there is none. Not read for a route without a body.
 */
export function decodeRequest(route: Route, params: ReadonlyMap<string, string>, body: JsonText | undefined, query = "", browser?: BrowserFacts): Decoded {
  const message = reflect(route.method.input, create(route.method.input));
  const faults: Fault[] = [];
  const into = (where: Fault["in"]): Setter => (field, decoded) => {
    if ("value" in decoded) message.set(field, decoded.value);
    else faults.push({ in: where, path: [field.name], ...decoded.refused });
  };
  for (const segment of route.segments) {
    if ("field" in segment) into("path")(segment.field, decodePath(segment.field, params.get(segment.field.name) ?? ""));
  }
  if (route.body) {
    const refused = decodeBody(route, body, params, into("body"));
    if (refused) faults.push({ in: "body", path: [], ...refused });
  }
  const asked = new URLSearchParams(query);
  for (const field of route.query) {
    const [value, ...more] = asked.getAll(field.name);
    if (value === undefined) continue;
    if (isList(field)) into("body")(field, decodeList(field, [value, ...more]));
    else if (more.length > 0) into("body")(field, refuse(isWhole(field) ? "int_parsing" : "string_type", "Input should be given once"));
    else into("body")(field, isWhole(field) ? decodeWhole(value) : { value: value.toWellFormed() });
  }
  const field = browser && browserField(route.method);
  if (browser && field) message.set(field, browserMessage(field, browser));
  return { bytes: toBinary(route.method.input, message.message), faults };
}
