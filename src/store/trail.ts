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
  /** Newest first; records before the given place only. */
  list(organizationId: string, filter: TrailFilter, before: TrailPlace | null, most: number, signal: AbortSignal): Promise<ChainRecord[]>;
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
  uses: row["uses"] === null ? null : Number(row["uses"]),
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

/** Audit trails of one organization at a time. */
export function trailStore(database: Database): TrailStore {
  const one = (signal: AbortSignal) => ({
    async rows(organizationId: string, sql: string, values: readonly unknown[]): Promise<Row[]> {
      const { rows } = await database.read<{ rows: Row[] }>(organizationId, (trx) => trx.raw(sql, [...values] as string[]), signal);
      return rows;
    },
  });
  return {
    async list(organizationId, filter, before, most, signal) {
      const rows: Row[] = await database.read(
        organizationId,
        (trx) => {
          const query = trx("audit_event").select("*").where("organization_id", organizationId);
          const equal = { action: filter.action, outcome: filter.outcome, actor_id: filter.actorId, credential_id: filter.credentialId, flow_id: filter.flowId, run_id: filter.runId, request_id: filter.requestId };
          for (const [column, value] of Object.entries(equal)) if (value !== null) query.where(column, value);
          if (filter.from !== null) query.where("occurred_at", ">=", filter.from);
          if (filter.until !== null) query.where("occurred_at", "<", filter.until);
          if (before !== null) query.whereRaw("(link, position) < (?, ?)", [before.link, before.position]);
          return query.orderBy([{ column: "link", order: "desc" }, { column: "position", order: "desc" }]).limit(most);
        },
        signal,
      );
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
