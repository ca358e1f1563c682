import { Command, CommanderError } from "commander";
import { addAudit } from "./audit.ts";
import type { Context } from "./context.ts";
import { addCredential, addLimit } from "./credential.ts";
import { CliError, sentenceOf } from "./failure.ts";
import { addImport } from "./import.ts";
import { addKeys } from "./keys.ts";
import { addMigrate } from "./migrate.ts";
import { addOrganization } from "./organization.ts";
import { addServe } from "./serve.ts";
import { addServiceAccount } from "./service-account.ts";
import { addServiceAccountKey } from "./service-account-key.ts";
import { addToken } from "./token.ts";

const NAME = "flow-credentials";

const EXAMPLE = `
Example:
  $ ${NAME} token --help`;

/** Commander's complaint as one line. Values are left out: one may be a secret under a misspelt option or in a wrong place. */
function oneLine(text: string): string {
  return text
    .trim()
    .replace(/^error: /, "")
    .replace(/=[^']*'/g, "'")
    .replace(/( but got \d+): .*$/s, "$1")
    .replace(/\s+/g, " ");
}

/**
 * Runs one command line. Gives the exit code: 0 done, 1 failed, 2 not understood; every failure has been told in one
 * line on standard error.
 */
export async function run(args: readonly string[], context: Context): Promise<0 | 1 | 2> {
  const complain = (text: string) => context.note(`${NAME}: ${text}`);
  const program = new Command(NAME)
    .description("Integration credentials: run the service and administer it.")
    .exitOverride()
    .configureOutput({ outputError: (text) => complain(oneLine(text)) })
    .addHelpText("after", EXAMPLE);
  for (const add of [addServe, addMigrate, addToken, addServiceAccount, addServiceAccountKey, addKeys, addOrganization, addImport, addAudit, addCredential, addLimit]) add(program, context);
  try {
    await program.parseAsync(args, { from: "user" });
    return 0;
  } catch (error) {
    // Commander has said what it has to say; help that was asked for is no failure.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    complain(sentenceOf(error));
    return error instanceof CliError ? error.exitCode : 1;
  }
}
