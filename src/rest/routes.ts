import { type DescField, type DescMethod, type FileRegistry, getOption, hasOption, ScalarType } from "@bufbuild/protobuf";

/** One part of a path between slashes: a literal, or a variable bound to a field of the request message. */
type Segment = { readonly literal: string } | { readonly field: DescField };

/** One annotated binding of an RPC (`google.api.http`). */
export interface Route {
  readonly verb: string;
  /** The path as annotated, for logs. */
  readonly template: string;
  readonly segments: readonly Segment[];
  readonly method: DescMethod;
  /** Whether the request body is read into the fields that the path does not bind (`body: "*"`). */
  readonly body: boolean;
  /** Fields of the request that the query string may give: whole numbers, where a route has no body, and for GET texts and lists of texts. */
  readonly query: readonly DescField[];
  /** The field of the response that becomes the response body; undefined for the whole response. */
  readonly responseBody: DescField | undefined;
}

/** All routes of one path template. */
export interface Resource {
  readonly template: string;
  readonly segments: readonly Segment[];
  readonly routes: ReadonlyMap<string, Route>;
}

/** What a method and a path lead to. Values in `params` are still percent-encoded, by field name. */
export type Found =
  | { readonly kind: "route"; readonly route: Route; readonly params: ReadonlyMap<string, string> }
  | { readonly kind: "wrong_method"; readonly template: string; readonly allow: readonly string[] }
  | { readonly kind: "unknown" };

/** The message `google.api.HttpRule`, as far as routes read it. */
interface HttpRule {
  readonly pattern: { readonly case: string | undefined; readonly value?: unknown };
  readonly body: string;
  readonly responseBody: string;
  readonly additionalBindings: readonly HttpRule[];
}

const VERBS: Readonly<Record<string, string>> = { get: "GET", put: "PUT", post: "POST", delete: "DELETE", patch: "PATCH" };

/** A prefix under which every path is served as well. */
const PREFIX = "/api";

const isText = (field: DescField | undefined): boolean => field?.fieldKind === "scalar" && field.scalar === ScalarType.STRING;

/** Whether a field is a whole number. */
export const isWhole = (field: DescField): boolean => field.fieldKind === "scalar" && field.scalar === ScalarType.UINT32;

/** Messages that JSON writes in a form of their own: a free-form object, and a time as text. */
const READABLE_MESSAGES: readonly string[] = ["google.protobuf.Struct", "google.protobuf.Timestamp"];

/** Whether a field is true or false. */
export const isFlag = (field: DescField): boolean => field.fieldKind === "scalar" && field.scalar === ScalarType.BOOL;

/** Whether a field is a list of enums or of texts. */
export const isList = (field: DescField): field is DescField & { fieldKind: "list" } =>
  field.fieldKind === "list" && (field.listKind === "enum" || (field.listKind === "scalar" && field.scalar === ScalarType.STRING));

/** Whether REST can read a field of a request from JSON: an enum, a text, a whole number, a flag, a list, a time, a free-form object. */
function isReadable(field: DescField): boolean {
  if (field.fieldKind === "enum" || isText(field) || isWhole(field) || isFlag(field) || isList(field)) return true;
  return field.fieldKind === "message" && READABLE_MESSAGES.includes(field.message.typeName);
}

function compileSegment(text: string, method: DescMethod): Segment {
  const variable = /^\{([a-z][a-z0-9_]*)\}$/.exec(text)?.[1];
  if (variable === undefined) {
    if (!/^[A-Za-z0-9._~-]+$/.test(text)) throw new Error(`${method.name}: a path segment is neither a literal nor {field}`);
    return { literal: text };
  }
  const field = method.input.fields.find(({ name }) => name === variable);
  if (field && (field.fieldKind === "enum" || isText(field))) return { field };
  throw new Error(`${method.name}: the path variable ${variable} is no string or enum field of the request`);
}

