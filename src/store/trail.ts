import type { Knex } from "knex";
import type { ChainRecord, SignedHead } from "../domain/audit-chain.ts";
import { type Database, known } from "./db.ts";
import type { Row, Statement } from "./transaction.ts";

/** Which records of a trail are wanted; null does not narrow. */
export interface TrailFilter {
  readonly from: Date | null;
  readonly until: Date | null;
  readonly action: string | null;
  readonly outcome: string | null;
  readonly actorId: string | null;
  readonly credentialId: string | null;
  readonly flowId: string | null;
  readonly runId: string | null;
  readonly requestId: string | null;
}

/** Which end of a trail comes first. */
export type TrailOrder = "newest first" | "oldest first";

/** The place of a record. */
export interface TrailPlace {
  readonly link: number;
  readonly position: number;
}

/** The newest link of a chain. */
export interface TrailHead {
  readonly organizationId: string;
  readonly link: number;
  /** Hexadecimal. */
  readonly hash: string;
}

/** Reads audit trails, and keeps the signed heads of their chains. */
export interface TrailStore {
  /** Newest or oldest first; records beyond the given place only. */
  list(organizationId: string, filter: TrailFilter, order: TrailOrder, beyond: TrailPlace | null, most: number, signal: AbortSignal): Promise<ChainRecord[]>;
  /** Records of links after that one in the order of the chain; the last link may be cut off. */
  records(organizationId: string, afterLink: number, most: number, signal: AbortSignal): Promise<ChainRecord[]>;
  /** Hash of a link, hexadecimal; undefined where it is not there. */
  linkHash(organizationId: string, link: number, signal: AbortSignal): Promise<string | undefined>;
  head(organizationId: string, signal: AbortSignal): Promise<TrailHead | undefined>;
  /** Oldest first. */
  signedHeads(organizationId: string, afterLink: number, most: number, signal: AbortSignal): Promise<SignedHead[]>;
  /** Organizations that have a chain, in order, after the given one. */
  organizations(after: string | null, most: number): Promise<string[]>;
  /** The heads of these organizations that are not signed. */
  unsigned(organizationIds: readonly string[]): Promise<TrailHead[]>;
  /** Keeps a signed head; one that is there already stays. */
  keep(organizationId: string, head: SignedHead): Promise<void>;
}

const chainRecord = (row: Row): ChainRecord => ({
  link: Number(row["link"]),
  position: row["position"] as number,
  organizationId: row["organization_id"] as string,
  occurredAtMs: (row["occurred_at"] as Date).getTime(),
  requestId: row["request_id"] as string,
  actorKind: row["actor_kind"] as string,
  actorId: row["actor_id"] as string,
  action: row["action"] as string,
  outcome: row["outcome"] as string,
  reason: row["reason"] as string | null,
  credentialId: row["credential_id"] as string | null,
  flowId: row["flow_id"] as string | null,
  runId: row["run_id"] as string | null,
  subjectId: row["subject_id"] as string | null,
  keyId: row["key_id"] as string | null,
  calls: row["calls"] as number | null,
  hash: (row["hash"] as Buffer).toString("hex"),
});

const trailHead = (row: Row): TrailHead => ({ organizationId: row["organization_id"] as string, link: Number(row["link"]), hash: (row["hash"] as Buffer).toString("hex") });

const KEEP: Statement = {
  name: "audit_signature_keep",
  text: `insert into audit_signature (organization_id, link, hash, key_id, signed_at, signature) values ($1, $2, $3, $4, to_timestamp($5::double precision / 1000), $6)
on conflict (organization_id, link) do nothing`,
};

const UNSIGNED: Statement = {
  name: "audit_head_unsigned",
  text: `select h.organization_id, h.link, h.hash from audit_head h where h.organization_id = any($1::uuid[])
  and not exists (select from audit_signature s where s.organization_id = h.organization_id and s.link = h.link)`,
};

/** Much longer than a record may wait for its link after it was given its time. */
const LATE = "interval '1 hour'";

/**
 * A link near a time, of those that the index of times holds, or else another one. PostgreSQL compares a column of a table with
 * row-level security in an index only with something that plain.
 */
const nearLink = (where: string, direction: "asc" | "desc", otherwise: string): string =>
  `(select coalesce(max(n.link), ${otherwise}) from (
    select t.link from audit_event t where t.organization_id = ? and t.position = 1 and t.link % 16 = 0 and t.occurred_at ${where} order by t.occurred_at ${direction} limit 1) n)`;

