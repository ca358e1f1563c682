import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { MIGRATIONS } from "../../src/store/migrations/index.ts";

const FOLDER = new URL("../../src/store/migrations/", import.meta.url);

/** What older code may use, and a statement takes away or changes; not what a function's body says, which runs later. */
const TAKES_AWAY = [
  /\bdrop\s+(table|column|view|function|trigger|type|domain|policy|sequence)\b/i,
  /\brename\b/i,
  /\balter\s+column\s+\S+\s+(set\s+not\s+null|drop\s+default|(set\s+data\s+)?type)\b/i,
  /\badd\s+column\s+(?![^,;]*\b(default|generated)\b)[^,;]*\bnot\s+null\b/i,
  /\brevoke\b[^;]*\bcredentials_app\b/i,
];
const takesAway = (text: string): boolean => TAKES_AWAY.some((pattern) => pattern.test(text.replace(/\bas \$\$.*?\$\$/gs, "")));

/** The first migration that was made when older code could be told. */
const SINCE = MIGRATIONS.findIndex(({ name }) => name === "0016_compatibility");

test("a migration that takes something away says who can work with the schema afterwards, and names one that came before", () => {
  const files = readdirSync(FOLDER).filter((file) => /^\d{4}-/.test(file)).toSorted();
  expect(files).toHaveLength(MIGRATIONS.length);
  for (const [index, { name, needs }] of MIGRATIONS.entries()) {
    if (index < SINCE) continue;
    expect([name, needs !== undefined]).toEqual([name, takesAway(readFileSync(new URL(files[index] as string, FOLDER), "utf8"))]);
    if (needs !== undefined) expect(MIGRATIONS.slice(SINCE, index).map((migration) => migration.name)).toContain(needs);
  }
});

test.each([
  ["alter table a drop column b;", true],
  ["alter table a add column b text, drop column c;", true],
  ["alter table a rename column b to c;", true],
  ["alter table a alter column b set not null;", true],
  ["alter table a alter column b type bigint;", true],
  ["alter table a add column b text not null;", true],
  ["drop function f(uuid);", true],
  ["revoke insert on a from credentials_app;", true],
  ["alter table a add column b text not null default 'x', add column c text;", false],
  ["alter table a add column b bigint generated always as (f(c)) stored not null;", false],
  ["create table a (b uuid not null);", false],
  ["create function f() returns trigger language plpgsql as $$ begin drop table x; end $$;", false],
  ["revoke all on function f() from public;", false],
])("%s takes something away: %s", (sql, expected) => {
  expect(takesAway(sql)).toBe(expected);
});
