import { fail } from "../domain/errors.ts";
import { recordIn } from "./audit.ts";
import { type Database, known } from "./db.ts";
import type { KeyRegistryStore, OrganizationKeyRow, OrganizationKeyStore } from "./store.ts";
import type { Row, Statement } from "./transaction.ts";

const COLUMNS = "organization_id, version, wrapped, commitment, state";

const BY_VERSION: Statement = { name: "organization_key_get", text: `select ${COLUMNS} from organization_key where organization_id = $1 and version = $2` };

const CURRENT: Statement = {
  name: "organization_key_current",
  text: `select ${COLUMNS} from organization_key where organization_id = $1 order by state = 'sealing' desc, version desc limit 1`,
};

const keyRow = (row: Row): OrganizationKeyRow => ({
  organizationId: row["organization_id"] as string,
  version: Number(row["version"]),
  wrapped: row["wrapped"] as Buffer | null,
  commitment: row["commitment"] as Buffer,
  retired: row["state"] === "retired",
});

const INSERT_FIRST: Statement = {
  name: "organization_key_insert_first",
  text: `insert into organization_key (organization_id, version, wrapped, master_key_id, commitment) values ($1, $2, $3, $4, $5)
on conflict do nothing
returning ${COLUMNS}`,
};

/** Wrapped keys of organizations. */
export function organizationKeyStore(database: Database): OrganizationKeyStore {
  const byVersion = async (organizationId: string, version: number): Promise<OrganizationKeyRow | undefined> => {
    const [row] = await database.query([organizationId], BY_VERSION, [organizationId, version]);
    return row && keyRow(row);
  };
  return {
    byVersion,

    async current(organizationId) {
      const [row] = await database.query([organizationId], CURRENT, [organizationId]);
      return row && keyRow(row);
    },

    async insertFirst(row) {
      const [inserted] = await database.write([row.organizationId], INSERT_FIRST, [row.organizationId, row.version, row.wrapped, row.masterKeyId, row.commitment]);
      if (inserted !== undefined) return keyRow(inserted);
      // Another process was faster, and has committed: a conflict is only reported then.
      const standing = await byVersion(row.organizationId, row.version);
      if (standing === undefined) throw fail("INTERNAL", { cause: new Error("an organization key vanished") });
      return standing;
    },

    async newestVersion(organizationId) {
      const row: Row | undefined = await database.read(organizationId, (trx) => trx("organization_key").max("version as newest").where("organization_id", organizationId).first());
      return row?.["newest"] === null || row === undefined ? undefined : Number(row["newest"]);
    },

    async destroy(organizationId, event) {
      return database.transact([organizationId], async (trx) => {
        // A row of version 1 keeps everyone from making a key afterwards, and is what every change of the keys locks.
        await trx.raw(
          `insert into organization_key (organization_id, version, wrapped, master_key_id, commitment, destroyed_at)
          values (?, 1, null, null, decode(repeat('00', 32), 'hex'), clock_timestamp()) on conflict (organization_id, version) do nothing`,
          [known(organizationId)],
        );
        await trx("organization_key").select("version").where({ organization_id: organizationId, version: 1 }).forUpdate();
        const destroyed = await trx("organization_key").where("organization_id", organizationId).whereNotNull("wrapped")
          .update({ wrapped: null, master_key_id: null, destroyed_at: trx.raw("clock_timestamp()") });
        await trx("rotation").where({ organization_id: organizationId, kind: "organization_key" }).whereIn("state", ["running", "paused", "proving", "proven", "incomplete"])
          .update({ state: "retired", holder: null, finished_at: trx.raw("clock_timestamp()") });
        await recordIn(trx, [event]);
        return destroyed;
      });
    },
  };
}

const REGISTER: Statement = {
  name: "key_registry_register",
  text: `insert into key_registry (master_key_id, check_value) values ($1, $2) on conflict (master_key_id) do nothing`,
};

const SET_CANARY: Statement = {
  name: "key_registry_set_canary",
  text: `update key_registry set canary = $2, canary_commitment = $3 where master_key_id = $1 and canary is null`,
};

const REGISTER_FOREIGN: Statement = {
  name: "foreign_key_check_register",
  text: "insert into foreign_key_check (check_value) select unnest($1::bytea[]) on conflict (check_value) do nothing",
};

/** What is known of the master keys. */
export function keyRegistryStore(database: Database): KeyRegistryStore {
  return {
    async list() {
      const rows: Row[] = await database.read(null, (trx) =>
        trx("key_registry as r")
          .fullOuterJoin(trx("organization_key_place").select("master_key_id").count("* as n").groupBy("master_key_id").as("u"), "u.master_key_id", "r.master_key_id")
          .select(trx.raw("coalesce(r.master_key_id, u.master_key_id) as id"), "r.check_value", "r.canary", "r.canary_commitment", "r.first_seen", "r.retired_at", trx.raw("coalesce(u.n, 0) as n"))
          .orderBy("id"),
      );
      return rows.map((row) => ({
        id: row["id"] as string,
        checkValue: (row["check_value"] as Buffer | null) ?? Buffer.alloc(0),
        inUse: Number(row["n"]),
        firstSeen: row["first_seen"] as Date | null,
        retiredAt: row["retired_at"] as Date | null,
        canary: row["canary"] === null ? null : { wrapped: row["canary"] as Buffer, commitment: row["canary_commitment"] as Buffer },
      }));
    },

    async register(id, checkValue) {
      await database.write([], REGISTER, [id, checkValue]);
      const row: Row | undefined = await database.read(null, (trx) => trx("key_registry").first("check_value").where("master_key_id", id));
      if (row === undefined) throw fail("INTERNAL", { cause: new Error("a master key vanished from the registry") });
      return row["check_value"] as Buffer;
    },

    async setCanary(id, { wrapped, commitment }) {
      await database.write([], SET_CANARY, [id, wrapped, commitment]);
    },

    async primary() {
      const row: Row | undefined = await database.read(null, (trx) => trx("primary_master_key").first("master_key_id"));
      return row?.["master_key_id"] as string | undefined;
    },

    async registerForeign(checkValues) {
      await database.write([], REGISTER_FOREIGN, [checkValues]);
    },

    async foreign() {
      const rows: Row[] = await database.read(null, (trx) => trx("foreign_key_check").select("check_value"));
      return rows.map((row) => row["check_value"] as Buffer);
    },
  };
}
