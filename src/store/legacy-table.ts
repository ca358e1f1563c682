import pg from "pg";
import { parseDatabaseUrl } from "./connection.ts";
import { StoreFault, StoreSetupError } from "./errors.ts";

/** A table or a view of another system's database, and what is read of it. */
export interface LegacySource {
  /** libpq connection URI. */
  readonly url: string;
  /** Authority of the server's certificate, PEM file. */
  readonly caFile: string | undefined;
  /** `table` or `schema.table`. */
  readonly table: string;
  /** The column that tells rows apart and orders them. */
  readonly key: string;
  /** Columns by the names under which their values are given. */
  readonly columns: Readonly<Record<string, string>>;
}

/** One row: its key and its values as text; `bytea` is taken for text in ASCII. */
export interface LegacyRow {
  readonly key: string;
  readonly values: Readonly<Record<string, string | null>>;
}

/** A table that is read, and never written. Whatever fails rejects with StoreSetupError, without text of the driver. */
export interface LegacyTable extends AsyncDisposable {
  /** How many rows there are. */
  count(): Promise<number>;
  /** The rows that come after a key, in the order of the keys; from the beginning where it is null. */
  page(after: string | null, limit: number): Promise<LegacyRow[]>;
}

const IDENTIFIER = /^[A-Za-z_][A-Za-z0-9_$]{0,62}$/;
const BYTEA = 17;

/** Whether a name can be the name of a column here: letters, digits, _ and $. A view gives others such names. */
export const isIdentifier = (name: string): boolean => IDENTIFIER.test(name);

/** The parts of `table` or `schema.table`, if they can be names. */
export function tableParts(name: string): string[] | undefined {
  const parts = name.split(".");
  return parts.length <= 2 && parts.every(isIdentifier) ? parts : undefined;
}

/** PostgreSQL folds what is not quoted, and reads keywords in it. */
function quoted(name: string): string {
  if (!isIdentifier(name)) throw new StoreSetupError("a name of a table or a column is not an identifier");
  return `"${name}"`;
}

/** What went wrong, for who named the table. */
const SENTENCES: Readonly<Record<string, string>> = {
  "42P01": "there is no such table",
  "3F000": "there is no such schema",
  "42703": "the table lacks one of the columns that were named",
  "42501": "the user of the database URL may not read the table",
  "25006": "reading the table would write something; only what can be read in a read-only transaction is read",
  "28P01": "the database does not accept the user and the password of its URL",
};

function told(error: unknown): StoreSetupError {
  if (error instanceof StoreSetupError) return error;
  const { code } = new StoreFault(error);
  return new StoreSetupError(`the table cannot be read: ${SENTENCES[code] ?? `database error ${code}`}`);
}

/**
 * Opens a table of another system. Every statement runs in a read-only transaction of its own, so that nothing is held while
 * the rows are worked on. Rejects with StoreSetupError.
 */
export async function openLegacyTable(source: LegacySource): Promise<LegacyTable> {
  const [table, key] = [(tableParts(source.table) ?? [""]).map(quoted).join("."), quoted(source.key)];
  const client = new pg.Client({ ...parseDatabaseUrl(source.url, source.caFile) });
  // The statement under way rejects as well.
  client.on("error", () => {});
  const read = async (text: string, values: readonly unknown[] = []) => {
    try {
      await client.query("begin transaction read only");
      const result = await client.query<Record<string, string | null>>(text, [...values]);
      await client.query("commit");
      return result;
    } catch (error) {
      throw told(error);
    }
  };
  try {
    await client.connect();
    const names = Object.keys(source.columns);
    const columns = Object.values(source.columns).map(quoted);
    const { fields } = await read(`select ${[key, ...columns].join(", ")} from ${table} limit 0`);
    const text = (column: string, at: number) => (fields[at]?.dataTypeID === BYTEA ? `encode(${column}, 'escape')` : `${column}::text`);
    const list = [key, ...columns].map((column, at) => `${text(column, at)} as c${at}`).join(", ");
    return {
      async count() {
        const { rows: [row] } = await read(`select count(*) as rows, count(distinct ${key}) as keys from ${table}`);
        if (row?.["rows"] !== row?.["keys"]) throw new StoreSetupError("the table cannot be read: rows share a value of the key column, or have none");
        return Number(row?.["rows"]);
      },
      async page(after, limit) {
        const { rows } = await read(`select ${list} from ${table} ${after === null ? "" : `where ${key} > $2`} order by ${key} limit $1`, after === null ? [limit] : [limit, after]);
        return rows.map((row) => ({ key: row["c0"] as string, values: Object.fromEntries(names.map((name, at) => [name, row[`c${at + 1}`] ?? null])) }));
      },
      [Symbol.asyncDispose]: () => client.end(),
    };
  } catch (error) {
    await client.end().catch(() => {});
    throw told(error);
  }
}
