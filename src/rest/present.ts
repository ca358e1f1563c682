import { type DescField, type DescOneof, isMessage, type JsonObject, type JsonValue, type Message, toJson } from "@bufbuild/protobuf";
import { isReflectMessage, reflect, type ReflectMessage } from "@bufbuild/protobuf/reflect";
import { FeatureSet_FieldPresence, timestampDate, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { type Answer, jsonAnswer } from "./answer.ts";
import type { Route } from "./routes.ts";
import { spellingOf } from "./spelling.ts";

/** What only browsers are shown. */
const BROWSER_ANSWER = "flow.credentials.v1.BrowserAnswer";

function presentMessage(message: ReflectMessage): JsonValue {
  if (isMessage(message.message, TimestampSchema)) return timestampDate(message.message).toISOString();
  if (message.desc.typeName === "google.protobuf.Struct") return toJson(message.desc, message.message);
  return Object.fromEntries(message.fields.filter((field) => field.message?.typeName !== BROWSER_ANSWER).map((field) => [field.name, presentField(message, field)]));
}

/** A value as JSON: enums in their REST spelling, 64-bit integers as text (they may exceed 2^53). */
function presentValue(field: DescField, value: unknown): JsonValue {
  if (isReflectMessage(value)) return presentMessage(value);
  if (field.enum && typeof value === "number") return spellingOf(field.enum).word(value) ?? null;
  if (typeof value === "bigint") return value.toString();
  if (typeof value === "string" || typeof value === "number" || typeof value === "boolean") return value;
  throw new Error(`the response field ${field.name} has no JSON form`);
}

/** A field as JSON. One that can be unset and is becomes null, so that every documented key is always there. */
function presentField(message: ReflectMessage, field: DescField): JsonValue {
  if (field.fieldKind === "list") return [...message.get(field)].map((item) => presentValue(field, item));
  if (field.presence === FeatureSet_FieldPresence.EXPLICIT && !message.isSet(field)) return null;
  return presentValue(field, message.get(field));
}

/**
 * The flat form of a response that holds a secret as one of several shapes: the fields of the shape that is set, empty
 * ones left out, beside the keys of every free-form object of the response. A field of the shape wins over such a key.
 */
function presentChosen(message: ReflectMessage, shapes: DescOneof): JsonObject {
  const flat = new Map<string, JsonValue>();
  for (const field of message.fields) {
    if (field.message?.typeName !== "google.protobuf.Struct" || !message.isSet(field)) continue;
    for (const [key, value] of Object.entries(presentField(message, field) as JsonObject)) flat.set(key, value as JsonValue);
  }
  const chosen = message.oneofCase(shapes);
  const shape = chosen && message.get(chosen);
  if (isReflectMessage(shape)) {
    for (const field of shape.fields) if (shape.isSet(field)) flat.set(field.name, presentField(shape, field));
  }
  return Object.fromEntries(flat);
}

/** The body of a response: the field that the route unwraps, else the flat form of a response with shapes, else the whole message. */
function presentBody(route: Route, message: ReflectMessage): JsonValue {
  if (route.responseBody) return presentField(message, route.responseBody);
  const [shapes] = route.method.output.oneofs;
  return shapes ? presentChosen(message, shapes) : presentMessage(message);
}

/**
 * The answer to a call that succeeded: 204 where the response message has no fields; 201 with a Location for a POST to
 * an RPC named `Create…`; else 200.
 *
 * @param path the path that was asked for, to which the id of what was created is appended
 */
export function presentResponse(route: Route, response: Message, path: string): Answer {
  if (route.method.output.fields.length === 0) return { status: 204, headers: {}, body: undefined };
  const body = presentBody(route, reflect(route.method.output, response));
  if (route.verb !== "POST" || !route.method.name.startsWith("Create")) return jsonAnswer(200, body);
  const id = typeof body === "object" && body !== null && !Array.isArray(body) ? body.id : undefined;
  return jsonAnswer(201, body, typeof id === "string" ? { location: `${path}/${encodeURIComponent(id)}` } : {});
}
