import { fail } from "../domain/errors.ts";
import type { Database } from "./db.ts";
import type { KeyRegistryStore, OrganizationKeyRow, OrganizationKeyStore } from "./store.ts";
import type { Row, Statement } from "./transaction.ts";

const COLUMNS = ["organization_id", "version", "wrapped", "commitment"] as const;

const keyRow = (row: Row): OrganizationKeyRow => ({
  organizationId: row["organization_id"] as string,
  version: Number(row["version"]),
  wrapped: row["wrapped"] as Buffer | null,
  commitment: row["commitment"] as Buffer,
});

const INSERT_FIRST: Statement = {
  name: "organization_key_insert_first",
  text: `insert into organization_key (organization_id, version, wrapped, master_key_id, commitment) values ($1, $2, $3, $4, $5)
on conflict (organization_id, version) do nothing
returning organization_id, version, wrapped, commitment`,
};

/** Wrapped keys of organizations. */
export function organizationKeyStore(database: Database): OrganizationKeyStore {
  const byVersion = async (organizationId: string, version: number): Promise<OrganizationKeyRow | undefined> => {
    const row: Row | undefined = await database.read(organizationId, (trx) =>
      trx("organization_key").first(COLUMNS).where({ organization_id: organizationId, version }),
    );
    return row === undefined ? undefined : keyRow(row);
  };
  return {
    byVersion,

    async current(organizationId) {
      const row: Row | undefined = await database.read(organizationId, (trx) =>
        trx("organization_key").first(COLUMNS).where("organization_id", organizationId).orderBy("version", "desc"),
      );
      return row === undefined ? undefined : keyRow(row);
    },

    async insertFirst(row) {
      const [inserted] = await database.write([row.organizationId], INSERT_FIRST, [row.organizationId, row.version, row.wrapped, row.masterKeyId, row.commitment]);
      if (inserted !== undefined) return keyRow(inserted);
      // Another process was faster, and has committed: a conflict is only reported then.
      const standing = await byVersion(row.organizationId, row.version);
      if (standing === undefined) throw fail("INTERNAL", { cause: new Error("an organization key vanished") });
      return standing;
    },
  };
}

const REGISTER: Statement = {
  name: "key_registry_register",
  text: `insert into key_registry (master_key_id, check_value) values ($1, $2) on conflict (master_key_id) do nothing`,
};

/** What is known of the master keys. */
export function keyRegistryStore(database: Database): KeyRegistryStore {
  return {
    async list() {
      const rows: Row[] = await database.read(null, (trx) =>
        trx("key_registry as r")
          .fullOuterJoin("master_key_use as u", "u.master_key_id", "r.master_key_id")
          .select(trx.raw("coalesce(r.master_key_id, u.master_key_id) as id"), "r.check_value", trx.raw("coalesce(u.n, 0) as n"))
          .where((query) => query.whereNotNull("r.master_key_id").orWhere("u.n", ">", 0))
          .orderBy("id"),
      );
      return rows.map((row) => ({ id: row["id"] as string, checkValue: (row["check_value"] as Buffer | null) ?? Buffer.alloc(0), inUse: Number(row["n"]) }));
    },

    async register(id, checkValue) {
      await database.write([], REGISTER, [id, checkValue]);
      const row: Row | undefined = await database.read(null, (trx) => trx("key_registry").first("check_value").where("master_key_id", id));
      if (row === undefined) throw fail("INTERNAL", { cause: new Error("a master key vanished from the registry") });
      return row["check_value"] as Buffer;
    },
  };
}
