import type { Knex } from "knex";
import type { AuditEvent } from "../domain/access.ts";
import { fail } from "../domain/errors.ts";
import { recordIn } from "./audit.ts";
import { type Database, known } from "./db.ts";
import { SECRET_TABLES } from "./sealed-columns.ts";
import type { Row } from "./transaction.ts";

/** What every rotation begins with. */
export interface Beginning {
  /** UUID of the rotation. */
  readonly id: string;
  /** Most rows in a second; null for no limit. */
  readonly rowsPerSecond: number | null;
  /** Subject of the operator. */
  readonly startedBy: string;
  /** The rotation that it takes back, which thereby ends. */
  readonly rollsBack: string | null;
}

/** A new version of an organization's key. */
export interface NewOrganizationKey {
  readonly organizationId: string;
  /** One above the newest there is. */
  readonly version: number;
  readonly wrapped: Buffer;
  readonly masterKeyId: string;
  readonly commitment: Buffer;
}

/** Begins rotations. Each commits with its audit event, or changes nothing. Throws ROTATION_UNDER_WAY where one has not ended. */
export interface RotationBeginnings {
  /**
   * Promotes a master key. Throws KEY_UNKNOWN, KEY_RETIRED, and KEY_NOT_LOADED_EVERYWHERE while a replica that is alive has
   * not reported it.
   */
  masterKey(beginning: Beginning & { readonly masterKeyId: string }, event: AuditEvent): Promise<void>;
  /** Lets a new key seal. Throws ORGANIZATION_NOT_FOUND, ORGANIZATION_DESTROYED, and KEY_MOVED where the version is taken by now. */
  organizationKey(beginning: Beginning & { readonly key: NewOrganizationKey }, event: AuditEvent): Promise<void>;
  /** Lets an older key seal again. Throws ROTATION_STATE where it is retired. */
  organizationKeyBack(beginning: Beginning & { readonly organizationId: string; readonly version: number }, event: AuditEvent): Promise<void>;
  /** Changes nothing of any key. Throws ORGANIZATION_NOT_FOUND and ORGANIZATION_DESTROYED: there is nothing to read back then. */
  verification(beginning: Beginning & { readonly organizationId: string | null }, event: AuditEvent): Promise<void>;
}

/** States of a rotation that can still be taken back. */
export const REVERSIBLE = ["running", "paused", "proving", "proven", "incomplete"];

async function insert(trx: Knex.Transaction, beginning: Beginning, facts: Record<string, unknown>, event: AuditEvent): Promise<void> {
  if (beginning.rollsBack !== null) {
    const ended = await trx("rotation").where("id", known(beginning.rollsBack)).whereIn("state", REVERSIBLE)
      .update({ state: "rolled_back", holder: null, finished_at: trx.raw("clock_timestamp()") });
    if (ended !== 1) throw fail("ROTATION_STATE");
  }
  await trx("rotation").insert({
    id: known(beginning.id),
    state: "running",
    rows_per_second: beginning.rowsPerSecond,
    started_by: beginning.startedBy,
    rolls_back: beginning.rollsBack,
    ...facts,
  });
  await recordIn(trx, [event]);
}

/** Locks an organization's keys against every other change of them, and gives them, oldest first. Version 1 always exists. */
async function lockKeys(trx: Knex.Transaction, organizationId: string): Promise<{ version: number; state: string; destroyed: boolean }[]> {
  await trx("organization_key").select("version").where({ organization_id: organizationId, version: 1 }).forUpdate();
  // A statement of its own sees what was committed while the lock was waited for.
  const rows: Row[] = await trx("organization_key").select("version", "state", trx.raw("wrapped is null as destroyed")).where("organization_id", organizationId).orderBy("version");
  if (rows.length === 0) throw fail("ORGANIZATION_NOT_FOUND");
  if (rows.every((row) => row["destroyed"] === true)) throw fail("ORGANIZATION_DESTROYED");
  return rows.map((row) => ({ version: Number(row["version"]), state: row["state"] as string, destroyed: row["destroyed"] as boolean }));
}

/** Counts in both directions from the version, so that the index is read only where something is left. */
const NOT_UNDER = SECRET_TABLES.flatMap((table) => ["<", ">"].map((side) => `(select count(*) from ${table} where organization_id = :organizationId and key_version ${side} :version)`)).join(" + ");

