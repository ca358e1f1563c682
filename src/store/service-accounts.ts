import { fail } from "../domain/errors.ts";
import { askedEvents, eventRow, recordAnswer } from "./audit.ts";
import { type Database, known } from "./db.ts";
import type { KeyLookup } from "./key-lookup.ts";
import { scopeOf, serviceAccount, serviceAccountKey } from "./rows.ts";
import type { ServiceAccountStore } from "./store.ts";
import type { Row, Statement } from "./transaction.ts";
import { NOW } from "./now.ts";

/** Columns of an account, of the table of that name. */
const accountColumns = (table: string): string =>
  ["organization_id", "id", "name", "description", "status", "granted_providers", "granted_credentials", "created_at", "updated_at", "modified_by"].map((column) => `${table}.${column}`).join(", ");

/** Columns of a key and of its label. */
const KEY_COLUMNS = `k.organization_id, k.id, k.service_account_id, k.token_prefix, k.created_at, k.expires_at, k.revoked_at,
  l.name, l.description, l.updated_at, l.modified_by, l.last_used_at`;

const CREATE: Statement = {
  name: "service_account_create",
  text: `with ${askedEvents("$8")}, created as (
  insert into service_account as a (organization_id, id, name, description, granted_providers, granted_credentials, modified_by)
  values ($1, $2, $3, $4, $5, $6, $7) returning ${accountColumns("a")}
), happened as (
  select asked.* from asked, created
), ${recordAnswer("happened", "created")}
select * from created`,
};

/** A boolean beside each value says whether it is to be changed: null is a value of its own for a description. */
const UPDATE: Statement = {
  name: "service_account_update",
  text: `with ${askedEvents("$8")}, changed as (
  update service_account a set name = coalesce($3, a.name), description = case when $4 then $5 else a.description end, status = coalesce($6, a.status),
    modified_by = $7, updated_at = ${NOW}
  where a.organization_id = $1 and a.id = $2 and a.deleted_at is null returning ${accountColumns("a")}
), happened as (
  select asked.* from asked, changed
), ${recordAnswer("happened", "changed")}
select * from changed`,
};

const SET_SCOPE: Statement = {
  name: "service_account_set_scope",
  text: `with ${askedEvents("$6")}, changed as (
  update service_account a set granted_providers = $3, granted_credentials = $4, modified_by = $5, updated_at = ${NOW}
  where a.organization_id = $1 and a.id = $2 and a.deleted_at is null returning ${accountColumns("a")}
), happened as (
  select asked.* from asked, changed
), ${recordAnswer("happened", "changed")}
select * from changed`,
};

const REMOVE: Statement = {
  name: "service_account_remove",
  text: `with ${askedEvents("$4")}, changed as (
  update service_account a set deleted_at = ${NOW}, status = 'inactive', modified_by = $3, updated_at = ${NOW}
  where a.organization_id = $1 and a.id = $2 and a.deleted_at is null returning ${accountColumns("a")}
), revoked as (
  update service_account_key k set revoked_at = ${NOW} from changed
  where k.organization_id = changed.organization_id and k.service_account_id = changed.id and k.revoked_at is null
), happened as (
  select asked.* from asked, changed
), ${recordAnswer("happened", "changed")}
select id from changed`,
};

/** Inserts nothing, and records nothing, where the account is missing. */
const CREATE_KEY: Statement = {
  name: "service_account_key_create",
  text: `with ${askedEvents("$10")}, made as (
  insert into service_account_key (organization_id, service_account_id, id, token_prefix, token_hash, expires_at)
  select a.organization_id, a.id, $3::uuid, $4::text, $5::bytea, $6::timestamptz
  from service_account a where a.organization_id = $1 and a.id = $2 and a.deleted_at is null
  returning organization_id, id, service_account_id, token_prefix, created_at, expires_at, revoked_at
), labelled as (
  insert into service_account_key_label (organization_id, id, name, description, modified_by)
  select organization_id, id, $7::text, $8::text, $9::text from made returning organization_id, id, name, description, updated_at, modified_by, last_used_at
), created as (
  select ${KEY_COLUMNS} from made k join labelled l on l.id = k.id
), happened as (
  select asked.* from asked, created
), ${recordAnswer("happened", "created")}
select * from created`,
};

