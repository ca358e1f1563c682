import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";

/** A generated message type, as far as reading it goes. */
export interface Codec<T> {
  decode(input: BinaryReader): T;
}

/** A request as it was read. */
export interface Decoded<T> {
  readonly message: T;
  /** Whether its Struct has a key `__proto__`, which a JavaScript object cannot show. */
  readonly prototypeKey: boolean;
}

/** A reader that refuses text which is not UTF-8, as proto3 asks for, where the generated code would put U+FFFD in its place. */
class StrictReader extends BinaryReader {
  override string(): string {
    return super.string(true);
  }
}

/** Which length-delimited fields lead to keys of a `google.protobuf.Struct`; a request has its Struct in field 3. */
const GRAMMAR: Record<string, Record<number, string>> = {
  request: { 3: "struct" },
  struct: { 1: "entry" },
  entry: { 1: "key", 2: "value" },
  value: { 5: "struct", 6: "list" },
  list: { 1: "value" },
};
const PROTOTYPE = Buffer.from("__proto__");

function hasPrototypeKey(bytes: Buffer, kind: string): boolean {
  if (kind === "key") return bytes.equals(PROTOTYPE);
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, wire] = reader.tag();
    const next = GRAMMAR[kind]?.[field];
    if (wire !== WireType.LengthDelimited || next === undefined) {
      reader.skip(wire, field);
      continue;
    }
    const part = reader.bytes();
    if (hasPrototypeKey(Buffer.from(part.buffer, part.byteOffset, part.byteLength), next)) return true;
  }
  return false;
}

/**
 * Reads a request. Undefined where the bytes are not such a message: cut short, nested deeper than the generated code
 * follows (100), or with text that is not UTF-8. What is wrong with them is not told, since it could quote them.
 */
export function decodeRequest<T>(codec: Codec<T>, bytes: Buffer): Decoded<T> | undefined {
  try {
    const message = codec.decode(new StrictReader(bytes));
    return { message, prototypeKey: bytes.includes(PROTOTYPE) && hasPrototypeKey(bytes, "request") };
  } catch {
    return undefined;
  }
}
