import { type DescField, type DescMessage, type DescMethod, ScalarType } from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";
import type { Route } from "../rest/routes.ts";
import { spellingOf } from "../rest/spelling.ts";
import { wordsOf } from "./comments.ts";
import { exampleOf } from "./examples.ts";

/** Anything that JSON can say. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };

/** A reference to a schema of the document. */
export const refTo = (name: string): Json => ({ $ref: `#/components/schemas/${name}` });

const isStruct = (field: DescField): boolean => field.message?.typeName === "google.protobuf.Struct";
const isTimestamp = (field: DescField): boolean => field.message?.typeName === "google.protobuf.Timestamp";
const isNullable = (field: DescField): boolean => field.fieldKind !== "list" && field.presence === FeatureSet_FieldPresence.EXPLICIT;

/** Whether a request may leave a field out. */
export const isOptionalInput = (field: DescField | undefined): boolean => field !== undefined && !wordsOf(field).required;

/** The fields that JSON shows: all but what only browsers are shown. */
const shown = (message: DescMessage): readonly DescField[] => message.fields.filter((field) => field.message?.name !== "BrowserAnswer");

/** Fields that hold a UUID of ours; ids of others have other forms. */
const UUID_NAME = /^(?:id|(?:credential|user|organization|service_account|key)_id)$/;

/** Collects the schemas that a document refers to. */
export class SchemaBook {
  readonly schemas: Record<string, Json> = {};
  readonly #secrets: readonly Json[];

  /** @param secrets references to what a `credentials` object of a request may be */
  constructor(secrets: readonly Json[]) {
    this.#secrets = secrets;
  }

  /** The schema of a variable of a path. */
  pathSchema(field: DescField): Json {
    // Folded to lower case by the service.
    if (field.enum) return { type: "string", enum: [...spellingOf(field.enum).words] };
    return { type: "string", ...(UUID_NAME.test(field.name) ? { format: "uuid" } : {}) };
  }

  /** The schema of a parameter in the query string. */
  querySchema(field: DescField): Json {
    if (field.fieldKind === "list") return { type: "array", items: { type: "string" } };
    return isWholeNumber(field) ? { type: "integer", minimum: 0 } : { type: "string", ...(UUID_NAME.test(field.name) ? { format: "uuid" } : {}) };
  }

  /** The schema of a request's body: its fields without those that the path gives. */
  request(method: DescMethod, inPath: readonly DescField[]): Json {
    const fields = method.input.fields.filter((field) => !inPath.includes(field));
    const name = method.input.name;
    this.schemas[name] ??= {
      type: "object",
      description: wordsOf(method.input).text,
      properties: Object.fromEntries(fields.map((field) => [field.name, this.#input(field)])),
      required: fields.filter((field) => wordsOf(field).required).map((field) => field.name),
    };
    return refTo(name);
  }

  /** The schema of what a route answers. */
  response(route: Route): Json {
    if (route.responseBody) return this.#value(route.responseBody);
    const [shapes] = route.method.output.oneofs;
    // The flat form: which fields there are depends on the credential.
    if (shapes) return { type: "object", additionalProperties: true, anyOf: shapes.fields.map((field) => this.#flat(field)) };
    return this.#message(route.method.output);
  }

  /** An example of what a route answers. */
  example(route: Route): Json {
    const { responseBody, method } = route;
    const [shapes] = method.output.oneofs;
    if (!responseBody && shapes?.fields[0]?.message) return example(shapes.fields[0].message);
    if (!responseBody) return example(method.output);
    return responseBody.fieldKind === "list" && responseBody.message ? [example(responseBody.message)] : responseBody.message ? example(responseBody.message) : exampleOf(responseBody.name);
  }

  #input(field: DescField): Json {
    const { text, secret } = wordsOf(field);
    const about = { description: text, ...(secret ? { writeOnly: true } : {}) };
    if (isStruct(field) && field.name === "credentials") return { ...about, type: "object", writeOnly: true, anyOf: this.#secrets };
    if (field.fieldKind === "list") return { ...about, type: "array", items: this.#plain(field) };
    if (isWholeNumber(field)) return { ...about, anyOf: [{ type: "integer", minimum: 0, maximum: 0xffff_ffff }, { type: "string", pattern: "^[0-9]{1,10}$" }, ...(isNullable(field) ? [{ type: "null" }] : [])] };
    return nullable({ ...about, ...this.#plain(field) }, isNullable(field));
  }

  #value(field: DescField): Json {
    const about = { description: wordsOf(field).text };
    if (field.fieldKind === "list") return { ...about, type: "array", items: this.#plain(field) };
    const plain = this.#plain(field);
    if (field.message && !isStruct(field) && !isTimestamp(field)) return isNullable(field) && field.proto.proto3Optional ? { ...about, anyOf: [plain, { type: "null" }] } : plain;
    return nullable({ ...about, ...plain }, isNullable(field) && (field.proto.proto3Optional || field.fieldKind !== "message"));
  }

  #plain(field: DescField): { readonly [key: string]: Json } {
    if (isStruct(field)) return { type: "object", additionalProperties: true };
    if (isTimestamp(field)) return { type: "string", format: "date-time" };
    if (field.message) return this.#message(field.message) as { [key: string]: Json };
    if (field.enum) return { type: "string", enum: [...spellingOf(field.enum).words] };
    const scalar = field.fieldKind === "scalar" || field.fieldKind === "list" ? field.scalar : undefined;
    if (scalar === ScalarType.BOOL) return { type: "boolean" };
    if (scalar === ScalarType.UINT32 || scalar === ScalarType.INT32) return { type: "integer", minimum: 0 };
    // 64-bit integers are text: they may exceed what a JSON number holds.
    if (scalar === ScalarType.UINT64 || scalar === ScalarType.INT64) return { type: "string", pattern: "^[0-9]+$" };
    return { type: "string", ...(UUID_NAME.test(field.name) ? { format: "uuid" } : {}) };
  }

  #message(message: DescMessage): Json {
    const { name } = message;
    if (this.schemas[name] === undefined) {
      // Set first, so that a message within itself ends.
      this.schemas[name] = {};
      this.schemas[name] = {
        type: "object",
        description: wordsOf(message).text,
        properties: Object.fromEntries(shown(message).map((field) => [field.name, this.#value(field)])),
        required: shown(message).map((field) => field.name),
      };
    }
    return refTo(name);
  }

  /** A message that is spread into its surroundings, where empty fields are left out. */
  #flat(field: DescField): Json {
    const { message } = field;
    if (!message) throw new Error(`${field.name} is no message`);
    return { type: "object", title: message.name, description: wordsOf(message).text, properties: Object.fromEntries(message.fields.map((inner) => [inner.name, this.#value(inner)])) };
  }
}

const isWholeNumber = (field: DescField): boolean => field.fieldKind === "scalar" && field.scalar === ScalarType.UINT32;

function nullable(schema: { readonly [key: string]: Json }, isNull: boolean): Json {
  if (!isNull) return schema;
  const { type, enum: words } = schema;
  return { ...schema, type: [type as string, "null"], ...(Array.isArray(words) ? { enum: [...(words as Json[]), null] } : {}) };
}

/** An example of a message: each field by its name. */
function example(message: DescMessage): Json {
  return Object.fromEntries(
    shown(message).map((field): [string, Json] => {
      const inner = field.message && !isStruct(field) && !isTimestamp(field) ? example(field.message) : exampleOf(field.name, message.name);
      return [field.name, field.fieldKind === "list" && !Array.isArray(inner) ? [inner] : inner];
    }),
  );
}
