/** What a command gets from its process. */
export interface Context {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Writes one line of the result to standard output. */
  print(line: string): void;
  /** Resolves when what was printed has been taken, so that much of it need not be kept. Absent where it is kept anyway. */
  readonly taken?: () => Promise<void>;
  /** Writes one line beside the result, to standard error. */
  note(line: string): void;
  /** Shows how far something is, in the place of what it showed before; null clears it. Absent where nobody looks on. */
  readonly progress?: (line: string | null) => void;
}
