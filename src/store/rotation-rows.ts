import type { CredentialTypeName, ProviderName, SecretPlace } from "../domain/credential.ts";
import { NIL_UUID } from "../domain/credential.ts";
import { type Database, known } from "./db.ts";
import { SECRET_TABLES, type SecretTable } from "./sealed-columns.ts";
import type { OrganizationKeyRow } from "./store.ts";
import type { Row, Statement } from "./transaction.ts";

/** A sealed secret, deleted credentials' and kept ones included, and what it is bound to. */
export interface SealedRow {
  readonly table: SecretTable;
  readonly place: SecretPlace;
  readonly keyVersion: number;
  readonly sealed: Buffer;
}

/** A wrapped organization key and the master key that its row names. */
export interface WrappedRow extends OrganizationKeyRow {
  readonly wrapped: Buffer;
  readonly masterKeyId: string;
}

/** Where a page begins: behind this row. */
export interface SecretCursor {
  readonly keyVersion: number;
  readonly id: string;
}

/** Where a page of keys begins: behind this one. */
export interface KeyCursor {
  readonly organizationId: string;
  readonly version: number;
}

/** Before the first row. */
export const FIRST_SECRET: SecretCursor = { keyVersion: -1, id: NIL_UUID };
export const FIRST_KEY: KeyCursor = { organizationId: NIL_UUID, version: 0 };

/** One row of a batch that was sealed anew. */
export interface MovedSecret {
  readonly row: SealedRow;
  readonly sealed: Buffer;
}

/** One key of a batch that was wrapped anew. */
export interface MovedKey {
  readonly row: WrappedRow;
  readonly wrapped: Buffer;
}

/**
 * The rows that rotations move and read back. A page is read in a transaction of its own and locks nothing; a move takes
 * effect only on rows that are still as they were read, and passes over those that somebody else has locked, so that nobody
 * waits for a rotation and no write is lost.
 */
export interface RotationRows {
  /** Secrets of an organization in one table that are sealed under another version than `version`. */
  secretsNotUnder(table: SecretTable, organizationId: string, version: number, after: SecretCursor, limit: number): Promise<SealedRow[]>;
  /** Every secret of an organization in one table, by id. */
  secrets(table: SecretTable, organizationId: string, after: string, limit: number): Promise<SealedRow[]>;
  /** How many secrets an organization has, in all tables. */
  countSecrets(organizationId: string): Promise<number>;
  /** Stores secrets of one table that were sealed anew under a version, which must be the one that seals; gives how many took effect. */
  moveSecrets(table: SecretTable, organizationId: string, version: number, batch: readonly MovedSecret[]): Promise<number>;
  /** Organization keys that are wrapped under another master key than this one; of all where it is null. */
  keysNotUnder(masterKeyId: string | null, after: KeyCursor, limit: number): Promise<WrappedRow[]>;
  /** Stores keys that were wrapped anew under a master key, which must be the primary one; gives how many took effect. */
  moveKeys(masterKeyId: string, batch: readonly MovedKey[]): Promise<number>;
  /** Organizations that have a key, by id. */
  organizations(after: string, limit: number): Promise<string[]>;
  /** Every key of an organization that is not destroyed. */
  keysOf(organizationId: string): Promise<WrappedRow[]>;
}

/** Most sealed bytes in a page, unless its first row alone has more: what a rotation keeps in memory. */
const PAGE_BYTES = 4 * 1024 * 1024;

/** Each table, the column that names the credential, and where the provider is, which every sealed value is bound to. */
const SOURCES: Readonly<Record<SecretTable, { readonly id: string; readonly from: string; readonly provider: string }>> = {
  credential: { id: "id", from: "credential s", provider: "s.provider" },
  credential_previous: {
    id: "credential_id",
    from: "credential_previous s join credential c on c.organization_id = s.organization_id and c.id = s.credential_id",
    provider: "c.provider",
  },
};

const PAGE_COLUMNS = "id, provider, credential_type, secret_version, key_version, sealed";

/** Rows of a table that fulfil a condition, in an order that an index has. */
const rowsOf = (table: SecretTable, where: string, order: string): string => {
  const { id, from, provider } = SOURCES[table];
  return `select s.${id} as id, ${provider} as provider, s.credential_type, s.secret_version, s.key_version, s.sealed from ${from}
    where s.organization_id = $1 and ${where} order by ${order.replace(/\bid\b/, `s.${id}`).replace("key_version", "s.key_version")} limit $2`;
};

