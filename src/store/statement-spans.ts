import type { Knex } from "knex";
import { beginSpan, errorType, type Span, type SpanFacts } from "../trace.ts";

/** What is said of every span of a statement. */
export const sqlFacts = (): SpanFacts => ({ "db.system.name": "postgresql" });

/** What a query builder tells of a query. */
interface Query {
  readonly __knexQueryUid: string;
  /** With marks in the places of its values. */
  readonly sql?: string;
}

/** Verb and first table of a statement, such as `select audit_head`; of its text nothing else. */
export function summary(sql: string): string {
  const [verb = "statement"] = /^\w+/.exec(sql.trim()) ?? [];
  const table = /\b(?:from|into|update|join)\s+"?([a-z_]+)"?/i.exec(sql)?.[1];
  return [verb.toLowerCase(), ...(table === undefined ? [] : [table])].join(" ");
}

/** Makes each query of a query builder a span, named by what it does and to which table. Costs a look-up where nothing is traced. */
export function traceQueries(knex: Knex): void {
  const open = new Map<string, Span>();
  const ended = (uid: string, facts: SpanFacts) => {
    open.get(uid)?.end({ ...sqlFacts(), ...facts });
    open.delete(uid);
  };
  knex.on("query", ({ __knexQueryUid: uid, sql = "" }: Query) => {
    const span = beginSpan(summary(sql), "client");
    if (span !== undefined) open.set(uid, span);
  });
  knex.on("query-response", (_: unknown, { __knexQueryUid: uid }: Query) => ended(uid, {}));
  knex.on("query-error", (error: unknown, { __knexQueryUid: uid }: Query) => ended(uid, { "error.type": errorType(error) }));
}
