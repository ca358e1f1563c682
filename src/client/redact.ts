const PRINTED = "[secret]";
const INSPECT = Symbol.for("nodejs.util.inspect.custom");

/** Fields of a response that hold a secret: the typed secret, and the keys that were stored beyond it. */
const SECRET_FIELDS = ["credentials", "extra"] as const;

function hide(value: unknown): void {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return;
  for (const key of ["toJSON", "toString", INSPECT]) Object.defineProperty(value, key, { value: () => PRINTED });
}

/**
 * Makes the secrets of a response print as `[secret]` in logs, inspection and JSON. Reading their fields works as
 * before; so does copying them with spread syntax, after which they print.
 */
export function redacted<T>(response: T): T {
  for (const field of SECRET_FIELDS) {
    const value: unknown = (response as Record<string, unknown>)[field];
    hide(value && typeof value === "object" && "$case" in value ? (value as { value?: unknown }).value : value);
  }
  return response;
}
