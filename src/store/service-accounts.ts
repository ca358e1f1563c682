import { fail } from "../domain/errors.ts";
import { askedEvents, eventRow, recordEvents } from "./audit.ts";
import { type Database, known } from "./db.ts";
import type { KeyLookup } from "./key-lookup.ts";
import type { ServiceAccountStore } from "./store.ts";
import type { Statement } from "./transaction.ts";

const CREATE: Statement = {
  name: "service_account_create",
  text: `with ${askedEvents("$4")}, created as (
  insert into service_account (organization_id, id, name) values ($1, $2, $3) returning created_at
), ${recordEvents("asked")}
select created_at from created`,
};

/** Inserts nothing, and records nothing, where the account is missing. */
const CREATE_KEY: Statement = {
  name: "service_account_key_create",
  text: `with ${askedEvents("$7")}, created as (
  insert into service_account_key (organization_id, service_account_id, id, token_prefix, token_hash, expires_at)
  select a.organization_id, a.id, $3::uuid, $4::text, $5::bytea, $6::timestamptz
  from service_account a where a.organization_id = $1 and a.id = $2
  returning created_at
), happened as (
  select asked.* from asked, created
), ${recordEvents("happened")}
select created_at from created`,
};

/** Service accounts and their keys. */
export function serviceAccountStore(database: Database, lookup: KeyLookup): ServiceAccountStore {
  return {
    async create(row, event) {
      const audited = eventRow(event);
      const organizations = [...new Set([row.organizationId, audited.organization_id])];
      const [created] = await database.write(organizations, CREATE, [row.organizationId, known(row.id), row.name, JSON.stringify([audited])]);
      if (created === undefined) throw fail("INTERNAL", { cause: new Error("a write gave back no row") });
      return { ...row, createdAt: created["created_at"] as Date };
    },

    async createKey(row, event) {
      const audited = eventRow(event);
      const organizations = [...new Set([row.organizationId, audited.organization_id])];
      const [created] = await database.write(organizations, CREATE_KEY, [
        row.organizationId, known(row.serviceAccountId), known(row.id), row.tokenPrefix, row.tokenHash, row.expiresAt, JSON.stringify([audited]),
      ]);
      if (created === undefined) throw fail("SERVICE_ACCOUNT_NOT_FOUND");
      return { ...row, createdAt: created["created_at"] as Date, revokedAt: null };
    },

    keyByPrefix: (tokenPrefix) => lookup.find(tokenPrefix),
  };
}