/** A page that is cut where its rows become too many bytes; their lengths are known without reading them. */
const page = (rows: string, order: string): string => `select ${PAGE_COLUMNS} from (
  select ${PAGE_COLUMNS}, sum(length(sealed)) over (order by ${order}) - length(sealed) as before from (${rows}) p) q
where before < ${PAGE_BYTES} order by ${order}`;

const forEachTable = (statement: (table: SecretTable) => Statement): Readonly<Record<SecretTable, Statement>> =>
  Object.fromEntries(SECRET_TABLES.map((table) => [table, statement(table)])) as Record<SecretTable, Statement>;

/** What is sealed under older versions and what under newer ones are two ranges of the index: the moved rows between them are not read again. */
const NOT_UNDER = forEachTable((table) => {
  const order = "key_version, id";
  const range = (side: string) => rowsOf(table, `s.key_version ${side} $3 and (s.key_version, s.${SOURCES[table].id}) > ($4::bigint, $5::uuid)`, order);
  return { name: `rotation_not_under_${table}`, text: page(`(${range("<")}) union all (${range(">")}) order by ${order} limit $2`, order) };
});

const ALL = forEachTable((table) => ({ name: `rotation_all_of_${table}`, text: page(rowsOf(table, `s.key_version is not null and s.${SOURCES[table].id} > $3::uuid`, "id"), "id") }));

/** The sealed values come as one parameter, in one piece: PostgreSQL then reads them as they are, where an array is written and read as text. */
const MOVE_SECRETS = forEachTable((table) => ({
  name: `rotation_move_${table}`,
  text: `with asked as materialized (
  select u.id, u.secret_version, u.key_version, substring($6::bytea from u.start for u.size) as sealed
  from unnest($2::uuid[], $3::bigint[], $4::bigint[], $7::integer[], $8::integer[]) u(id, secret_version, key_version, start, size)
), target as materialized (
  select a.id, a.sealed from asked a join ${table} c on c.organization_id = $1 and c.${SOURCES[table].id} = a.id
  where c.secret_version = a.secret_version and c.key_version = a.key_version
    and exists (select from organization_key k where k.organization_id = $1 and k.version = $5 and k.state = 'sealing')
  for update of c skip locked
), moved as (
  update ${table} c set sealed = t.sealed from target t where c.organization_id = $1 and c.${SOURCES[table].id} = t.id returning 1
)
select count(*) as n from moved`,
}));

const MOVE_KEYS: Statement = {
  name: "rotation_move_keys",
  text: `with asked as materialized (
  select u.*, substring($4::bytea from u.start for u.size) as wrapped
  from unnest($1::uuid[], $2::bigint[], $3::text[], $5::integer[], $6::integer[]) u(organization_id, version, master_key_id, start, size)
), target as materialized (
  select k.organization_id, k.version, a.wrapped from asked a join organization_key k on k.organization_id = a.organization_id and k.version = a.version
  where k.master_key_id = a.master_key_id
  for update of k skip locked
), moved as (
  update organization_key k set wrapped = t.wrapped, master_key_id = $7 from target t
  where k.organization_id = t.organization_id and k.version = t.version returning 1
)
select count(*) as n from moved`,
};

const KEYS_AT: Statement = {
  name: "rotation_keys_at",
  text: `select k.organization_id, k.version, k.wrapped, k.commitment, k.master_key_id, k.state
from unnest($1::uuid[], $2::bigint[]) u(organization_id, version) join organization_key k on k.organization_id = u.organization_id and k.version = u.version
where k.wrapped is not null order by k.organization_id, k.version`,
};

/** An array parameter of ids or numbers, which need no quotes: the driver would look for characters to escape in each. */
const list = (values: readonly (string | number | bigint)[]): string => `{${values.join(",")}}`;

/** Values in one piece, with the place and size of each, as PostgreSQL counts: from 1. */
function inOnePiece(values: readonly Buffer[]): { bytes: Buffer; starts: number[]; sizes: number[] } {
  const starts: number[] = [];
  let at = 1;
  for (const value of values) {
    starts.push(at);
    at += value.length;
  }
  return { bytes: Buffer.concat(values), starts, sizes: values.map(({ length }) => length) };
}

const wrappedRow = (row: Row): WrappedRow => ({
  organizationId: row["organization_id"] as string,
  version: Number(row["version"]),
  wrapped: row["wrapped"] as Buffer,
  commitment: row["commitment"] as Buffer,
  masterKeyId: row["master_key_id"] as string,
  retired: row["state"] === "retired",
});

