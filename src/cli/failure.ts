import { AuthSetupError } from "../auth/setup-error.ts";
import { ConfigError } from "../config.ts";

/** A failure told to the person at the terminal: one sentence, no secret. */
export class CliError extends Error {
  override readonly name = "CliError";
  /** 1 where the work failed, 2 where the command line is wrong. */
  readonly exitCode: 1 | 2;

  constructor(message: string, exitCode: 1 | 2 = 1) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** A command line that cannot be understood. */
export const usage = (message: string): CliError => new CliError(message, 2);

/** Errors whose message is written for people and holds no secret. */
const FOR_PEOPLE = [CliError, ConfigError, AuthSetupError];

/** What to print about any error: its message where that is safe, else only its type and code. */
export function sentenceOf(error: unknown): string {
  if (error instanceof Error && FOR_PEOPLE.some((kind) => error instanceof kind)) return error.message;
  if (!(error instanceof Error)) return "unexpected failure";
  const code = "code" in error && typeof error.code === "string" ? ` ${error.code}` : "";
  return `unexpected failure: ${error.name}${code}`;
}
