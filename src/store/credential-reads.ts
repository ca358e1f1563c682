import { type Database, known } from "./db.ts";
import { credentialColumns, credentialRecord, credentialUse, previousSecret } from "./rows.ts";
import type { CredentialStore } from "./store.ts";
import type { Row, Statement } from "./transaction.ts";

const COLUMNS = credentialColumns("c");

const GET: Statement = {
  name: "credential_get",
  text: `select ${COLUMNS} from credential c where c.organization_id = $1 and c.id = $2 and c.deleted_at is null`,
};

const DESCRIBE: Statement = {
  name: "credential_describe",
  text: `select ${COLUMNS}, p.kept_until, u.uses
from credential c
left join credential_previous p on p.organization_id = c.organization_id and p.credential_id = c.id and p.kept_until > clock_timestamp()
left join lateral (
  select json_agg(n order by n.last_used_at desc) as uses
  from (select * from credential_use s where s.organization_id = c.organization_id and s.credential_id = c.id order by s.last_used_at desc limit $3) n
) u on true
where c.organization_id = $1 and c.id = $2 and c.deleted_at is null`,
};

const PREVIOUS: Statement = {
  name: "credential_previous_get",
  text: `select * from credential_previous where organization_id = $1 and credential_id = $2 and kept_until > clock_timestamp()`,
};

/** A text for each kind of filter, so that each has the index that begins with what it asks for. */
function listOf(name: string, ...columns: readonly string[]): Statement {
  const conditions = columns.map((column, index) => ` and c.${column} = $${index + 2}`).join("");
  return {
    name: `credential_list${name}`,
    text: `select ${COLUMNS} from credential c where c.organization_id = $1${conditions} and c.deleted_at is null order by c.created_at desc, c.id desc`,
  };
}

const LIST = { all: listOf(""), ofUser: listOf("_of_user", "user_id"), ofProvider: listOf("_of_provider", "provider"), ofBoth: listOf("_of_user_and_provider", "user_id", "provider") } as const;

/** What is asked about credentials, besides their secrets. */
export function credentialReads(database: Database): Pick<CredentialStore, "list" | "get" | "describe" | "previous"> {
  const first = async (organizationId: string, statement: Statement, values: readonly unknown[], signal: AbortSignal): Promise<Row | undefined> =>
    (await database.query(organizationId, statement, [organizationId, ...values], signal))[0];
  return {
    async list(organizationId, { userId, provider }, signal) {
      const ofUser = userId === null ? [] : [known(userId)];
      const ofProvider = provider === null ? [] : [provider];
      const statement = userId === null ? (provider === null ? LIST.all : LIST.ofProvider) : provider === null ? LIST.ofUser : LIST.ofBoth;
      const rows = await database.query(organizationId, statement, [organizationId, ...ofUser, ...ofProvider], signal);
      return rows.map(credentialRecord);
    },

    async get(organizationId, id, signal) {
      const row = await first(organizationId, GET, [known(id)], signal);
      return row && credentialRecord(row);
    },

    async describe(organizationId, id, users, signal) {
      const row = await first(organizationId, DESCRIBE, [known(id), users], signal);
      return row && { record: credentialRecord(row), previousKeptUntil: row["kept_until"] as Date | null, uses: ((row["uses"] as Row[] | null) ?? []).map(credentialUse) };
    },

    async previous(organizationId, id, signal) {
      const row = await first(organizationId, PREVIOUS, [known(id)], signal);
      return row && previousSecret(row);
    },
  };
}
