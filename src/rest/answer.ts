/** One HTTP response, before the headers that every response carries. */
export interface Answer {
  readonly status: number;
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string>>;
  /** UTF-8 text; undefined for a response without a body. */
  readonly body: string | undefined;
}

/** An answer with a JSON body. */
export function jsonAnswer(status: number, value: unknown, headers: Readonly<Record<string, string>> = {}): Answer {
  return { status, headers: { "content-type": "application/json; charset=utf-8", ...headers }, body: JSON.stringify(value) };
}

/**
 * All headers of an answer: its own, and those that every response carries. Responses may describe credentials, so
 * none is stored (RFC 9111 section 5.2.2.5).
 */
export function wireHeaders(answer: Answer, requestId: string): Record<string, string> {
  return { ...answer.headers, "cache-control": "no-store", "x-content-type-options": "nosniff", "x-request-id": requestId };
}