/** Links grow with time but for what is late, so times bound them; the times themselves are compared besides. */
function withinTimes(query: Knex.QueryBuilder, organizationId: string, { from, until }: TrailFilter): void {
  if (from !== null) query.where("occurred_at", ">=", from).whereRaw(`link > ${nearLink(`< ?::timestamptz - ${LATE}`, "desc", "0")}`, [organizationId, from]);
  if (until !== null) query.where("occurred_at", "<", until).whereRaw(`link < ${nearLink(`>= ?::timestamptz + ${LATE}`, "asc", "9223372036854775807")}`, [organizationId, until]);
}

/** Records of a trail that fit a filter. */
export function trailQuery(knex: Knex | Knex.Transaction, organizationId: string, filter: TrailFilter, order: TrailOrder, beyond: TrailPlace | null, most: number): Knex.QueryBuilder {
  const query = knex("audit_event").select("*").where("organization_id", organizationId);
  const equal = { action: filter.action, outcome: filter.outcome, actor_id: filter.actorId, credential_id: filter.credentialId, flow_id: filter.flowId, run_id: filter.runId, request_id: filter.requestId };
  for (const [column, value] of Object.entries(equal)) if (value !== null) query.where(column, value);
  withinTimes(query, organizationId, filter);
  if (beyond !== null) query.whereRaw(`(link, position) ${order === "newest first" ? "<" : ">"} (?, ?)`, [beyond.link, beyond.position]);
  const direction = order === "newest first" ? "desc" : "asc";
  return query.orderBy([{ column: "link", order: direction }, { column: "position", order: direction }]).limit(most);
}

/** Audit trails of one organization at a time. */
export function trailStore(database: Database): TrailStore {
  const one = (signal: AbortSignal) => ({
    async rows(organizationId: string, sql: string, values: readonly unknown[]): Promise<Row[]> {
      const { rows } = await database.read<{ rows: Row[] }>(organizationId, (trx) => trx.raw(sql, [...values] as string[]), signal);
      return rows;
    },
  });
  return {
    async list(organizationId, filter, order, beyond, most, signal) {
      const rows: Row[] = await database.read(organizationId, (trx) => trailQuery(trx, organizationId, filter, order, beyond, most), signal);
      return rows.map(chainRecord);
    },

    async records(organizationId, afterLink, most, signal) {
      const rows = await one(signal).rows(organizationId, "select * from audit_event where organization_id = ? and link > ? order by link, position limit ?", [organizationId, afterLink, most]);
      return rows.map(chainRecord);
    },

    async linkHash(organizationId, link, signal) {
      const [row] = await one(signal).rows(organizationId, "select encode(hash, 'hex') as hash from audit_event where organization_id = ? and link = ? limit 1", [organizationId, link]);
      return row?.["hash"] as string | undefined;
    },

    async head(organizationId, signal) {
      const [row] = await one(signal).rows(organizationId, "select organization_id, link, hash from audit_head where organization_id = ?", [organizationId]);
      return row === undefined ? undefined : trailHead(row);
    },

    async signedHeads(organizationId, afterLink, most, signal) {
      const rows = await one(signal).rows(organizationId, "select * from audit_signature where organization_id = ? and link > ? order by link limit ?", [organizationId, afterLink, most]);
      return rows.map((row) => ({
        link: Number(row["link"]),
        hash: (row["hash"] as Buffer).toString("hex"),
        keyId: row["key_id"] as string,
        signedAtMs: (row["signed_at"] as Date).getTime(),
        signature: row["signature"] as Buffer,
      }));
    },

    async organizations(after, most) {
      const rows: Row[] = await database.read(null, (trx) => {
        const query = trx("audit_signing").select("organization_id").orderBy("organization_id").limit(most);
        return after === null ? query : query.where("organization_id", ">", known(after));
      });
      return rows.map((row) => row["organization_id"] as string);
    },

    async unsigned(organizationIds) {
      const rows = await database.write(organizationIds, UNSIGNED, [organizationIds]);
      return rows.map(trailHead);
    },

    async keep(organizationId, { link, hash, keyId, signedAtMs, signature }) {
      await database.write([organizationId], KEEP, [organizationId, link, Buffer.from(hash, "hex"), keyId, signedAtMs, signature]);
    },
  };
}
