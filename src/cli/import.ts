import type { Command } from "commander";
import { addConnection, callAdmin, type ConnectionOptions } from "./connection.ts";
import type { Context } from "./context.ts";
import { CliError, usage } from "./failure.ts";
import type { RowSource } from "./import-source.ts";
import type { TableOptions } from "./import-table.ts";
import { whole } from "./values.ts";

interface Options extends ConnectionOptions, Omit<TableOptions, "table"> {
  readonly keysFile: string;
  readonly input?: string;
  readonly table?: string;
  readonly concurrency: string;
  readonly json?: true;
}

const EXAMPLE = `
Each line of --input is a JSON object:
  {"organization_id": "<uuid>", "user_id": "<uuid>", "provider": "sftp", "credential_type": "user_password",
   "name": "optional", "source": "legacy row 17", "token": "gAAAAA..."}
What the token holds is the JSON object that CreateCredential takes as credentials.

A --table has a column for each of these fields but source, which is made of the table's name and the row's key, and name,
which is read only where --column says from which column; --column names other columns, and --value gives a field the same
value in every row. A view does for anything else. The table is read in the order of --row-key, in read-only transactions; its
database is named by FLOW_CREDENTIALS_LEGACY_DATABASE_URL(_FILE), because command lines are visible to everyone.

Examples:
  $ flow-credentials import fernet --keys-file fernet.keys --input rows.ndjson
  $ FLOW_CREDENTIALS_LEGACY_DATABASE_URL_FILE=legacy.url flow-credentials import fernet --keys-file fernet.keys \\
      --table public.secrets --row-key id --column token=encrypted --column organization_id=tenant --value provider=sftp`;

const MAX_CONCURRENCY = 64;

const collect = (one: string, all: readonly string[] = []): string[] => [...all, one];

/** Loaded here alone: the driver of the table's database comes with it. */
async function sourceOf(context: Context, options: Options): Promise<RowSource> {
  const { input, table } = options;
  if ((input === undefined) === (table === undefined)) throw usage("either --input or --table is required");
  if (table !== undefined) return (await import("./import-table.ts")).rowsOfTable(context, { ...options, table });
  return (await import("./import-source.ts")).linesOf(input ?? "-");
}

/** `import fernet`: takes over secrets that another system has sealed as Fernet tokens. */
export function addImport(program: Command, context: Context): void {
  const group = program.command("import").description("take over secrets from another system").addHelpText("after", EXAMPLE);
  addConnection(group.command("fernet"))
    .description("open Fernet tokens here and hand their secrets to the service, each once; run it again to go on where it was interrupted")
    .requiredOption("--keys-file <file>", "Fernet keys, one a line, newest first; they are used here and go nowhere else")
    .option("--input <file>", "rows, one JSON object a line; - for standard input")
    .option("--table <[schema.]table>", "rows of a table or view in another PostgreSQL, instead of --input")
    .option("--row-key <column>", "its column that tells rows apart", "id")
    .option("--column <field=column>", "its column for a field; may be given several times", collect)
    .option("--value <field=text>", "a field's value in every row; may be given several times", collect)
    .option("--database-url-file <file>", "URL of its database; else FLOW_CREDENTIALS_LEGACY_DATABASE_URL(_FILE)")
    .option("--database-ca <file>", "authority of its database's certificate, PEM")
    .option("--concurrency <number>", "rows that are under way at a time", "16")
    .option("--json", "print JSON")
    .addHelpText("after", EXAMPLE)
    .action(async (options: Options) => {
      const lanes = whole("--concurrency", options.concurrency, 1, MAX_CONCURRENCY);
      // Loaded here alone: gRPC is most of the time a command takes to start.
      const { importAll, keysOf } = await import("./import-rows.ts");
      const keys = keysOf(options.keysFile);
      await using source = await sourceOf(context, options);
      const counts = await callAdmin(context, options, (admin) => importAll(context, admin, keys, source, lanes));
      context.print(options.json ? JSON.stringify(counts) : `${counts.imported} imported, ${counts.already} had been imported before, ${counts.failed} failed`);
      if (counts.failed > 0) throw new CliError(`${counts.failed} row(s) were not imported; the lines above say which and why`);
    });
}
