/** Every value of a header, in order, from the raw list: the parsed form silently drops repeated ones. */
export function headerValues(raw: readonly string[], name: string): string[] {
  return raw.filter((_, index) => index % 2 === 1 && raw[index - 1]?.toLowerCase() === name);
}

/** Whether a request says that a body follows (RFC 9112 section 6.3). */
export function announcesBody(raw: readonly string[]): boolean {
  return headerValues(raw, "transfer-encoding").length > 0 || headerValues(raw, "content-length").some((length) => Number(length) !== 0);
}

const JSON_TYPE = /^application\/json[ \t]*(?:;[ \t]*charset=(?:utf-8|"utf-8")[ \t]*)?$/i;

/** Whether the body is said to be plain JSON in UTF-8: one content type, no content coding. */
export function announcesJson(raw: readonly string[]): boolean {
  const types = headerValues(raw, "content-type");
  const plain = headerValues(raw, "content-encoding").every((coding) => coding.toLowerCase() === "identity");
  return plain && types.length === 1 && JSON_TYPE.test(types[0] ?? "");
}

/** Whether a value can be carried as gRPC metadata: printable ASCII. */
export const isPrintable = (value: string): boolean => /^[\x20-\x7e]*$/.test(value);
