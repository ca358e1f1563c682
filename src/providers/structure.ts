import { MAX_SECRET_BYTES, type SecretDocument } from "../domain/credential.ts";
import type { Violation } from "../domain/errors.ts";

/** Deepest nesting of a secret, in levels. Far below what the JSON writer's stack bears. */
export const MAX_DEPTH = 32;

/** A fault of one key of the `credentials` object, or of the object itself where the key is null. */
export function fault(key: string | null, type: string, message: string): Violation {
  return { in: "body", path: key === null ? ["credentials"] : ["credentials", key], type, message };
}

/** Names that objects inherit; a copy that assigns one of them would change behaviour instead of data. */
const reserved = (key: string): boolean => key in Object.prototype || key === "prototype";

function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null || (Array.isArray(value) && prototype === Array.prototype);
}

/**
 * What is wrong with a document whatever its shape: too large, too deep, not JSON, a reserved key, text that is not
 * well-formed Unicode. At most one fault; it names a key only where `known` holds it, for an unknown key may itself be
 * a misplaced secret.
 */
export function structureFaults(document: SecretDocument, known: ReadonlySet<string>): readonly Violation[] {
  const pending: { value: unknown; depth: number; key: string | null }[] = [{ value: document, depth: 0, key: null }];
  for (let item = pending.pop(); item !== undefined; item = pending.pop()) {
    const { value, depth, key } = item;
    const message = valueFault(value, depth);
    if (message !== null) return [fault(key, "value_error", message)];
    if (typeof value !== "object" || value === null) continue;
    for (const [name, child] of Object.entries(value)) {
      if (reserved(name)) return [fault(null, "value_error", "Keys must not be names that every object has, such as __proto__ or constructor")];
      if (!name.isWellFormed()) return [fault(null, "value_error", "Keys must be well-formed Unicode")];
      pending.push({ value: child, depth: depth + 1, key: depth > 0 ? key : known.has(name) ? name : null });
    }
  }
  return Buffer.byteLength(JSON.stringify(document)) > MAX_SECRET_BYTES ? [tooLarge()] : [];
}

function valueFault(value: unknown, depth: number): string | null {
  if (depth > MAX_DEPTH) return `Must not be nested deeper than ${MAX_DEPTH} levels`;
  if (typeof value === "string") return value.isWellFormed() ? null : "Must be well-formed Unicode";
  if (typeof value === "number") return Number.isFinite(value) ? null : "Numbers must be finite";
  if (typeof value === "boolean" || value === null) return null;
  if (typeof value !== "object" || !isPlain(value)) return "Must hold JSON values only";
  return depth === 0 && Array.isArray(value) ? "Must be an object" : null;
}

/** The fault of a document that is larger than a secret may be. */
export const tooLarge = (): Violation => fault(null, "value_error", `Must not be larger than ${MAX_SECRET_BYTES} bytes as JSON`);
