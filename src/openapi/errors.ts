import { type Reason, REASONS } from "../domain/errors.ts";
import { type Refused, REFUSALS } from "../rest/envelope.ts";
import type { Route } from "../rest/routes.ts";
import { type Json, refTo } from "./schemas.ts";

/** What an operation is, as far as it decides which errors it may answer with. */
interface Facts {
  readonly rpc: string;
  readonly body: boolean;
  /** Names of the fields that the path gives. */
  readonly path: readonly string[];
  /** Names of the fields that the query string may give. */
  readonly query: readonly string[];
  /** Names of the fields of the request. */
  readonly fields: readonly string[];
}

type Applies = (facts: Facts) => boolean;
const always: Applies = () => true;
const never: Applies = () => false;
const withBody: Applies = ({ body }) => body;
const onCredential: Applies = ({ path }) => path.includes("credential_id");
const onAccounts: Applies = ({ rpc }) => rpc.includes("ServiceAccount");
const writing: Applies = ({ rpc }) => /^(?:Create|Update|Delete|Rollback|Set|Revoke)/.test(rpc);
const opening: Applies = ({ rpc }) => /^(?:Resolve|Rollback|Test\w*Credential)/.test(rpc);

const begins: Applies = ({ rpc }) => rpc === "BeginAuthorization";
const completes: Applies = ({ rpc }) => rpc === "CompleteAuthorization";
const authorizes: Applies = ({ rpc }) => rpc.endsWith("Authorization");
const or = (...some: readonly Applies[]): Applies => (facts) => some.some((applies) => applies(facts));

/** Which operations a reason concerns. A new reason must say so here. */
const CONCERNS: Readonly<Record<Reason, Applies>> = {
  UNAUTHENTICATED: always,
  INVALID_TOKEN: always,
  CONFLICTING_IDENTITIES: always,
  IDENTITY_INCOMPLETE: always,
  FORBIDDEN: always,
  USER_REQUIRED: or(({ rpc }) => rpc === "CreateCredential", begins),
  SERVICE_ACCOUNT_REQUIRED: ({ rpc }) => rpc === "ResolveCredential",
  // Operators have no REST.
  OPERATOR_REQUIRED: never,
  INVALID_CREDENTIAL_ID: or(onCredential, begins),
  INVALID_PROVIDER: ({ path }) => path.includes("provider"),
  INVALID_REQUEST: or((facts) => facts.body || facts.query.length > 0, authorizes),
  INVALID_CREDENTIALS: (facts) => facts.body || facts.rpc === "TestPostgresCredential",
  LIMIT_PER_PROVIDER_REACHED: or(({ rpc }) => rpc === "CreateCredential", completes),
  LIMIT_PER_USER_REACHED: or(({ rpc }) => rpc === "CreateCredential", completes),
  CREDENTIAL_NOT_FOUND: or(onCredential, authorizes),
  SERVICE_ACCOUNT_NOT_FOUND: ({ path }) => path.includes("service_account_id"),
  ORGANIZATION_ADMINISTRATOR_REQUIRED: onAccounts,
  NOT_GRANTED: onCredential,
  INVALID_SERVICE_ACCOUNT_ID: ({ path }) => path.includes("service_account_id"),
  INVALID_KEY_ID: ({ path }) => path.includes("key_id"),
  SERVICE_ACCOUNT_KEY_NOT_FOUND: ({ path }) => path.includes("key_id"),
  CERTIFICATE_IN_USE: ({ rpc }) => rpc === "CreateServiceAccountKey",
  IDEMPOTENCY_KEY_REUSED: writing,
  IDEMPOTENCY_IN_FLIGHT: writing,
  CREDENTIAL_IN_USE: ({ rpc }) => rpc === "DeleteCredential",
  NO_PREVIOUS_SECRET: ({ rpc }) => rpc === "RollbackCredential",
  CREDENTIAL_PURGED: never,
  // Watching has no REST.
  WATCH_POSITION_LOST: never,
  WATCH_TOO_SLOW: never,
  WATCH_LIMIT_REACHED: never,
  RATE_LIMITED: (facts) => writing(facts) || begins(facts) || /^(?:Resolve|Test)/.test(facts.rpc),
  ORGANIZATION_NOT_FOUND: never,
  ROTATION_NOT_FOUND: never,
  KEY_UNKNOWN: never,
  KEY_NOT_LOADED_EVERYWHERE: never,
  KEY_RETIRED: never,
  KEY_IS_FOREIGN: never,
  ROTATION_UNDER_WAY: never,
  ROTATION_STATE: never,
  KEY_STILL_NEEDED: never,
  KEY_MOVED: or(writing, authorizes),
  KEYS_UNAVAILABLE: or((facts) => writing(facts) || opening(facts), authorizes),
  ETAG_MISMATCH: ({ body, fields }) => body && fields.includes("etag"),
  ORGANIZATION_DESTROYED: or((facts) => writing(facts) || opening(facts), authorizes),
  REAUTHORIZATION_REQUIRED: ({ rpc }) => rpc === "ResolveCredential",
  TOKEN_NOT_RENEWED: ({ rpc }) => rpc === "ResolveCredential",
  AUTHORIZATION_NOT_OFFERED: authorizes,
  AUTHORIZATION_UNKNOWN: completes,
  AUTHORIZATION_DENIED: completes,
  AUTHORIZATION_FAILED: completes,
  AUTHORIZATION_OTHER_ACCOUNT: completes,
  PROVIDER_REJECTS_CLIENT: completes,
  PROVIDER_UNAVAILABLE: authorizes,
  SECRET_UNREADABLE: or(opening, authorizes),
  AUDIT_UNAVAILABLE: always,
  DATABASE_UNAVAILABLE: always,
  OVERLOADED: always,
  TEST_LIMIT_REACHED: ({ rpc }) => rpc.startsWith("Test"),
  ISSUER_UNAVAILABLE: always,
  METADATA_INVALID: always,
  // Nobody is there any more to hear it.
  CANCELLED: never,
  DEADLINE_EXCEEDED: always,
  SHUTTING_DOWN: always,
  INTERNAL: always,
};

