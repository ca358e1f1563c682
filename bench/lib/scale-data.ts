import pg from "pg";
import { parseDatabaseUrl } from "../../src/store/connection.ts";
import { migrate } from "../../src/store/migrate.ts";
import type { BenchDatabase } from "./session.ts";

/** A database of its own on the server of the run, with the URLs of its roles. */
export async function anotherDatabase({ applicationUrl, ownerUrl, superuserUrl, superuser, version, logFile }: BenchDatabase, name: string): Promise<BenchDatabase> {
  await superuser.query(`create database ${name} owner ${parseDatabaseUrl(ownerUrl).user}`);
  const on = (url: string) => url.replace(/@\/[^?]*/, `@/${name}`);
  await migrate({ url: on(ownerUrl), applicationRole: parseDatabaseUrl(applicationUrl).user });
  const client = new pg.Client({ ...parseDatabaseUrl(on(superuserUrl)) });
  await client.connect();
  return { applicationUrl: on(applicationUrl), ownerUrl: on(ownerUrl), superuserUrl: on(superuserUrl), superuser: client, version, logFile };
}

/** Rows in one statement while filling. */
const CHUNK = 200_000;
/** Credentials of each organization that is made up. */
const EACH = 20;

/**
 * What a creation leaves behind, for credentials that are made up: the row, the counters, the event, the audit record with its head.
 * The secrets are random bytes under a header that is right; nobody opens them. The credentials that are there already, which calls
 * are about, are spread evenly between the others, so that they are not neighbours on the disk.
 */
const FILL = {
  credentials: `insert into credential (organization_id, id, provider, credential_type, user_id, sealed, created_at, updated_at, modified_by, name)
    select coalesce(k.organization_id, md5('organization ' || i / ${EACH})::uuid), coalesce(k.id, gen_random_uuid()),
      coalesce(k.provider, (array['sftp', 'postgresql', 'google', 'aws_ses'])[i % 4 + 1]), coalesce(k.credential_type, (array['user_password', 'user_password', 'oauth2', 'api_key'])[i % 4 + 1]),
      coalesce(k.user_id, md5('user ' || i / ${EACH})::uuid),
      coalesce(k.sealed::bytea, '\\xc5010100000001'::bytea || sha512(i::text::bytea) || sha512(('a' || i)::bytea) || sha512(('b' || i)::bytea) || sha512(('c' || i)::bytea) || sha512(('d' || i)::bytea))::ciphertext,
      coalesce(k.created_at, t.at), coalesce(k.updated_at, t.at), coalesce(k.modified_by, 'system'), k.name
    from generate_series($1::bigint, $2::bigint) i cross join lateral (select now() - i * interval '1 second' as at) t left join bench.kept k on k.place = i`,
  counters: `insert into credential_counter (organization_id, counter, n)
    select organization_id, w.counter, count(*) from credential c cross join lateral (values ('provider:' || c.provider), ('user:' || c.user_id)) w(counter)
    group by 1, 2 on conflict do nothing`,
  records: `insert into audit_event (organization_id, link, position, occurred_at, request_id, actor_kind, actor_id, action, outcome, credential_id, hash)
    select organization_id, row_number() over (partition by organization_id order by created_at), 1, created_at, left(md5(id::text), 26), 'user', user_id::text, 'create_credential', 'allowed', id, sha256(id::text::bytea)
    from credential c where not exists (select from audit_head h where h.organization_id = c.organization_id)`,
  heads: `insert into audit_head (organization_id, link, digest, hash)
    select organization_id, max(link), sha256('digest'), sha256('hash') from audit_event group by 1 on conflict do nothing`,
  events: `insert into credential_event (organization_id, revision, occurred_at, kind, credential_id, provider, credential_type, status, status_since, secret_version, credential_revision)
    select organization_id, row_number() over (partition by organization_id order by created_at), created_at, 'created', id, provider, credential_type, status, status_since, secret_version, revision
    from credential c where not exists (select from credential_event_head h where h.organization_id = c.organization_id)`,
  eventHeads: `insert into credential_event_head (organization_id, revision, sent) select organization_id, max(revision), max(revision) from credential_event group by 1 on conflict do nothing`,
} as const;

/** Tables that are filled without their indexes, which are made anew afterwards: row by row they take most of the time. */
const TABLES = ["credential", "audit_event", "credential_event"];

/** Fills a database up to so many credentials; those that are there stay what they are. Statistics are current afterwards. */
export async function fillUp({ superuser }: BenchDatabase, credentials: number): Promise<void> {
  await superuser.query("create schema if not exists bench");
  await superuser.query(`create table bench.kept as select c.*, (row_number() over (order by md5(id::text))) * ($1::bigint / count(*) over ()) as place from credential c`, [credentials]);
  await superuser.query("create unique index on bench.kept (place)");
  await superuser.query("analyze bench.kept");
  // Neither triggers nor the sort of a new row's key: what they keep in step is filled below.
  await superuser.query("set session_replication_role = replica; set maintenance_work_mem = '512MB'; set work_mem = '256MB'");
  await superuser.query("truncate credential");
  const restore: string[] = [];
  for (const table of TABLES) restore.push(...(await withoutIndexes(superuser, table)));
  for (let from = 1; from <= credentials; from += CHUNK) await superuser.query(FILL.credentials, [from, Math.min(credentials, from + CHUNK - 1)]);
  for (const statement of [FILL.counters, FILL.records, FILL.heads, FILL.events, FILL.eventHeads]) await superuser.query(statement);
  for (const statement of restore) await superuser.query(statement);
  await superuser.query("drop table bench.kept");
  await superuser.query("reset session_replication_role");
  await superuser.query("vacuum (analyze)");
  await superuser.query("checkpoint");
}

/** Drops every index of a table; gives the statements that make them anew. */
async function withoutIndexes(superuser: pg.Client, table: string): Promise<string[]> {
  const { rows } = await superuser.query<{ name: string; index: string; constraint_def: string | null }>(
    `select i.indexrelid::regclass::text as name, pg_get_indexdef(i.indexrelid) as index, pg_get_constraintdef(k.oid) as constraint_def
    from pg_index i left join pg_constraint k on k.conindid = i.indexrelid and k.contype = 'p' where i.indrelid = $1::regclass`, [table]);
  for (const { name, constraint_def } of rows) await superuser.query(constraint_def === null ? `drop index ${name}` : `alter table ${table} drop constraint ${name}`);
  return rows.map(({ name, index, constraint_def }) => (constraint_def === null ? index : `alter table ${table} add constraint ${name} ${constraint_def}`));
}

/** Bytes on the disk of one table: its rows, and all its indexes. */
export interface Size {
  readonly table: string;
  readonly rows: number;
  readonly indexes: number;
}

/** How large the tables are that grow with credentials and calls. */
export async function sizesOf({ superuser }: BenchDatabase): Promise<Size[]> {
  const { rows } = await superuser.query("select c.relname as table, pg_table_size(c.oid)::float8 as rows, pg_indexes_size(c.oid)::float8 as indexes from pg_class c where c.oid = any($1::regclass[])", [[...TABLES, "credential_counter"].map((table) => `public.${table}`)]);
  return rows as Size[];
}
