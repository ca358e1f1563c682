/** What a command gets from its process. */
export interface Context {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Writes one line of the result to standard output. */
  print(line: string): void;
  /** Writes one line beside the result, to standard error. */
  note(line: string): void;
}