function compileRule(rule: HttpRule, method: DescMethod): Route {
  if (method.methodKind !== "unary") throw new Error(`${method.name}: only unary RPCs can be annotated`);
  const verb = VERBS[rule.pattern.case ?? ""];
  const template = rule.pattern.value;
  if (verb === undefined || typeof template !== "string") throw new Error(`${method.name}: the binding has no supported HTTP method`);
  if (rule.body !== "" && rule.body !== "*") throw new Error(`${method.name}: a body is bound whole or not at all`);
  const unreadable = rule.body === "*" ? method.input.fields.find((field) => !isReadable(field)) : undefined;
  if (unreadable) throw new Error(`${method.name}: the field ${unreadable.name} cannot be read from JSON`);
  const responseBody = method.output.fields.find(({ name }) => name === rule.responseBody);
  if (rule.responseBody !== "" && responseBody === undefined) throw new Error(`${method.name}: response_body names no field`);
  const segments = template.slice(1).split("/").map((text) => compileSegment(text, method));
  const inPath = segments.flatMap((segment) => ("field" in segment ? [segment.field] : []));
  const inQuery = (field: DescField) => isWhole(field) || (verb === "GET" && (isText(field) || (isList(field) && field.listKind === "scalar")));
  const query = rule.body === "*" ? [] : method.input.fields.filter((field) => inQuery(field) && !inPath.includes(field));
  return { verb, template, segments, method, body: rule.body === "*", query, responseBody };
}

/** Literal segments before variables, from the left, so that the first resource that matches is the one that is meant. */
function bySpecificity(a: Resource, b: Resource): number {
  const shape = ({ segments }: Resource) => segments.map((segment) => ("literal" in segment ? "0" : "1")).join("");
  return shape(a) < shape(b) ? -1 : 1;
}

/**
 * Reads every `google.api.http` annotation of unary RPCs into routes.
 *
 * @param withheld names of annotated RPCs that get no route; a name that is not annotated is an error, so that a
 *   renamed RPC cannot come back by accident
 */
export function compileRoutes(registry: FileRegistry, withheld: readonly string[]): Resource[] {
  const http = registry.getExtension("google.api.http");
  if (!http) throw new Error("the descriptor set lacks google.api.http");
  const resources = new Map<string, Map<string, Route>>();
  const absent = new Set(withheld);
  for (const file of registry.files) {
    for (const method of file.services.flatMap((service) => service.methods)) {
      if (!hasOption(method, http)) continue;
      if (withheld.includes(method.name)) {
        absent.delete(method.name);
        continue;
      }
      const rule = getOption(method, http) as HttpRule;
      for (const binding of [rule, ...rule.additionalBindings]) {
        const route = compileRule(binding, method);
        const routes = resources.get(route.template) ?? new Map<string, Route>();
        if (routes.has(route.verb)) throw new Error(`${method.name}: ${route.verb} ${route.template} is bound twice`);
        resources.set(route.template, routes.set(route.verb, route));
      }
    }
  }
  if (absent.size > 0) throw new Error(`no annotated RPC is named ${[...absent].join(", ")}`);
  return [...resources].map(([template, routes]) => ({ template, segments: [...routes.values()][0]?.segments ?? [], routes })).sort(bySpecificity);
}

/**
 * Whether a raw path holds something that a proxy and a server may read differently: a dot segment, an encoded slash,
 * backslash or NUL, a character that RFC 3986 does not allow in a path. Such a path is refused, never normalised.
 */
export function isAmbiguousPath(path: string): boolean {
  if (!/^\/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*$/.test(path)) return true;
  if (/%(?:2f|5c|00)/i.test(path)) return true;
  return path.split("/").some((segment) => /^(?:\.|%2e){1,2}$/i.test(segment));
}

function bind(segments: readonly Segment[], parts: readonly string[]): Map<string, string> | undefined {
  if (segments.length !== parts.length) return undefined;
  const params = new Map<string, string>();
  for (const [index, segment] of segments.entries()) {
    const part = parts[index] as string;
    if ("literal" in segment) {
      if (segment.literal !== part) return undefined;
    } else {
      if (part === "") return undefined;
      params.set(segment.field.name, part);
    }
  }
  return params;
}

/** Finds the route for a method and a raw path, which is compared as it came: nothing is decoded, collapsed or trimmed. */
export function findRoute(resources: readonly Resource[], verb: string, path: string): Found {
  const local = path.startsWith(`${PREFIX}/`) ? path.slice(PREFIX.length) : path;
  const parts = local.slice(1).split("/");
  for (const resource of resources) {
    const params = bind(resource.segments, parts);
    if (!params) continue;
    const route = resource.routes.get(verb);
    return route ? { kind: "route", route, params } : { kind: "wrong_method", template: resource.template, allow: [...resource.routes.keys()] };
  }
  return { kind: "unknown" };
}
