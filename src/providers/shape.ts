import { z } from "zod";
import { MAX_SECRET_BYTES, type SecretDocument } from "../domain/credential.ts";
import { fail, type Violation } from "../domain/errors.ts";
import type { AcceptOptions, Accepted, CredentialShape, ExposedSecret } from "./provider.ts";
import { fault, structureFaults, tooLarge } from "./structure.ts";

/** What tells one shape from another; everything else about a shape is the same for all. */
export interface ShapeFacts {
  /** Every documented key; unknown ones pass and are returned in `extra`. */
  readonly schema: z.ZodObject;
  /** The rules for this document, where they depend on which keys it has; `schema` otherwise. */
  readonly schemaFor?: (document: SecretDocument) => z.ZodObject;
  /** Whether an OAuth 2.0 flow can make it; false unless said otherwise. */
  readonly isOauth?: boolean;
  /** Rules that a schema cannot say. Runs on a document that its schema passed. */
  readonly check?: (document: SecretDocument, options: AcceptOptions) => readonly Violation[] | Promise<readonly Violation[]>;
  /** Brings an accepted document into the form that is stored. */
  readonly normalise?: (document: SecretDocument, now: Date) => SecretDocument;
  /** When the secret ends; null where it does not or does not say. */
  readonly endsAt?: (document: SecretDocument) => Date | null;
  /** What an executor receives of an accepted document. */
  readonly secret: (document: SecretDocument) => ExposedSecret;
  /** What of the unknown keys may leave; all of it unless said otherwise. */
  readonly extra?: (unknown: SecretDocument) => SecretDocument;
}

/** Makes a shape from its facts. */
export function shape(facts: ShapeFacts): CredentialShape {
  const known: ReadonlySet<string> = new Set(Object.keys(facts.schema.shape));
  const endsAt = facts.endsAt ?? (() => null);
  return {
    schema: facts.schema,
    isOauth: facts.isOauth ?? false,
    async accept(given, options): Promise<Accepted> {
      refuse(structureFaults(given, known));
      const document = withoutNulls(given, facts.schema);
      const schema = facts.schemaFor?.(document) ?? facts.schema;
      const parsed = schema.safeParse(document);
      if (!parsed.success) throw fail("INVALID_CREDENTIALS", { violations: violationsOf(parsed.error, document) });
      refuse((await facts.check?.(parsed.data, options)) ?? []);
      const stored = facts.normalise?.(parsed.data, options.now) ?? parsed.data;
      if (Buffer.byteLength(JSON.stringify(stored)) > MAX_SECRET_BYTES) refuse([tooLarge()]);
      // Nothing a caller posts is verified, an id token's address included; only an OAuth flow can say whose account it is.
      return { document: stored, accountEmail: null, tokenExpiresAt: endsAt(stored) };
    },
    expose(document) {
      const unknown = Object.fromEntries(Object.entries(document).filter(([key]) => !known.has(key)));
      return { secret: facts.secret(document), extra: facts.extra?.(unknown) ?? unknown, expiresAt: endsAt(document) };
    },
  };
}

/** The text under a key, empty where there is none. */
export function textAt(document: SecretDocument, key: string): string {
  const value = document[key];
  return typeof value === "string" ? value : "";
}

/** The number under a key, or another one where there is none. */
export function numberAt(document: SecretDocument, key: string, otherwise: number): number {
  const value = document[key];
  return typeof value === "number" ? value : otherwise;
}

function refuse(violations: readonly Violation[]): void {
  if (violations.length > 0) throw fail("INVALID_CREDENTIALS", { violations });
}

/** Null says "not given" for an optional key; a required one is left for its schema to refuse. */
function withoutNulls(document: SecretDocument, schema: z.ZodObject): SecretDocument {
  const optional = (key: string): boolean => schema.shape[key] instanceof z.ZodOptional;
  return Object.fromEntries(Object.entries(document).filter(([key, value]) => value !== null || !optional(key)));
}

/** The first fault of each key. The sentences are the schemas' own: none of them quotes a value. */
function violationsOf(error: z.ZodError, document: SecretDocument): Violation[] {
  const found = new Map<string, Violation>();
  for (const issue of error.issues) {
    const key = String(issue.path[0]);
    if (found.has(key)) continue;
    found.set(key, document[key] === undefined ? fault(key, "missing", "Field required") : fault(key, kindOf(issue), issue.message));
  }
  return [...found.values()];
}

/** The stable word for a kind of fault. The only unions are numbers that may be given as text. */
function kindOf(issue: z.core.$ZodIssue): string {
  if (issue.code === "invalid_union") return "int_parsing";
  if (issue.code === "invalid_value") return "enum";
  if (issue.code === "invalid_type") return issue.expected === "string" ? "string_type" : "int_parsing";
  return "value_error";
}
