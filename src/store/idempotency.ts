import type { Action, CallerKind } from "../domain/access.ts";
import type { CredentialRecord } from "../domain/credential.ts";
import { type Database, known } from "./db.ts";
import { credentialRecord, serviceAccount, serviceAccountKey } from "./rows.ts";
import type { ServiceAccountKeyRow, ServiceAccountRow } from "./store.ts";
import type { Row, Statement } from "./transaction.ts";

/** Whose idempotency key it is, and for what. */
export interface RepeatPlace {
  readonly organizationId: string;
  readonly actorKind: CallerKind;
  readonly actorId: string;
  readonly action: Action;
  /** SHA-256 of the key, hexadecimal. */
  readonly keyHash: string;
}

/** The row that the answer to a write was made of, as it was committed with it. */
export interface RecordedAnswer {
  credential(): CredentialRecord;
  serviceAccount(): ServiceAccountRow;
  serviceAccountKey(): ServiceAccountKeyRow;
}

/** A write that was done under an idempotency key. */
export interface RecordedWrite {
  /** Hexadecimal. */
  readonly requestHash: string;
  readonly keyVersion: number;
  readonly answer: RecordedAnswer;
}

/** Writes that their callers may repeat. They are recorded by the statements that do them. */
export interface IdempotencyStore {
  /** What was done under a key in the last 24 hours. */
  find(place: RepeatPlace, signal: AbortSignal): Promise<RecordedWrite | undefined>;
}

const FIND: Statement = {
  name: "idempotency_find",
  text: `select encode(request_hash, 'hex') as request_hash, key_version, answer, expires_at <= clock_timestamp() as ended from idempotency_record
where organization_id = $1 and actor_kind = $2 and actor_id = $3 and action = $4 and key_hash = $5`,
};

const FORGET: Statement = {
  name: "idempotency_forget",
  text: `delete from idempotency_record where organization_id = $1 and actor_kind = $2 and actor_id = $3 and action = $4 and key_hash = $5 and expires_at <= clock_timestamp()`,
};

/** JSON has no times. */
const revived = (row: Row): Row => Object.fromEntries(Object.entries(row).map(([column, value]) => [column, column.endsWith("_at") && typeof value === "string" ? new Date(value) : value]));

function answerOf(row: Row): RecordedAnswer {
  const values = revived(row);
  return { credential: () => credentialRecord(values), serviceAccount: () => serviceAccount(values), serviceAccountKey: () => serviceAccountKey(values) };
}

/** What is known of repeatable writes. */
export function idempotencyStore(database: Database): IdempotencyStore {
  return {
    async find({ organizationId, actorKind, actorId, action, keyHash }, signal) {
      const place = [known(organizationId), actorKind, actorId, action, Buffer.from(keyHash, "hex")];
      const [row] = await database.query([organizationId], FIND, place, signal);
      if (row === undefined) return undefined;
      if (row["ended"] === true) {
        await database.write([organizationId], FORGET, place, signal);
        return undefined;
      }
      return { requestHash: row["request_hash"] as string, keyVersion: Number(row["key_version"]), answer: answerOf(row["answer"] as Row) };
    },
  };
}