/** Rows of rotations. */
export function rotationRows(database: Database): RotationRows {
  const sealedRow = (table: SecretTable, organizationId: string) => (row: Row): SealedRow => ({
    table,
    place: {
      organizationId,
      credentialId: row["id"] as string,
      provider: row["provider"] as ProviderName,
      credentialType: row["credential_type"] as CredentialTypeName,
      secretVersion: BigInt(row["secret_version"] as string),
    },
    keyVersion: Number(row["key_version"]),
    sealed: row["sealed"] as Buffer,
  });
  const keysAt = async (places: readonly { organizationId: string; version: number }[]): Promise<WrappedRow[]> => {
    const organizations = [...new Set(places.map(({ organizationId }) => organizationId))];
    const rows = await database.write(organizations, KEYS_AT, [places.map(({ organizationId }) => organizationId), places.map(({ version }) => version)]);
    return rows.map(wrappedRow);
  };
  return {
    async secretsNotUnder(table, organizationId, version, after, limit) {
      const rows = await database.write([organizationId], NOT_UNDER[table], [known(organizationId), limit, version, after.keyVersion, known(after.id)]);
      return rows.map(sealedRow(table, organizationId));
    },

    async secrets(table, organizationId, after, limit) {
      const rows = await database.write([organizationId], ALL[table], [known(organizationId), limit, known(after)]);
      return rows.map(sealedRow(table, organizationId));
    },

    async countSecrets(organizationId) {
      const count = (table: SecretTable) => `(select count(*) from ${table} where organization_id = :organizationId and key_version is not null)`;
      const { rows } = await database.read<{ rows: Row[] }>(organizationId, (trx) => trx.raw(`select ${SECRET_TABLES.map(count).join(" + ")} as n`, { organizationId }));
      return Number(rows[0]?.["n"]);
    },

    async moveSecrets(table, organizationId, version, batch) {
      const { bytes, starts, sizes } = inOnePiece(batch.map(({ sealed }) => sealed));
      const [row] = await database.write([organizationId], MOVE_SECRETS[table], [
        known(organizationId),
        list(batch.map(({ row: { place } }) => known(place.credentialId))),
        list(batch.map(({ row: { place } }) => place.secretVersion)),
        list(batch.map(({ row: { keyVersion } }) => keyVersion)),
        version, bytes, list(starts), list(sizes),
      ]);
      return Number(row?.["n"]);
    },

    async keysNotUnder(masterKeyId, after, limit) {
      const places: Row[] = await database.read(null, (trx) => {
        const query = trx("organization_key_place").select("organization_id", "version").whereRaw("(organization_id, version) > (?::uuid, ?::bigint)", [known(after.organizationId), after.version]);
        if (masterKeyId !== null) query.whereNot("master_key_id", masterKeyId);
        return query.orderBy(["organization_id", "version"]).limit(limit);
      });
      if (places.length === 0) return [];
      const rows = await keysAt(places.map((place) => ({ organizationId: place["organization_id"] as string, version: Number(place["version"]) })));
      // All of them were destroyed or moved meanwhile: what comes behind them is not to be missed.
      const last = places.at(-1) as Row;
      return rows.length > 0 ? rows : this.keysNotUnder(masterKeyId, { organizationId: last["organization_id"] as string, version: Number(last["version"]) }, limit);
    },

    async moveKeys(masterKeyId, batch) {
      const { bytes, starts, sizes } = inOnePiece(batch.map(({ wrapped }) => wrapped));
      const organizations = [...new Set(batch.map(({ row }) => row.organizationId))];
      const [row] = await database.write(organizations, MOVE_KEYS, [
        list(batch.map((key) => known(key.row.organizationId))),
        list(batch.map((key) => key.row.version)),
        batch.map((key) => key.row.masterKeyId),
        bytes, list(starts), list(sizes), masterKeyId,
      ]);
      return Number(row?.["n"]);
    },

    async organizations(after, limit) {
      const rows: Row[] = await database.read(null, (trx) =>
        trx("organization_key_place").distinct("organization_id").where("organization_id", ">", known(after)).orderBy("organization_id").limit(limit),
      );
      return rows.map((row) => row["organization_id"] as string);
    },

    async keysOf(organizationId) {
      const rows: Row[] = await database.read(organizationId, (trx) => trx("organization_key").where("organization_id", organizationId).whereNotNull("wrapped").orderBy("version"));
      return rows.map(wrappedRow);
    },
  };
}