/** How many secrets of an organization are sealed under another version of its key. */
export async function countSecretsNotUnder(trx: Knex.Transaction, organizationId: string, version: number): Promise<number> {
  const { rows } = (await trx.raw(`select ${NOT_UNDER} as n`, { organizationId, version })) as { rows: Row[] };
  return Number(rows[0]?.["n"]);
}

/** Which version seals is changed in this order, because only one may at any time. */
async function letSeal(trx: Knex.Transaction, organizationId: string, version: number): Promise<void> {
  await trx("organization_key").where({ organization_id: organizationId, state: "sealing" }).update({ state: "opening" });
  await trx("organization_key").where({ organization_id: organizationId, version }).update({ state: "sealing" });
}

/** Ways to begin a rotation. */
export function rotationBeginnings(database: Database): RotationBeginnings {
  return {
    async masterKey(beginning, event) {
      const { masterKeyId } = beginning;
      await database.transact([event.organizationId], async (trx) => {
        // Replicas report under a share lock of this row: from here on none reports, and what was reported is seen below.
        const before: Row | undefined = await trx("primary_master_key").first("master_key_id").forUpdate();
        const registered: Row | undefined = await trx("key_registry").first("retired_at").where("master_key_id", masterKeyId);
        if (registered === undefined) throw fail("KEY_UNKNOWN");
        if (registered["retired_at"] !== null) throw fail("KEY_RETIRED");
        const { rows: lacking } = (await trx.raw("select id from replica where alive_until > clock_timestamp() and not master_key_ids @> array[?]::text[] limit 1", [masterKeyId])) as { rows: Row[] };
        if (lacking.length > 0) throw fail("KEY_NOT_LOADED_EVERYWHERE");
        const from = (before?.["master_key_id"] as string | undefined) ?? masterKeyId;
        await trx("primary_master_key").update({ master_key_id: masterKeyId, promoted_at: trx.raw("clock_timestamp()") });
        const used: Row[] = await trx("organization_key_place").select("master_key_id").count("* as n").whereNot("master_key_id", masterKeyId).groupBy("master_key_id");
        const emptied = new Set(used.map((row) => row["master_key_id"] as string));
        if (from !== masterKeyId) emptied.add(from);
        await insert(trx, beginning, {
          kind: "master_key",
          from_master_key_id: from === masterKeyId ? null : from,
          to_master_key_id: masterKeyId,
          emptied: [...emptied].toSorted(),
          rows_total: used.reduce((sum, row) => sum + Number(row["n"]), 0),
        }, event);
      });
    },

    async organizationKey(beginning, event) {
      const { organizationId, version, wrapped, masterKeyId, commitment } = beginning.key;
      await database.transact([organizationId], async (trx) => {
        const keys = await lockKeys(trx, organizationId);
        if (keys.at(-1)?.version !== version - 1) throw fail("KEY_MOVED");
        await trx("organization_key").insert({ organization_id: organizationId, version, wrapped, master_key_id: masterKeyId, commitment, state: "opening" });
        await letSeal(trx, organizationId, version);
        const from = keys.find(({ state }) => state === "sealing")?.version ?? null;
        const rows_total = await countSecretsNotUnder(trx, organizationId, version);
        await insert(trx, beginning, { kind: "organization_key", organization_id: organizationId, from_version: from, to_version: version, rows_total }, event);
      });
    },

    async organizationKeyBack(beginning, event) {
      const { organizationId, version } = beginning;
      await database.transact([organizationId], async (trx) => {
        const keys = await lockKeys(trx, organizationId);
        const old = keys.find((key) => key.version === version);
        if (old === undefined || old.state === "retired" || old.state === "sealing") throw fail("ROTATION_STATE");
        await letSeal(trx, organizationId, version);
        const from = keys.find(({ state }) => state === "sealing")?.version ?? null;
        const rows_total = await countSecretsNotUnder(trx, organizationId, version);
        await insert(trx, beginning, { kind: "organization_key", organization_id: organizationId, from_version: from, to_version: version, rows_total }, event);
      });
    },

    async verification(beginning, event) {
      const { organizationId } = beginning;
      await database.transact([event.organizationId], async (trx) => {
        if (organizationId !== null) await lockKeys(trx, organizationId);
        await insert(trx, beginning, { kind: "verification", organization_id: organizationId, rows_total: 0 }, event);
      });
    },
  };
}
