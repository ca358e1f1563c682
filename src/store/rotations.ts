import type { AuditEvent } from "../domain/access.ts";
import { fail } from "../domain/errors.ts";
import { MAX_FAILURES, type Rotation, type RotationKindName, type RotationStateName, type RotationTally, type UnreadableRow } from "../domain/rotation.ts";
import { askedEvents, eventRow, recordEvents, recordIn } from "./audit.ts";
import { type Database, known } from "./db.ts";
import { countSecretsNotUnder, REVERSIBLE, type RotationBeginnings, rotationBeginnings } from "./rotation-begin.ts";
import { OUTLIVED_COLUMNS } from "./sealed-columns.ts";
import type { Row, Statement } from "./transaction.ts";

/** What a replica has done since it reported last; counts are added, except for those that begin anew with a pass. */
export interface Progress {
  readonly moved: number;
  /** Rows read back in this proof so far. */
  readonly verified: number;
  /** Rows that did not open in this pass so far. */
  readonly failed: number;
}

/** What the holder of a rotation is told when it reports. */
export interface Orders {
  readonly rowsPerSecond: number | null;
}

/** How a piece of work ended. */
export interface Ending {
  readonly state: "proving" | "proven" | "incomplete" | "running";
  readonly failures: readonly UnreadableRow[];
  /** SHA-256 over the proof; null unless it is proven. */
  readonly proof: Buffer | null;
  readonly progress: Progress;
}

/** Rotations, and who works on them. */
export interface RotationStore {
  readonly begin: RotationBeginnings;
  get(id: string): Promise<Rotation | undefined>;
  /** The newest, newest first. */
  list(limit: number): Promise<Rotation[]>;
  /** Those that are not over, by kind and state; a proven one is over once its old keys are retired. */
  tally(): Promise<RotationTally[]>;
  /** Takes a rotation that nobody holds, for `leaseMs`; undefined where there is none to work on. */
  claim(holder: string, leaseMs: number): Promise<Rotation | undefined>;
  /** Reports and goes on holding; undefined where the rotation is no longer the holder's, or was halted. */
  report(id: string, holder: string, progress: Progress, leaseMs: number): Promise<Orders | undefined>;
  /** Says how many rows there are, once somebody has counted them. */
  measure(id: string, holder: string, rowsTotal: number): Promise<void>;
  /** Ends a piece of work, with an audit event where it is proven. False where the rotation is no longer the holder's. */
  conclude(id: string, holder: string, ending: Ending, event: AuditEvent | null): Promise<boolean>;
  /** Lets go, so that any replica may go on. */
  release(id: string, holder: string): Promise<void>;
  /** Halts or goes on, and changes the limit. Throws ROTATION_NOT_FOUND and ROTATION_STATE. */
  control(id: string, change: { readonly paused: boolean | null; readonly rowsPerSecond: number | null }, event: AuditEvent): Promise<void>;
  /** Retires what a proven rotation has emptied. Throws ROTATION_STATE, and KEY_STILL_NEEDED while short-lived values under the old key have not ended. */
  retire(rotation: Rotation, event: AuditEvent): Promise<void>;
  /** Closes the organization keys that a rotation has emptied, so that nothing is written under them any more. */
  close(rotation: Rotation): Promise<void>;
  /** Whether every transaction has ended that may have seen the keys open. */
  closedForAll(id: string): Promise<boolean>;
}

/** States of a rotation that has something left to do. */
const UNFINISHED = ["running", "paused", "proving", "incomplete"];

/** Rotations whose rows are counted for a tally. */
const COUNTED = 100;

const optionalNumber = (value: unknown): number | null => (value === null ? null : Number(value));

function rotationOf(row: Row, rowsLeft: number, failures: readonly UnreadableRow[]): Rotation {
  return {
    id: row["id"] as string,
    kind: row["kind"] as RotationKindName,
    state: row["state"] as RotationStateName,
    organizationId: row["organization_id"] as string | null,
    fromMasterKeyId: row["from_master_key_id"] as string | null,
    toMasterKeyId: row["to_master_key_id"] as string | null,
    fromVersion: optionalNumber(row["from_version"]),
    toVersion: optionalNumber(row["to_version"]),
    rowsTotal: Number(row["rows_total"]),
    rowsLeft,
    rowsMoved: Number(row["rows_moved"]),
    rowsVerified: Number(row["rows_verified"]),
    rowsFailed: Number(row["rows_failed"]),
    failures,
    rowsPerSecond: row["rows_per_second"] as number | null,
    startedAt: row["started_at"] as Date,
    finishedAt: row["finished_at"] as Date | null,
    proof: row["proof"] as Buffer | null,
    startedBy: row["started_by"] as string,
    rollsBack: row["rolls_back"] as string | null,
  };
}

const failureOf = (row: Row): UnreadableRow => ({
  organizationId: row["organization_id"] as string,
  credentialId: row["credential_id"] as string | null,
  keyVersion: Number(row["key_version"]),
  kind: row["kind"] as string,
});

