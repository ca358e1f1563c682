import type { Writable } from "node:stream";
import type { Client } from "pg";

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

/** The driver's own connection, which its types leave out. */
interface Wired {
  readonly connection: { readonly stream: Writable };
}

/** Hands what `send` sends to the kernel in one piece: a system call, and a turn of the server's process, for each statement costs more than some statements do. */
function together<T>(client: Client, send: () => T): T {
  const { stream } = (client as unknown as Wired).connection;
  stream.cork();
  try {
    return send();
  } finally {
    stream.uncork();
  }
}

/**
 * Runs one statement for the given organizations in a transaction of its own: everything is sent at once, on a connection
 * in pipeline mode in one round trip, and the rows are given back when the commit is acknowledged. Where `begin` fails,
 * the context has no effect and the statement sees and writes nothing. Rejects with the driver's error.
 */
export async function runTransaction(
  client: Client,
  session: Session,
  organizations: readonly string[],
  statement: Statement,
  values: readonly unknown[],
): Promise<Row[]> {
  const query = ({ name, text }: Statement, parameters: readonly unknown[]) =>
    client.query<Row>(session.prepared ? { name, text, values: [...parameters] } : { text, values: [...parameters] });
  const sent = together(client, () => [
    client.query("begin"),
    query(CONTEXT, contextValues(organizations, session.timeouts)),
    query(statement, values),
    client.query("commit"),
  ] as const);
  const [begun, context, result, committed] = await Promise.allSettled(sent);
  for (const step of [begun, context, result, committed]) if (step.status === "rejected") throw step.reason;
  if (committed.status !== "fulfilled" || committed.value.command !== "COMMIT" || result.status !== "fulfilled") throw new Error("transaction was not committed");
  return result.value.rows;
}
