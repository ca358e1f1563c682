import type { ReplicaFacts } from "../domain/rotation.ts";
import type { Database } from "./db.ts";
import type { Row, Statement } from "./transaction.ts";

/** What a process reports of itself. */
export interface ReplicaReport {
  /** UUID, drawn at its start. */
  readonly id: string;
  readonly masterKeyIds: readonly string[];
  readonly keyCacheSeconds: number;
  /** For how long it counts as alive without another report, ms. */
  readonly aliveMs: number;
}

/** What a report is answered with. */
export interface KeyRoles {
  /** The master key that wraps. */
  readonly primaryId: string;
  /** Master keys that are retired. */
  readonly retiredIds: readonly string[];
}

/** The processes that serve. */
export interface ReplicaStore {
  /** Makes a master key the primary one where there is none yet, which is so in a new database alone. */
  nominate(masterKeyId: string): Promise<void>;
  /**
   * Records what a process has loaded, and tells which key wraps, in one transaction that holds the primary key's row in
   * share mode: either a promotion sees the report, or the report sees the promotion.
   */
  report(report: ReplicaReport): Promise<KeyRoles>;
  /** Takes a process off the list. */
  leave(id: string): Promise<void>;
  /** Every process that is alive. */
  list(): Promise<ReplicaFacts[]>;
}

const NOMINATE: Statement = {
  name: "primary_master_key_nominate",
  text: "insert into primary_master_key (master_key_id) values ($1) on conflict (singleton) do nothing",
};

/** Reports of processes that died are kept for a day, for whoever looks into it. */
const REPORT: Statement = {
  name: "replica_report",
  text: `with reported as (
  insert into replica as r (id, master_key_ids, key_cache_seconds, seen_at, alive_until)
  values ($1, $2, $3, clock_timestamp(), clock_timestamp() + $4::integer * interval '1 millisecond')
  on conflict (id) do update set master_key_ids = excluded.master_key_ids, key_cache_seconds = excluded.key_cache_seconds,
    seen_at = excluded.seen_at, alive_until = excluded.alive_until
), forgotten as (
  delete from replica where alive_until < clock_timestamp() - interval '1 day'
), held as (
  select master_key_id from primary_master_key for share
)
select master_key_id as primary_id, array(select k.master_key_id from key_registry k where k.retired_at is not null) as retired from held`,
};

const LEAVE: Statement = { name: "replica_leave", text: "delete from replica where id = $1" };

/** Processes that serve, and the one master key that wraps for all of them. */
export function replicaStore(database: Database): ReplicaStore {
  return {
    async nominate(masterKeyId) {
      await database.write([], NOMINATE, [masterKeyId]);
    },

    async report({ id, masterKeyIds, keyCacheSeconds, aliveMs }) {
      const [row] = await database.write([], REPORT, [id, masterKeyIds, keyCacheSeconds, aliveMs]);
      return { primaryId: row?.["primary_id"] as string, retiredIds: row?.["retired"] as string[] };
    },

    async leave(id) {
      await database.write([], LEAVE, [id]);
    },

    async list() {
      const { rows } = await database.read<{ rows: Row[] }>(null, (trx) =>
        trx.raw(`select id, master_key_ids, key_cache_seconds, (extract(epoch from clock_timestamp() - seen_at) * 1000)::bigint as silent_ms
          from replica where alive_until > clock_timestamp() order by id`),
      );
      return rows.map((row) => ({
        id: row["id"] as string,
        masterKeyIds: row["master_key_ids"] as string[],
        silentMs: Math.max(0, Number(row["silent_ms"])),
        keyCacheSeconds: row["key_cache_seconds"] as number,
      }));
    },
  };
}
