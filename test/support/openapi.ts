import { readFileSync } from "node:fs";
import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import fc from "fast-check";

/** A JSON Schema of the document, as far as these tests read it. */
export interface Schema {
  readonly $ref?: string;
  readonly type?: string | readonly string[];
  readonly enum?: readonly unknown[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly anyOf?: readonly Schema[];
  readonly items?: Schema;
}

/** One operation of the document. */
export interface Operation {
  readonly operationId: string;
  readonly summary: string;
  readonly parameters?: readonly { readonly name: string; readonly in: string; readonly schema: Schema; readonly example: unknown }[];
  readonly requestBody?: { readonly content: { readonly "application/json": { readonly schema: Schema; readonly examples: Readonly<Record<string, { readonly value: unknown }>> } } };
  readonly responses: Readonly<Record<string, { readonly description: string; readonly content?: { readonly "application/json": { readonly schema: Schema; readonly example: unknown } } }>>;
}

/** The committed document. */
export interface Document {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, Schema>> };
}

export const document = JSON.parse(readFileSync(new URL("../../gen/openapi.json", import.meta.url), "utf8")) as Document;

/** Every operation, with its method in capitals and its path as a template. */
export const operations = Object.entries(document.paths).flatMap(([path, verbs]) => Object.entries(verbs).map(([verb, operation]) => ({ verb: verb.toUpperCase(), path, operation })));

const ajv = new Ajv2020({ strict: false, allErrors: true });
// Types and module system of the package disagree about its default export.
(addFormats as unknown as (it: Ajv2020) => void)(ajv);
ajv.addSchema({ $id: "document", components: document.components });
const compiled = new Map<Schema, ValidateFunction>();

/** What is wrong with a value; empty where it fits. */
export function faultsOf(schema: Schema, value: unknown): string[] {
  const validate = compiled.get(schema) ?? ajv.compile(absolute(schema));
  compiled.set(schema, validate);
  return validate(value) ? [] : (validate.errors ?? []).map(({ instancePath, message = "" }) => `${instancePath} ${message}`);
}

const absolute = (schema: Schema): object => JSON.parse(JSON.stringify(schema).replaceAll('"#/components/', '"document#/components/')) as object;

const found = (schema: Schema): Schema => (schema.$ref === undefined ? schema : (document.components.schemas[schema.$ref.split("/").at(-1) ?? ""] as Schema));

/** What nobody should send. */
const ODD = fc.oneof(fc.constant(null), fc.boolean(), fc.integer(), fc.double(), fc.string({ maxLength: 40 }), fc.constant("\0"), fc.constant("\ud800"), fc.array(fc.string(), { maxLength: 3 }), fc.dictionary(fc.string({ maxLength: 8 }), fc.string({ maxLength: 8 }), { maxKeys: 3 }));

/** Values that a schema describes, and now and then one that it does not. */
export function valuesOf(schema: Schema): fc.Arbitrary<unknown> {
  return fc.oneof({ weight: 12, arbitrary: fitting(found(schema)) }, { weight: 1, arbitrary: ODD });
}

function fitting(schema: Schema): fc.Arbitrary<unknown> {
  if (schema.enum) return fc.constantFrom(...schema.enum);
  if (schema.properties) {
    const required = new Set(schema.required ?? []);
    const entries = Object.entries(schema.properties).map(([name, inner]) => [name, valuesOf(inner), required.has(name)] as const);
    // What is required is missing now and then, too.
    return fc.tuple(...entries.map(([name, values, must]) => fc.option(values, { nil: undefined, freq: must ? 20 : 1 }).map((value) => [name, value] as const))).map((pairs) => Object.fromEntries(pairs.filter(([, value]) => value !== undefined)));
  }
  if (schema.anyOf) return fc.oneof(...schema.anyOf.map(valuesOf));
  const [type] = [schema.type].flat();
  if (type === "array") return fc.array(valuesOf(schema.items ?? {}), { maxLength: 3 });
  if (type === "object") return fc.dictionary(fc.string({ maxLength: 12 }), fc.oneof(fc.string({ maxLength: 20 }), fc.integer()), { maxKeys: 4 });
  if (type === "integer" || type === "number") return fc.integer({ min: 0, max: 70_000 });
  if (type === "boolean") return fc.boolean();
  return type === "null" ? fc.constant(null) : fc.string({ maxLength: 60 });
}