/** What REST answers before there is a call: to any request, and to one with a body. */
const BEFORE: Readonly<Record<Refused, Applies>> = {
  malformed: always,
  path: always,
  metadata: always,
  // Not answers of any operation.
  unknown: never,
  method: never,
  slow: withBody,
  body_size: withBody,
  media_type: withBody,
  header_size: always,
  internal: always,
  stopping: always,
};

/** Status that has the documented list of faults instead of the envelope. */
const FAULTS = 422;

/** Every error that a route may answer with, by status. */
export function errorsOf(route: Route): Record<string, Json> {
  const facts: Facts = {
    rpc: route.method.name,
    body: route.body,
    path: route.segments.flatMap((segment) => ("field" in segment ? [segment.field.name] : [])),
    query: route.query.map(({ name }) => name),
    fields: route.method.input.fields.map(({ name }) => name),
  };
  const sentences = new Map<number, Set<string>>();
  const say = (status: number, message: string) => sentences.set(status, (sentences.get(status) ?? new Set()).add(message));
  for (const [refused, { http, message }] of Object.entries(REFUSALS)) if (BEFORE[refused as Refused](facts)) say(http, message);
  for (const [reason, { http, message }] of Object.entries(REASONS)) if (CONCERNS[reason as Reason](facts)) say(http, message);
  return Object.fromEntries([...sentences].sort(([a], [b]) => a - b).map(([status, messages]) => [status, response(status, [...messages])]));
}

function response(status: number, messages: readonly string[]): Json {
  const retry = status === 429 || status === 503 ? { headers: { "Retry-After": { description: "Seconds to wait", schema: { type: "string", pattern: "^[0-9]+$" } } } } : {};
  const schema = refTo(status === FAULTS ? "Faults" : "Error");
  return { description: messages.join("; "), ...retry, content: { "application/json": { schema, example: exampleFor(status, messages[0] ?? "") } } };
}

function exampleFor(status: number, message: string): Json {
  if (status === FAULTS) return { detail: [{ loc: ["body", "provider"], msg: "Field required", type: "missing" }] };
  const { code } = [...Object.values(REASONS), ...Object.values(REFUSALS)].find((it) => it.http === status && it.message === message) ?? REFUSALS.malformed;
  return { error: { message, code, details: null }, request_id: "01K8KABR6S16YETA2SZPVBS9SP" };
}

/** The two forms of an error. */
export const errorSchemas = (): Record<string, Json> => ({
  Error: {
    type: "object",
    description: "A call that was refused or failed. Names fields, never values.",
    required: ["error"],
    properties: {
      error: {
        type: "object",
        required: ["message"],
        properties: {
          message: { type: "string" },
          code: { type: ["string", "null"], description: "A stable word" },
          details: {
            description: "Faults of the request by field, or the id of an incident",
            anyOf: [
              { type: "array", items: { type: "object", required: ["field", "message"], properties: { field: { type: "string" }, message: { type: "string" } } } },
              { type: "object", additionalProperties: true },
              { type: "null" },
            ],
          },
        },
      },
      request_id: { type: ["string", "null"], description: "ULID" },
    },
  },
  Faults: {
    type: "object",
    description: "A body that does not fit. Says where and what, never the value.",
    required: ["detail"],
    properties: {
      detail: {
        type: "array",
        items: {
          type: "object",
          required: ["loc", "msg", "type"],
          properties: { loc: { type: "array", items: { type: ["string", "integer"] } }, msg: { type: "string" }, type: { type: "string" } },
        },
      },
    },
  },
});
