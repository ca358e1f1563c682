import type { DescEnum, DescEnumValue, DescField, DescFile, DescMessage, DescMethod, DescService } from "@bufbuild/protobuf";

type Commented = DescField | DescMethod | DescMessage | DescService | DescEnum | DescEnumValue;

/** Numbers of the lists in which descriptors hold their parts (google/protobuf/descriptor.proto). */
const [MESSAGES, FIELDS, SERVICES, METHODS, ENUMS, VALUES] = [4, 2, 6, 2, 5, 2];

const files = new WeakMap<DescFile, ReadonlyMap<string, string>>();

function commentsIn(file: DescFile): ReadonlyMap<string, string> {
  const known = files.get(file);
  if (known) return known;
  const comments = new Map((file.proto.sourceCodeInfo?.location ?? []).map(({ path, leadingComments }) => [path.join(), leadingComments]));
  files.set(file, comments);
  return comments;
}

/** Where a descriptor stands in its file; messages inside messages are not looked for. */
function pathOf(desc: Commented): { readonly file: DescFile; readonly path: readonly number[] } {
  if (desc.kind === "field" || desc.kind === "rpc") {
    const within = pathOf(desc.parent);
    const index = desc.kind === "field" ? desc.parent.fields.indexOf(desc) : desc.parent.methods.indexOf(desc);
    return { file: within.file, path: [...within.path, desc.kind === "field" ? FIELDS : METHODS, index] };
  }
  if (desc.kind === "enum_value") {
    const within = pathOf(desc.parent);
    return { file: within.file, path: [...within.path, VALUES, desc.parent.values.indexOf(desc)] };
  }
  const { file } = desc;
  if (desc.kind === "service") return { file, path: [SERVICES, file.services.indexOf(desc)] };
  if (desc.kind === "enum") return { file, path: [ENUMS, file.enums.indexOf(desc)] };
  return { file, path: [MESSAGES, file.messages.indexOf(desc)] };
}

/** What a comment says. */
export interface Words {
  /** The first sentence, without its full stop. */
  readonly summary: string;
  /** All of it, paragraphs as paragraphs, without the words that mark a field's behaviour. */
  readonly text: string;
  readonly required: boolean;
  readonly secret: boolean;
}

/** Reads the comment before a descriptor; throws where there is none, as in a descriptor set without source information. */
export function wordsOf(desc: Commented): Words {
  const { file, path } = pathOf(desc);
  const raw = commentsIn(file).get(path.join())?.trim().replace(/^ /gm, "").replace(/([^\n])\n(?!\n)/g, "$1 ");
  if (raw === undefined || raw === "") throw new Error(`${desc.name} has no comment`);
  const marks = /^(?:(?:Required|Optional|Output only|Input only|Immutable|Secret)\.\s+)*/.exec(raw)?.[0] ?? "";
  const text = raw.slice(marks.length);
  return { summary: (/^[\s\S]*?\.(?=\s|$)/.exec(text)?.[0] ?? text).replace(/\.$/, ""), text, required: marks.includes("Required."), secret: marks.includes("Secret.") };
}