const ROTATION_COLUMNS = `id, kind, state, organization_id, from_master_key_id, to_master_key_id, from_version, to_version, rows_total, rows_moved, rows_verified, rows_failed,
  rows_per_second, started_at, finished_at, proof, started_by, rolls_back`;

const CLAIM: Statement = {
  name: "rotation_claim",
  text: `update rotation set holder = $1, held_until = clock_timestamp() + $2::integer * interval '1 millisecond'
where id = (select id from rotation where state in ('running', 'proving') and (holder is null or held_until < clock_timestamp())
  order by started_at, id limit 1 for update skip locked)
returning ${ROTATION_COLUMNS}`,
};

const REPORT: Statement = {
  name: "rotation_report",
  text: `update rotation set rows_moved = rows_moved + $3, rows_verified = $4, rows_failed = $5,
  held_until = clock_timestamp() + $6::integer * interval '1 millisecond'
where id = $1 and holder = $2 and state in ('running', 'proving')
returning rows_per_second`,
};

const RELEASE: Statement = { name: "rotation_release", text: "update rotation set holder = null, held_until = null where id = $1 and holder = $2" };

const MEASURE: Statement = { name: "rotation_measure", text: "update rotation set rows_total = $3 where id = $1 and holder = $2" };

/** The failures of the piece of work before are forgotten; an event is recorded only where the conclusion takes effect. */
const CONCLUDE: Statement = {
  name: "rotation_conclude",
  text: `with concluded as (
  update rotation set state = $3, proof = $4, rows_moved = rows_moved + $5, rows_verified = $6, rows_failed = $7,
    finished_at = case when $3 = 'proven' then clock_timestamp() end, holder = case when $3 = 'proving' then holder end
  where id = $1 and holder = $2 and state in ('running', 'proving')
  returning id
), forgotten as (
  delete from rotation_failure f using concluded c where f.rotation_id = c.id and f.place > json_array_length($8::json)
), failed as (
  insert into rotation_failure (rotation_id, place, organization_id, credential_id, key_version, kind)
  select c.id, f.place, f.organization_id, f.credential_id, f.key_version, f.kind
  from concluded c, rows from (json_to_recordset($8::json) as (organization_id uuid, credential_id uuid, key_version bigint, kind text)) with ordinality
    as f(organization_id, credential_id, key_version, kind, place)
  on conflict (rotation_id, place) do update set organization_id = excluded.organization_id, credential_id = excluded.credential_id,
    key_version = excluded.key_version, kind = excluded.kind
), ${askedEvents("$9")}, happened as (
  select asked.* from asked, concluded
), ${recordEvents("happened")}
select id from concluded`,
};

