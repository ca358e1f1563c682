import type { Command } from "commander";
import { addConnection, callAdmin, type ConnectionOptions } from "./connection.ts";
import type { Context } from "./context.ts";
import { CliError } from "./failure.ts";
import { whole } from "./values.ts";

interface Options extends ConnectionOptions {
  readonly keysFile: string;
  readonly input: string;
  readonly concurrency: string;
  readonly json?: true;
}

const EXAMPLE = `
Each line of the input is a JSON object:
  {"organization_id": "<uuid>", "user_id": "<uuid>", "provider": "sftp", "credential_type": "user_password",
   "name": "optional", "source": "legacy row 17", "token": "gAAAAA..."}
What the token holds is the JSON object that CreateCredential takes as credentials. A table of PostgreSQL becomes such
lines with row_to_json and psql -At, also straight into standard input.

Example:
  $ flow-credentials import fernet --keys-file fernet.keys --input rows.ndjson`;

const MAX_CONCURRENCY = 64;
/** `import fernet`: takes over secrets that another system has sealed as Fernet tokens. */
export function addImport(program: Command, context: Context): void {
  const group = program.command("import").description("take over secrets from another system").addHelpText("after", EXAMPLE);
  addConnection(group.command("fernet"))
    .description("open Fernet tokens here and hand their secrets to the service, each once; run it again to go on where it was interrupted")
    .requiredOption("--keys-file <file>", "Fernet keys, one a line, newest first; they are used here and go nowhere else")
    .requiredOption("--input <file>", "rows, one JSON object a line; - for standard input")
    .option("--concurrency <number>", "rows that are under way at a time", "16")
    .option("--json", "print JSON")
    .addHelpText("after", EXAMPLE)
    .action(async (options: Options) => {
      const lanes = whole("--concurrency", options.concurrency, 1, MAX_CONCURRENCY);
      // Loaded here alone: gRPC is most of the time a command takes to start.
      const { importAll, keysOf } = await import("./import-rows.ts");
      const keys = keysOf(options.keysFile);
      const counts = await callAdmin(context, options, (admin) => importAll(context, admin, keys, options.input, lanes));
      context.print(options.json ? JSON.stringify(counts) : `${counts.imported} imported, ${counts.already} had been imported before, ${counts.failed} failed`);
      if (counts.failed > 0) throw new CliError(`${counts.failed} row(s) were not imported; the lines above say which and why`);
    });
}
