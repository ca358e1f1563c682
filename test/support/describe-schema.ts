import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import pg from "pg";

/** Where the description is kept. */
export const SCHEMA_FILE = fileURLToPath(new URL("../schema.sql", import.meta.url));

/** The parts of the description, each a query that gives ordered lines. Read from the catalog, not from our own sources. */
const PARTS: Readonly<Record<string, string>> = {
  types: `select format('create domain %I as %s; -- %s', t.typname, format_type(t.typbasetype, t.typtypmod),
      (select string_agg(conname || ' ' || pg_get_constraintdef(oid), ', ' order by conname) from pg_constraint where contypid = t.oid)) as line
    from pg_type t where t.typnamespace = 'public'::regnamespace and t.typtype = 'd' order by t.typname`,
  tables: `select format('table %I owner %I rls %s force %s', c.relname, pg_get_userbyid(c.relowner), c.relrowsecurity, c.relforcerowsecurity) as line
    from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S') order by c.relname`,
  columns: `select format('column %I.%I %s%s%s storage %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
      case when a.attnotnull then ' not null' else '' end, coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), ''), a.attstorage) as line
    from pg_attribute a join pg_class c on c.oid = a.attrelid left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v') and a.attnum > 0 and not a.attisdropped order by c.relname, a.attnum`,
  constraints: `select format('constraint %s on %s: %s', o.conname, o.conrelid::regclass, pg_get_constraintdef(o.oid)) as line
    from pg_constraint o where o.connamespace = 'public'::regnamespace and o.conrelid <> 0 order by o.conrelid::regclass::text, o.conname`,
  indexes: `select indexdef as line from pg_indexes where schemaname = 'public' order by tablename, indexname`,
  policies: `select format('policy %s on %s for %s to %s using (%s) with check (%s)', policyname, tablename, cmd, array_to_string(roles, ','), qual, with_check) as line
    from pg_policies where schemaname = 'public' order by tablename, policyname`,
  triggers: `select pg_get_triggerdef(t.oid) as line from pg_trigger t join pg_class c on c.oid = t.tgrelid
    where c.relnamespace = 'public'::regnamespace and not t.tgisinternal order by c.relname, t.tgname`,
  functions: `select pg_get_functiondef(p.oid) as line from pg_proc p where p.pronamespace = 'public'::regnamespace order by p.proname, p.oid::regprocedure::text`,
  comments: `select format('comment on %s %s: %s', i.type, i.identity, d.description) as line
    from pg_description d, lateral pg_identify_object(d.classoid, d.objoid, d.objsubid) i
    where i.schema = 'public' order by i.type, i.identity collate "C"`,
  grants: `select line from (
      select format('grant %s on %I to %I', string_agg(lower(g.privilege_type), ', ' order by g.privilege_type), g.table_name, g.grantee) as line
        from information_schema.role_table_grants g where g.table_schema = 'public' and g.grantee <> 'credentials_owner' group by g.table_name, g.grantee
      union all
      select format('grant %s (%s) on %s to %I', lower(x.privilege_type), string_agg(a.attname, ', ' order by a.attnum), c.relname, pg_get_userbyid(x.grantee))
        from pg_attribute a join pg_class c on c.oid = a.attrelid, lateral aclexplode(a.attacl) x
        where c.relnamespace = 'public'::regnamespace and a.attnum > 0 group by x.privilege_type, c.relname, x.grantee
      union all
      select format('grant execute on function %s to %s', p.oid::regprocedure, case when x.grantee = 0 then 'public' else pg_get_userbyid(x.grantee)::text end)
        from pg_proc p, lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x
        where p.pronamespace = 'public'::regnamespace and x.grantee <> p.proowner) g order by line collate "C"`,
};

/** The schema of a database as text: every table, column, constraint, index, policy, trigger, function, comment and grant. */
export async function describeSchema(client: pg.Client): Promise<string> {
  await client.query("set search_path = public");
  const parts: string[] = ["-- Described from pg_catalog. To update: node test/support/describe-schema.ts --write"];
  for (const [title, query] of Object.entries(PARTS)) {
    const { rows } = await client.query<{ line: string }>(query);
    parts.push(`\n-- ${title}\n`, ...rows.map(({ line }) => line.trimEnd()));
  }
  return `${parts.join("\n")}\n`;
}

/** Migrates an empty database of its own and describes it. */
async function write(): Promise<void> {
  const { mkdtempSync, rmSync } = await import("node:fs");
  const { startEmbedded } = await import("../../src/store/embedded.ts");
  const { migrate } = await import("../../src/store/migrate.ts");
  const { parseDatabaseUrl } = await import("../../src/store/connection.ts");
  const folder = mkdtempSync("/tmp/flow-schema-");
  const server = await startEmbedded(folder);
  await migrate({ url: server.ownerUrl, applicationRole: "credentials_app" });
  const client = new pg.Client(parseDatabaseUrl(server.superuserUrl));
  await client.connect();
  writeFileSync(SCHEMA_FILE, await describeSchema(client));
  await client.end();
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
}

if (process.argv.includes("--write") && process.argv[1] === fileURLToPath(import.meta.url)) await write();
