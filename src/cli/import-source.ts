import { createReadStream, statSync } from "node:fs";
import { createInterface } from "node:readline";
import { CliError } from "./failure.ts";

/** A row that is not imported, and why; never a value of it. */
export class RowFault extends Error {
  override readonly name = "RowFault";
}

/** One row of another system. */
export interface SourceRow {
  /** What it is called where something is wrong with it. */
  readonly label: string;
  /** Its fields. Throws RowFault. */
  read(): Record<string, unknown>;
}

/** Where rows come from, one by one, so that their number does not matter. */
export interface RowSource extends AsyncDisposable {
  /** Several may ask at the same time. Rejects with CliError. */
  next(): Promise<SourceRow | undefined>;
  /** How much has been read of how much. */
  progress(): { readonly unit: string; readonly done: number; readonly total: number };
}

/** The object that a JSON text holds. Throws RowFault: the parser's own message quotes the text. */
export function objectOf(text: string, fault: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new RowFault(fault);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new RowFault(fault);
  return value as Record<string, unknown>;
}

const unreadable = (error: unknown): CliError => new CliError(`the file of --input cannot be read (${(error as NodeJS.ErrnoException).code ?? "error"})`);

function open(input: string): [NodeJS.ReadableStream & { destroy(): void }, number] {
  if (input === "-") return [process.stdin, 0];
  try {
    return [createReadStream(input), statSync(input).size];
  } catch (error) {
    throw unreadable(error);
  }
}

/** The lines of a file, or of standard input. */
export function linesOf(input: string): RowSource {
  const [stream, size] = open(input);
  const lines = createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY })[Symbol.asyncIterator]();
  let [number, read] = [0, 0];
  return {
    async next() {
      for (;;) {
        const { value: line, done } = await lines.next().catch((error: unknown) => {
          throw unreadable(error);
        });
        if (done) return undefined;
        const at = ++number;
        read += Buffer.byteLength(line) + 1;
        if (line.trim() !== "") return { label: `line ${at}`, read: () => objectOf(line, "the line is not a JSON object") };
      }
    },
    progress: () => ({ unit: "bytes", done: read, total: Math.max(size, read) }),
    [Symbol.asyncDispose]: async () => stream.destroy(),
  };
}
