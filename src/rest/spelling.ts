import type { DescEnum, DescEnumValue } from "@bufbuild/protobuf";

/**
 * How REST spells the values of an enum: without the prefix that the enum's name gives them, in lower case. The zero
 * value means "unspecified" and has no spelling.
 */
export interface Spelling {
  /** Every word, in the order of declaration. */
  readonly words: readonly string[];
  /** The number of a word in exactly this spelling; undefined for any other text. */
  number(word: string): number | undefined;
  /** The word of a number; undefined for zero and for a number that is not declared. */
  word(number: number): string | undefined;
}

const spellings = new WeakMap<DescEnum, Spelling>();

const spell = (desc: DescEnum, value: DescEnumValue): string => {
  const prefix = desc.sharedPrefix?.toUpperCase() ?? "";
  return value.name.slice(value.name.startsWith(prefix) ? prefix.length : 0).toLowerCase();
};

/** The spelling of an enum. */
export function spellingOf(desc: DescEnum): Spelling {
  const known = spellings.get(desc);
  if (known) return known;
  const values = desc.values.filter((value) => value.number !== 0);
  const numbers = new Map(values.map((value) => [spell(desc, value), value.number]));
  const words = new Map(values.map((value) => [value.number, spell(desc, value)]));
  const spelling: Spelling = { words: [...numbers.keys()], number: (word) => numbers.get(word), word: (number) => words.get(number) };
  spellings.set(desc, spelling);
  return spelling;
}
