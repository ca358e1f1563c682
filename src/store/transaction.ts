import type { Writable } from "node:stream";
import pg, { type Client } from "pg";

/** One SQL text. The name is that of the prepared statement, and belongs to this text alone. */
export interface Statement {
  readonly name: string;
  readonly text: string;
}

/** Longest times inside one transaction, ms. */
export interface Timeouts {
  /** One statement. */
  readonly statementMs: number;
  /** Waiting for a lock. */
  readonly lockMs: number;
}

/** How transactions are run on a connection. */
export interface Session {
  /** Whether statements are prepared under their names; not behind a pooler that moves transactions between connections. */
  readonly prepared: boolean;
  readonly timeouts: Timeouts;
  /** Is told that a connection was lost: the server at the end of the next one may know less than the one before, as a promoted standby does. */
  readonly lost?: (() => void) | undefined;
}

/** A row as the driver gives it. */
export type Row = Record<string, unknown>;

/** Text of the context statement, with its four parameters written as the caller's driver wants them. */
const contextText = (parameter: (index: number) => string): string =>
  `select set_config('app.organizations', ${parameter(1)}, true), set_config('statement_timeout', ${parameter(2)}, true),
    set_config('lock_timeout', ${parameter(3)}, true), set_config('idle_in_transaction_session_timeout', ${parameter(4)}, true),
    set_config('enable_seqscan', 'off', true), set_config('search_path', 'public, pg_temp', true), set_config('transaction_read_only', 'off', true)`;

/**
 * Sets what holds for the rest of the transaction: the organizations that are visible, and the limits on time. Per
 * transaction, because a pooler hands the same server connection to others afterwards. Sequential scans are off: a
 * statement is planned once and kept, perhaps while its table is still empty. Names mean the tables of the schema, whatever
 * other schemas and temporary tables there are. A server that takes no writes refuses the last setting (25001): what a standby
 * knows may be old, so it answers nobody.
 */
const CONTEXT: Statement = { name: "context", text: contextText((index) => `$${index}`) };

/** The same for a query builder, which writes parameters as question marks. */
export const CONTEXT_FOR_KNEX: string = contextText(() => "?");

/** Values of the context statement. */
export function contextValues(organizations: readonly string[], { statementMs, lockMs }: Timeouts): string[] {
  return [`{${organizations.join(",")}}`, String(statementMs), String(lockMs), String(statementMs)];
}

/** What the driver's own query does that its types leave out. */
interface DriverQuery {
  submit(connection: Connection): Error | null;
  handleDataRow(message: unknown): void;
  handleCommandComplete(message: unknown, connection: Connection): void;
}

/** The driver's connection: with what it knows of its prepared statements, and methods that take less than its types say. */
interface Connection {
  readonly stream: Writable;
  readonly parsedStatements: Readonly<Record<string, string>>;
  readonly submittedNamedStatements: Readonly<Record<string, string>>;
  parse(query: { readonly text: string }): void;
  bind(config: { readonly statement?: string; readonly values: readonly string[] }): void;
  execute(): void;
}

const Query = pg.Query as unknown as new (config: pg.QueryConfig, values: undefined, done: (error: Error | undefined, result?: pg.QueryResult<Row>) => void) => DriverQuery;

/**
 * A statement that takes its context along: both are executed ahead of one Sync, which makes them one transaction and commits it
 * (PostgreSQL documentation 54.2.4). The server answers once, when the commit stands; a failure of either undoes both.
 */
class StatementInContext extends Query {
  readonly #context: readonly string[];
  readonly #prepared: boolean;
  #answering: "context" | "statement" = "context";

  constructor(statement: Statement, values: readonly unknown[], { prepared }: Session, context: readonly string[], done: (error: Error | undefined, result?: pg.QueryResult<Row>) => void) {
    super(asked(statement, values, prepared), undefined, done);
    this.#context = context;
    this.#prepared = prepared;
  }

  override submit(connection: Connection): Error | null {
    // Handed to the kernel in one piece: a system call, and a turn of the server's process, for each part costs more than some statements do.
    connection.stream.cork();
    try {
      if (!this.#prepared) connection.parse({ text: CONTEXT.text });
      connection.bind({ ...(this.#prepared ? { statement: CONTEXT.name } : {}), values: this.#context });
      connection.execute();
      return super.submit(connection);
    } finally {
      connection.stream.uncork();
    }
  }

  override handleDataRow(message: unknown): void {
    if (this.#answering === "statement") super.handleDataRow(message);
  }

  override handleCommandComplete(message: unknown, connection: Connection): void {
    if (this.#answering === "statement") super.handleCommandComplete(message, connection);
    this.#answering = "statement";
  }
}

/** A query as the driver takes it. One without a name and values would go as text otherwise, which ends the context's transaction. */
const asked = ({ name, text }: Statement, values: readonly unknown[], prepared: boolean): pg.QueryConfig =>
  prepared ? { name, text, values: [...values] } : ({ text, values: [...values], queryMode: "extended" } as pg.QueryConfig);

/**
 * Runs one statement for the given organizations in a transaction of its own, in one round trip on a connection in pipeline
 * mode; the rows are given back when the commit is acknowledged. Rejects with the driver's error.
 */
export function runTransaction(client: Client, session: Session, organizations: readonly string[], statement: Statement, values: readonly unknown[]): Promise<Row[]> {
  const context = contextValues(organizations, session.timeouts);
  const { connection } = client as unknown as { readonly connection: Connection };
  const known = CONTEXT.name in connection.parsedStatements || CONTEXT.name in connection.submittedNamedStatements;
  // The driver keeps account of one statement to a query. Where this one fails, so does the other.
  if (session.prepared && !known) client.query(asked(CONTEXT, context, true)).catch(() => {});
  return new Promise((resolve, reject) => {
    const done = (error: Error | undefined, result?: pg.QueryResult<Row>) => (result === undefined ? reject(error ?? new Error("a transaction gave no result")) : resolve(result.rows));
    client.query(new StatementInContext(statement, values, session, context, done) as unknown as pg.Submittable);
  });
}
