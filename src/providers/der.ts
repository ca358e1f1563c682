/** One element of a DER encoding (ITU-T X.690 section 8.1). */
export interface Element {
  readonly tag: number;
  readonly content: Buffer;
}

/** The tag of SEQUENCE, constructed (X.680 section 8.4). */
export const SEQUENCE = 0x30;
/** The tag of INTEGER. */
export const INTEGER = 0x02;
/** The tag of OCTET STRING. */
export const OCTET_STRING = 0x04;
/** The tag of OBJECT IDENTIFIER. */
export const OBJECT_ID = 0x06;
/** The first context-specific constructed tag. */
export const CONTEXT_0 = 0xa0;

/** Most elements of one sequence that are read; no key has more. */
const MAX_ELEMENTS = 16;

/** The elements that a content is made of; null where it is not DER with definite lengths and single-byte tags. */
export function elementsOf(bytes: Buffer): readonly Element[] | null {
  const elements: Element[] = [];
  let at = 0;
  while (at < bytes.length) {
    const head = lengthAt(bytes, at + 1);
    const tag = bytes.readUInt8(at);
    if (head === null || (tag & 0x1f) === 0x1f || elements.length === MAX_ELEMENTS) return null;
    const end = head.next + head.length;
    if (end > bytes.length) return null;
    elements.push({ tag, content: bytes.subarray(head.next, end) });
    at = end;
  }
  return elements;
}

/** The elements inside an element with one tag; null for anything else. */
export function inside(element: Element | undefined, tag = SEQUENCE): readonly Element[] | null {
  return element?.tag === tag ? elementsOf(element.content) : null;
}

/** The value of an INTEGER that is not negative, exact up to 2^48 and infinite beyond; null for anything else. */
export function wholeNumber(element: Element | undefined): number | null {
  if (element?.tag !== INTEGER || element.content.length === 0 || element.content.readUInt8(0) >= 0x80) return null;
  const digits = withoutZeros(element.content);
  return digits.length > 6 ? Number.POSITIVE_INFINITY : digits.length === 0 ? 0 : digits.readUIntBE(0, digits.length);
}

/** How many bits a big-endian number takes at most, to the byte. */
export const bitsOf = (bytes: Buffer): number => withoutZeros(bytes).length * 8;

function withoutZeros(bytes: Buffer): Buffer {
  const first = bytes.findIndex((byte) => byte !== 0);
  return first === -1 ? bytes.subarray(bytes.length) : bytes.subarray(first);
}

function lengthAt(bytes: Buffer, at: number): { readonly length: number; readonly next: number } | null {
  if (at >= bytes.length) return null;
  const first = bytes.readUInt8(at);
  if (first < 0x80) return { length: first, next: at + 1 };
  const count = first & 0x7f;
  if (count === 0 || count > 4 || at + 1 + count > bytes.length) return null;
  return { length: bytes.readUIntBE(at + 1, count), next: at + 1 + count };
}
