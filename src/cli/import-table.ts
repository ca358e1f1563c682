import { readFileSync } from "node:fs";
import { isLoopback } from "../config.ts";
import { parseDatabaseUrl } from "../store/connection.ts";
import { StoreSetupError } from "../store/errors.ts";
import { isIdentifier, type LegacyRow, type LegacyTable, openLegacyTable, tableParts } from "../store/legacy-table.ts";
import type { Context } from "./context.ts";
import { CliError, usage } from "./failure.ts";
import type { RowSource } from "./import-source.ts";

/** Options that say which table is read, and how. */
export interface TableOptions {
  readonly table: string;
  readonly rowKey: string;
  readonly column?: readonly string[];
  readonly value?: readonly string[];
  readonly databaseUrlFile?: string | undefined;
  readonly databaseCa?: string | undefined;
}

const REQUIRED = ["organization_id", "user_id", "provider", "credential_type", "token"] as const;
const FIELDS: readonly string[] = [...REQUIRED, "name", "source"];

/** Rows that are read at a time. */
const PAGE = 500;

/** The rows of a table in another system's PostgreSQL, in the order of their key. Rejects with CliError. */
export async function rowsOfTable({ env }: Context, options: TableOptions): Promise<RowSource> {
  const { table, rowKey: key } = options;
  if (tableParts(table) === undefined) throw usage("--table must be table or schema.table, in letters, digits, _ and $; make a view of anything else");
  if (!isIdentifier(key)) throw usage("--row-key must be the name of a column");
  // Never the token: command lines are visible to everyone.
  const values = pairs("--value", options.value, FIELDS.filter((field) => field !== "token"));
  const columns = pairs("--column", options.column, FIELDS);
  for (const column of Object.values(columns)) if (!isIdentifier(column)) throw usage("--column must end in the name of a column, in letters, digits, _ and $");
  for (const field of REQUIRED) if (values[field] === undefined) columns[field] ??= field;
  const url = urlOf(env, options);
  try {
    refusePlaintext(url, options.databaseCa);
    const opened = await openLegacyTable({ url, caFile: options.databaseCa, table, key, columns });
    return await pagesOf(opened, table, values);
  } catch (error) {
    throw sentence(error);
  }
}

const sentence = (error: unknown): unknown => (error instanceof StoreSetupError ? new CliError(error.message) : error);

async function pagesOf(opened: LegacyTable, table: string, values: Readonly<Record<string, string>>): Promise<RowSource> {
  let [total, done] = [0, 0];
  async function* all(): AsyncGenerator<LegacyRow> {
    for (let after: string | null = null; ; ) {
      const page: LegacyRow[] = await opened.page(after, PAGE);
      yield* page;
      after = page.at(-1)?.key ?? null;
      if (after === null) return;
    }
  }
  try {
    total = await opened.count();
  } catch (error) {
    await opened[Symbol.asyncDispose]();
    throw error;
  }
  const rows = all();
  return {
    async next() {
      const { value: row, done: ended } = await rows.next().catch((error: unknown) => {
        throw sentence(error);
      });
      if (ended) return undefined;
      done++;
      const label = /^[\x21-\x7e]+$/.test(row.key) ? row.key : JSON.stringify(row.key);
      return { label: `row ${label}`, read: () => ({ source: `${table}/${row.key}`, ...row.values, ...values }) };
    },
    progress: () => ({ unit: "rows", done, total: Math.max(total, done) }),
    [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose](),
  };
}

/** Pairs of an option that may be given several times. */
function pairs(option: string, given: readonly string[] | undefined, fields: readonly string[]): Record<string, string> {
  const found: Record<string, string> = {};
  for (const pair of given ?? []) {
    const [, field = "", text = ""] = /^([a-z_]+)=(.+)$/s.exec(pair) ?? [];
    if (!fields.includes(field)) throw usage(`${option} must begin with one of ${fields.join(", ")}, and =`);
    found[field] = text;
  }
  return found;
}

/** Where the table is. There is no option for the URL itself: it holds a password, and command lines are visible to everyone. */
function urlOf(env: Context["env"], { databaseUrlFile }: TableOptions): string {
  const [text, file] = [env["FLOW_CREDENTIALS_LEGACY_DATABASE_URL"], databaseUrlFile ?? env["FLOW_CREDENTIALS_LEGACY_DATABASE_URL_FILE"]];
  if (databaseUrlFile === undefined && text !== undefined && file !== undefined) throw usage("FLOW_CREDENTIALS_LEGACY_DATABASE_URL and FLOW_CREDENTIALS_LEGACY_DATABASE_URL_FILE are both set; give one");
  if (file === undefined) {
    if (text === undefined) throw usage("--table needs --database-url-file, FLOW_CREDENTIALS_LEGACY_DATABASE_URL or FLOW_CREDENTIALS_LEGACY_DATABASE_URL_FILE");
    return text.trim();
  }
  try {
    return readFileSync(file, "utf8").trim();
  } catch (error) {
    throw new CliError(`the file with the database URL cannot be read (${(error as NodeJS.ErrnoException).code ?? "error"})`);
  }
}

/** Another machine is reached over TLS, unless the URL says in so many words that it is not to be. */
function refusePlaintext(url: string, ca: string | undefined): void {
  const { host, ssl } = parseDatabaseUrl(url, ca);
  if (ssl || host.startsWith("/") || isLoopback(host) || /[?&]sslmode=disable(&|$)/.test(url)) return;
  throw new CliError("the database is on another machine: give --database-ca, or sslmode=verify-full in its URL, or sslmode=disable where its network may be trusted");
}
