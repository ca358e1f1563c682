import { readFileSync, statSync } from "node:fs";
import type { BenchDatabase } from "./session.ts";

/** Turns the explanation of every statement on for connections that are made from now on, or off again. */
export async function explain({ superuser }: BenchDatabase, on: boolean): Promise<void> {
  const { rows: [row] } = await superuser.query<{ name: string }>("select current_database() as name");
  const settings: Readonly<Record<string, string>> = { session_preload_libraries: "'auto_explain'", "auto_explain.log_min_duration": "0", "auto_explain.log_nested_statements": "on" };
  await superuser.query("load 'auto_explain'");
  for (const [name, value] of Object.entries(settings)) await superuser.query(on ? `alter database ${row?.name} set ${name} = ${value}` : `alter database ${row?.name} reset ${name}`);
}

/** How statements reached their rows while `work` ran: one word each, as `Index Scan using credential_pkey on credential`, with how often it was seen. */
export async function scansDuring({ logFile }: BenchDatabase, work: () => Promise<unknown>): Promise<ReadonlyMap<string, number>> {
  const before = statSync(logFile).size;
  await work();
  const text = readFileSync(logFile).subarray(before).toString("utf8");
  const scans = new Map<string, number>();
  for (const [scan, table = ""] of text.matchAll(/(?:Seq|Index|Index Only|Bitmap Heap) Scan(?: Backward)?(?: using \w+)? on (\w+)/g)) {
    if (!table.startsWith("pg_")) scans.set(scan, (scans.get(scan) ?? 0) + 1);
  }
  return scans;
}

/** What the server must preload so that pages are counted. */
export const COUNTING = { shared_preload_libraries: "pg_stat_statements" } as const;

/** How many pages of 8 KiB the service's statements in a database touched for each call of a load, in memory or not. */
export async function pagesOf({ superuser }: BenchDatabase, work: () => Promise<{ readonly calls: number }>): Promise<number> {
  await superuser.query("create schema if not exists bench; create extension if not exists pg_stat_statements schema bench");
  await superuser.query("select bench.pg_stat_statements_reset()");
  const { calls } = await work();
  const { rows: [row] } = await superuser.query<{ pages: number }>(
    "select sum(shared_blks_hit + shared_blks_read)::float8 as pages from bench.pg_stat_statements where dbid = (select oid from pg_database where datname = current_database()) and userid <> current_user::regrole");
  return (row?.pages ?? Number.NaN) / calls;
}