/** Rotations. */
export function rotationStore(database: Database): RotationStore {
  /** What is left is read where it is: from the index of the keys, or from the organization's own rows. */
  const left = async (row: Row): Promise<number> => {
    if (row["kind"] === "verification") return Math.max(0, Number(row["rows_total"]) - Number(row["rows_verified"]) - Number(row["rows_failed"]));
    const organizationId = row["organization_id"] as string | null;
    if (organizationId !== null) return database.read(organizationId, (trx) => countSecretsNotUnder(trx, organizationId, Number(row["to_version"])));
    const [count] = (await database.read(null, (trx) => trx("organization_key_place").count("* as n").whereNot("master_key_id", row["to_master_key_id"] as string))) as Row[];
    return Number(count?.["n"]);
  };
  const complete = async (row: Row): Promise<Rotation> => {
    const failures: Row[] = await database.read(null, (trx) => trx("rotation_failure").where("rotation_id", row["id"] as string).orderBy("place"));
    return rotationOf(row, await left(row), failures.map(failureOf));
  };
  return {
    begin: rotationBeginnings(database),

    async get(id) {
      const row: Row | undefined = await database.read(null, (trx) => trx("rotation").first("*").where("id", known(id)));
      return row === undefined ? undefined : complete(row);
    },

    async list(limit) {
      const rows: Row[] = await database.read(null, (trx) => trx("rotation").orderBy([{ column: "started_at", order: "desc" }, { column: "id" }]).limit(limit));
      const rotations: Rotation[] = [];
      for (const row of rows) rotations.push(await complete(row));
      return rotations;
    },

    async tally() {
      const [counts, open] = await database.read<[Row[], Row[]]>(null, async (trx) => [
        await trx("rotation").select("kind", "state").count("* as n").whereIn("state", REVERSIBLE).groupBy("kind", "state"),
        await trx("rotation").whereIn("state", UNFINISHED).orderBy("started_at").limit(COUNTED),
      ]);
      const rowsLeft = new Map<string, number>();
      for (const row of open) {
        const name = `${row["kind"]}/${row["state"]}`;
        rowsLeft.set(name, (rowsLeft.get(name) ?? 0) + (await left(row)));
      }
      return counts.map(({ kind, state, n }) => ({ kind: kind as RotationKindName, state: state as RotationStateName, rotations: Number(n), rowsLeft: rowsLeft.get(`${kind}/${state}`) ?? 0 }));
    },

    async claim(holder, leaseMs) {
      const [row] = await database.write([], CLAIM, [known(holder), leaseMs]);
      return row === undefined ? undefined : complete(row);
    },

    async report(id, holder, { moved, verified, failed }, leaseMs) {
      const [row] = await database.write([], REPORT, [known(id), known(holder), moved, verified, failed, leaseMs]);
      return row === undefined ? undefined : { rowsPerSecond: row["rows_per_second"] as number | null };
    },

    async measure(id, holder, rowsTotal) {
      await database.write([], MEASURE, [known(id), known(holder), rowsTotal]);
    },

    async conclude(id, holder, { state, failures, proof, progress }, event) {
      const named = failures.slice(0, MAX_FAILURES).map((row) => ({ organization_id: row.organizationId, credential_id: row.credentialId, key_version: row.keyVersion, kind: row.kind }));
      const rows = await database.write(event === null ? [] : [event.organizationId], CONCLUDE, [
        known(id), known(holder), state, proof, progress.moved, progress.verified, progress.failed, JSON.stringify(named), JSON.stringify(event === null ? [] : [eventRow(event)]),
      ]);
      return rows.length > 0;
    },

    async release(id, holder) {
      await database.write([], RELEASE, [known(id), known(holder)]);
    },

    async control(id, { paused, rowsPerSecond }, event) {
      await database.transact([event.organizationId], async (trx) => {
        const row: Row | undefined = await trx("rotation").first("state").where("id", known(id)).forUpdate();
        if (row === undefined) throw fail("ROTATION_NOT_FOUND");
        if (!UNFINISHED.includes(row["state"] as string)) throw fail("ROTATION_STATE");
        await trx("rotation").where("id", id).update({
          ...(paused === null ? {} : { state: paused ? "paused" : "running", holder: null, held_until: null }),
          ...(rowsPerSecond === null ? {} : { rows_per_second: rowsPerSecond === 0 ? null : rowsPerSecond }),
        });
        await recordIn(trx, [event]);
      });
    },

    async retire(rotation, event) {
      const organizations = rotation.organizationId === null ? [event.organizationId] : [rotation.organizationId];
      await database.transact(organizations, async (trx) => {
        const [row] = (await trx("rotation").where({ id: rotation.id, state: "proven" }).update({ state: "retired" }, ["emptied"])) as Row[];
        if (row === undefined) throw fail("ROTATION_STATE");
        if (rotation.kind === "verification") throw fail("ROTATION_STATE");
        if (rotation.kind === "master_key") {
          const primary: Row | undefined = await trx("primary_master_key").first("master_key_id").forUpdate();
          const used: Row | undefined = await trx("organization_key_place").first("master_key_id").whereIn("master_key_id", row["emptied"] as string[]);
          if (used !== undefined || (row["emptied"] as string[]).includes(primary?.["master_key_id"] as string)) throw fail("ROTATION_STATE");
          await trx("key_registry").whereIn("master_key_id", row["emptied"] as string[]).whereNull("retired_at").update({ retired_at: trx.raw("clock_timestamp()") });
        } else {
          const organization = { organization_id: rotation.organizationId };
          const sealing: Row | undefined = await trx("organization_key").first("version").where({ ...organization, version: rotation.toVersion, state: "sealing" }).forUpdate();
          const used = await countSecretsNotUnder(trx, rotation.organizationId as string, rotation.toVersion as number);
          if (sealing === undefined || used > 0) throw fail("ROTATION_STATE");
          // Those whose time is over need no key; they would be cleared away some time anyway.
          await trx("oauth_authorization").where(organization).whereRaw("expires_at <= clock_timestamp()").delete();
          for (const [table, column] of OUTLIVED_COLUMNS) {
            const lasting: Row | undefined = await trx(table).first("organization_id").where(organization).whereRaw("sealed_key_version(??) <> ?", [column, rotation.toVersion]);
            if (lasting !== undefined) throw fail("KEY_STILL_NEEDED");
          }
          await trx("organization_key").where({ ...organization, state: "closed" }).update({ state: "retired" });
        }
        await recordIn(trx, [event]);
      });
    },

    async close(rotation) {
      await database.transact([rotation.organizationId as string], async (trx) => {
        await trx("organization_key").where({ organization_id: rotation.organizationId, state: "opening" }).update({ state: "closed" });
      });
      await database.transact([], async (trx) => {
        await trx.raw("update rotation set closed_before = pg_snapshot_xmax(pg_current_snapshot()) where id = ?", [rotation.id]);
      });
    },

    async closedForAll(id) {
      const row: Row | undefined = await database.read(null, (trx) =>
        trx("rotation").first(trx.raw("closed_before <= pg_snapshot_xmin(pg_current_snapshot()) as closed")).where("id", known(id)),
      );
      return row?.["closed"] === true;
    },
  };
}
