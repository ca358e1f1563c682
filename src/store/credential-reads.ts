import { type Database, known } from "./db.ts";
import { credentialColumns, credentialRecord, PREVIOUS_COLUMNS, previousSecret } from "./rows.ts";
import type { CredentialStore } from "./store.ts";
import type { Row, Statement } from "./transaction.ts";

const COLUMNS = credentialColumns("c");

const GET: Statement = {
  name: "credential_get",
  text: `select ${COLUMNS} from credential c where c.organization_id = $1 and c.id = $2 and c.deleted_at is null`,
};

const PREVIOUS: Statement = {
  name: "credential_previous_get",
  text: `select ${PREVIOUS_COLUMNS} from credential_previous where organization_id = $1 and credential_id = $2 and kept_until > clock_timestamp()`,
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
export function credentialReads(database: Database): Pick<CredentialStore, "list" | "get" | "previous"> {
  const first = async (organizationId: string, statement: Statement, values: readonly unknown[], signal: AbortSignal): Promise<Row | undefined> =>
    (await database.query([organizationId], statement, [organizationId, ...values], signal))[0];
  return {
    async list(organizationId, { userId, provider }, signal) {
      const ofUser = userId === null ? [] : [known(userId)];
      const ofProvider = provider === null ? [] : [provider];
      const statement = userId === null ? (provider === null ? LIST.all : LIST.ofProvider) : provider === null ? LIST.ofUser : LIST.ofBoth;
      const rows = await database.query([organizationId], statement, [organizationId, ...ofUser, ...ofProvider], signal);
      return rows.map(credentialRecord);
    },

    async get(organizationId, id, signal) {
      const row = await first(organizationId, GET, [known(id)], signal);
      return row && credentialRecord(row);
    },

    async previous(organizationId, id, signal) {
      const row = await first(organizationId, PREVIOUS, [known(id)], signal);
      return row && previousSecret(row);
    },
  };
}