/** The account leads to its keys: it is the one of the two tables that row-level security guards. */
const OWN_KEY = `from service_account_key k join service_account a on a.organization_id = k.organization_id and a.id = k.service_account_id and a.deleted_at is null
  where k.organization_id = $1 and k.service_account_id = $2 and k.id = $3 and k.revoked_at is null`;

const UPDATE_KEY: Statement = {
  name: "service_account_key_update",
  text: `with ${askedEvents("$8")}, own as (
  select k.* ${OWN_KEY}
), labelled as (
  update service_account_key_label l set name = coalesce($4, l.name), description = case when $5 then $6 else l.description end,
    modified_by = $7, updated_at = ${NOW}
  from own where l.organization_id = own.organization_id and l.id = own.id returning l.*
), changed as (
  select ${KEY_COLUMNS} from own k join labelled l on l.id = k.id
), happened as (
  select asked.* from asked, changed
), ${recordAnswer("happened", "changed")}
select * from changed`,
};

const REVOKE_KEY: Statement = {
  name: "service_account_key_revoke",
  text: `with ${askedEvents("$5")}, own as (
  select k.organization_id, k.id ${OWN_KEY}
), revoked as (
  update service_account_key k set revoked_at = ${NOW} from own where k.organization_id = own.organization_id and k.id = own.id and k.revoked_at is null
  returning k.organization_id, k.id
), labelled as (
  update service_account_key_label l set modified_by = $4, updated_at = ${NOW} from revoked r where l.organization_id = r.organization_id and l.id = r.id
), happened as (
  select asked.* from asked, revoked
), ${recordAnswer("happened", "revoked")}
select id from revoked`,
};

const LAST_USED = `(select max(l.last_used_at) from service_account_key k join service_account_key_label l on l.organization_id = k.organization_id and l.id = k.id
  where k.organization_id = a.organization_id and k.service_account_id = a.id) as last_used_at`;

const one = (rows: Row[]): Row => {
  const [row] = rows;
  if (row === undefined) throw fail("INTERNAL", { cause: new Error("a write gave back no row") });
  return row;
};

