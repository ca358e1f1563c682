/**
 * Makes a table a tenant's: every row is visible and writable only for the organizations that the transaction names in
 * `app.organizations`, for the owner too. The setting is read in a sub-select, which PostgreSQL evaluates once a
 * statement; without it the array is parsed anew for every row. An unset or reset setting is null or empty: no rows.
 */
export const tenantTable = (table: string): string => `
alter table ${table} enable row level security;
alter table ${table} force row level security;
create policy ${table}_of_organization on ${table}
  using (organization_id = any((select nullif(current_setting('app.organizations', true), '')::uuid[])::uuid[]))
  with check (organization_id = any((select nullif(current_setting('app.organizations', true), '')::uuid[])::uuid[]));
`;
