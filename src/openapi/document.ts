import type { DescMethod, FileRegistry } from "@bufbuild/protobuf";
import { browserAnswerField } from "../rest/browser.ts";
import { compileRoutes, type Route } from "../rest/routes.ts";
import { wordsOf } from "./comments.ts";
import { errorSchemas, errorsOf } from "./errors.ts";
import { exampleOf, requestExamples } from "./examples.ts";
import { bodyRefs, credentialSchemas } from "./secrets.ts";
import { isOptionalInput, type Json, SchemaBook } from "./schemas.ts";

/** An API reference: OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.0). */
export type OpenApi = { readonly [key: string]: Json };

const ABOUT = [
  "Stores integration credentials of an organization, tests them, and hands them to the machines that run its flows.",
  "Every path is served under `/api` too. Unknown fields of a request are ignored; responses may gain fields.",
  "Every answer carries `X-Request-ID`, a ULID; one that a request brings in that form is kept. Texts never repeat a value of a request.",
].join("\n\n");

/**
 * Describes every annotated RPC as REST serves it. Everything is derived: paths and messages from the descriptors, texts from their comments, the `credentials`
 * objects from the providers' schemas, statuses from the table of reasons. Throws where an operation or a message has no example.
 *
 * @param registry descriptors with their comments
 */
export function describeApi(registry: FileRegistry, version: string): OpenApi {
  const book = new SchemaBook(bodyRefs());
  const paths: Record<string, Record<string, Json>> = {};
  for (const { template, routes } of compileRoutes(registry, [])) {
    paths[template] = Object.fromEntries([...routes.values()].map((route) => [route.verb.toLowerCase(), operation(book, route)]));
  }
  return {
    openapi: "3.1.0",
    info: { title: "flow-credentials", version, description: ABOUT, license: { name: "Apache-2.0", identifier: "Apache-2.0" } },
    servers: [{ url: "/" }, { url: "/api" }],
    security: [{ bearer: [] }, { apiKey: [] }],
    tags: servicesIn(paths, registry),
    paths: Object.fromEntries(Object.entries(paths).sort(([a], [b]) => (a < b ? -1 : 1))),
    components: {
      securitySchemes: {
        bearer: { type: "http", scheme: "bearer", bearerFormat: "JWT", description: "A token of the platform's issuer, or an API key of a service account" },
        apiKey: { type: "apiKey", in: "header", name: "X-API-Key", description: "An API key of a service account, `saf_…`" },
      },
      schemas: { ...credentialSchemas(), ...errorSchemas(), ...book.schemas },
    },
  };
}

const tagOf = (method: DescMethod): string => method.parent.name.replace(/Service$/, "");

function servicesIn(paths: Readonly<Record<string, Record<string, Json>>>, registry: FileRegistry): Json[] {
  const used = new Set(Object.values(paths).flatMap((verbs) => Object.values(verbs).flatMap((it) => (it as { tags: string[] }).tags)));
  const services = [...registry.files].flatMap((file) => file.services);
  return services.filter((service) => used.has(service.name.replace(/Service$/, ""))).map((service) => ({ name: service.name.replace(/Service$/, ""), description: wordsOf(service).text }));
}

function operation(book: SchemaBook, route: Route): Json {
  const { method } = route;
  const { summary, text } = wordsOf(method);
  const inPath = route.segments.flatMap((segment) => ("field" in segment ? [segment.field] : []));
  // An RPC that several paths lead to is one operation for each.
  const suffix = method.input.fields.length > 0 && inPath.length > 0 && !route.body && isOptionalInput(inPath[0]) ? `By${inPath.map(({ localName }) => capital(localName)).join("")}` : "";
  const parameters = [
    ...inPath.map((field) => ({ name: field.name, in: "path", required: true, description: wordsOf(field).text, schema: book.pathSchema(field), example: exampleOf(field.name) })),
    ...route.query.map((field) => ({ name: field.name, in: "query", required: false, description: wordsOf(field).text, schema: book.querySchema(field) })),
    ...(/^(?:Create|Update|Delete|Rollback|Set|Revoke)/.test(method.name) ? [IDEMPOTENCY_KEY] : []),
  ];
  return {
    operationId: `${method.localName}${suffix}`,
    tags: [tagOf(method)],
    summary,
    description: text,
    ...(parameters.length > 0 ? { parameters } : {}),
    ...(route.body ? { requestBody: { required: true, content: { "application/json": { schema: book.request(method, inPath), examples: requestExamples(method.name) } } } } : {}),
    responses: { ...success(book, route), ...errorsOf(route) },
  };
}

/** Every write takes it. */
const IDEMPOTENCY_KEY = {
  name: "Idempotency-Key", in: "header", required: false, schema: { type: "string", minLength: 1, maxLength: 255 },
  description: "For 24 hours, the same request under the same key takes effect once and is answered as it was then; another request under it is a 409",
};

const capital = (word: string): string => `${word.slice(0, 1).toUpperCase()}${word.slice(1)}`;

const REQUEST_ID = { "X-Request-ID": { description: "ULID of the request", schema: { type: "string", pattern: "^[0-9A-HJKMNP-TV-Z]{26}$" } } };

/** The answer of a call that succeeds; the statuses are those of `presentResponse`. */
function success(book: SchemaBook, route: Route): Record<string, Json> {
  const { method } = route;
  if (method.output.fields.length === 0) return { 204: { description: "Done", headers: REQUEST_ID } };
  const created = route.verb === "POST" && method.name.startsWith("Create");
  const schema = book.response(route);
  const onward: Record<string, Json> = browserAnswerField(method) ? { 302: { description: "A browser (`Accept: text/html`) goes on, or is shown a page with one of the other statuses", headers: REQUEST_ID } } : {};
  const headers = created ? { ...REQUEST_ID, Location: { description: "Path of what was created", schema: { type: "string" } } } : REQUEST_ID;
  return { ...onward, [created ? 201 : 200]: { description: created ? "Created" : "OK", headers, content: { "application/json": { schema, example: book.example(route) } } } };
}