/** Service accounts and their keys. */
export function serviceAccountStore(database: Database, lookup: KeyLookup): ServiceAccountStore {
  const write = (organizationId: string, statement: Statement, values: readonly unknown[], event: Parameters<typeof eventRow>[0]): Promise<Row[]> => {
    const audited = eventRow(event);
    return database.write([...new Set([organizationId, audited.organization_id])], statement, [...values, JSON.stringify([audited])]);
  };
  const read = async (organizationId: string, sql: string, values: readonly unknown[]): Promise<Row[]> => {
    const { rows } = await database.read<{ rows: Row[] }>(organizationId, (trx) => trx.raw(sql, [...values] as string[]));
    return rows;
  };
  const get: ServiceAccountStore["get"] = async (organizationId, id) => {
    const [row] = await read(organizationId, `select ${accountColumns("a")}, ${LAST_USED} from service_account a where a.organization_id = ? and a.id = ? and a.deleted_at is null`, [organizationId, known(id)]);
    return row === undefined ? undefined : serviceAccount(row);
  };
  return {
    get,

    async create({ organizationId, id, name, description = null, scope = null, modifiedBy = "operator" }, event) {
      const values = [organizationId, known(id), name, description, scope?.providers ?? null, scope?.credentialIds.map(known) ?? null, modifiedBy];
      return serviceAccount(one(await write(organizationId, CREATE, values, event)));
    },

    async list(organizationId, { offset, limit }) {
      const rows = await read(
        organizationId,
        `select ${accountColumns("a")}, ${LAST_USED} from service_account a where a.organization_id = ? and a.deleted_at is null order by a.created_at desc, a.id desc limit ? offset ?`,
        [organizationId, limit, offset],
      );
      return rows.map(serviceAccount);
    },

    async update(organizationId, id, { name = null, description, status = null, modifiedBy }, event) {
      const values = [organizationId, known(id), name, description !== undefined, description ?? null, status, modifiedBy];
      const [row] = await write(organizationId, UPDATE, values, event);
      return row === undefined ? undefined : serviceAccount(row);
    },

    async setScope(organizationId, id, scope, modifiedBy, event) {
      const [row] = await write(organizationId, SET_SCOPE, [organizationId, known(id), scope?.providers ?? null, scope?.credentialIds.map(known) ?? null, modifiedBy], event);
      return row === undefined ? undefined : serviceAccount(row);
    },

    async remove(organizationId, id, modifiedBy, event) {
      return (await write(organizationId, REMOVE, [organizationId, known(id), modifiedBy], event)).length > 0;
    },

    async createKey({ organizationId, serviceAccountId, id, tokenPrefix, tokenHash, expiresAt, name = "key", description = null, modifiedBy = "operator" }, event) {
      const values = [organizationId, known(serviceAccountId), known(id), tokenPrefix, tokenHash, expiresAt, name, description, modifiedBy];
      const [row] = await write(organizationId, CREATE_KEY, values, event);
      if (row === undefined) throw fail("SERVICE_ACCOUNT_NOT_FOUND");
      return serviceAccountKey(row);
    },

    async listKeys(organizationId, serviceAccountId, { offset, limit }) {
      const rows = await read(
        organizationId,
        `select ${KEY_COLUMNS} from service_account a
          left join service_account_key k on k.organization_id = a.organization_id and k.service_account_id = a.id and k.revoked_at is null
          left join service_account_key_label l on l.organization_id = k.organization_id and l.id = k.id
        where a.organization_id = ? and a.id = ? and a.deleted_at is null order by k.created_at desc, k.id desc limit ? offset ?`,
        [organizationId, known(serviceAccountId), limit, offset],
      );
      if (rows.length === 0) return offset > 0 && (await get(organizationId, serviceAccountId)) ? [] : undefined;
      return rows.filter((row) => row["id"] !== null).map(serviceAccountKey);
    },

    async updateKey(organizationId, serviceAccountId, id, { name = null, description, modifiedBy }, event) {
      const values = [organizationId, known(serviceAccountId), known(id), name, description !== undefined, description ?? null, modifiedBy];
      const [row] = await write(organizationId, UPDATE_KEY, values, event);
      return row === undefined ? undefined : serviceAccountKey(row);
    },

    async revokeKey(organizationId, serviceAccountId, id, modifiedBy, event) {
      return (await write(organizationId, REVOKE_KEY, [organizationId, known(serviceAccountId), known(id), modifiedBy], event)).length > 0;
    },

    keyByPrefix: (tokenPrefix) => lookup.find(tokenPrefix),

    async standing(organizationId, id, keyId) {
      const [row] = await read(
        organizationId,
        `select a.id, a.status = 'active' and a.deleted_at is null as active, a.granted_providers, a.granted_credentials,
          exists (select from service_account_key k where k.organization_id = o.organization_id and k.id = ? and k.service_account_id = ?
            and k.revoked_at is null and (k.expires_at is null or k.expires_at > clock_timestamp())) as proved
        from (select ?::uuid as organization_id) o left join service_account a on a.organization_id = o.organization_id and a.id = ?`,
        [keyId === null ? null : known(keyId), known(id), organizationId, known(id)],
      );
      const standing = one(row === undefined ? [] : [row]);
      if (standing["id"] === null) return { good: keyId === null, scope: null };
      return { good: standing["active"] === true && (keyId === null || standing["proved"] === true), scope: scopeOf(standing) };
    },
  };
}
