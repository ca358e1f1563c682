import { Batcher, type Waiting } from "./batcher.ts";
import { type Database, known } from "./db.ts";
import { translate } from "./errors.ts";
import { credentialColumns, credentialRecord, credentialUse } from "./rows.ts";
import type { DescribedCredential } from "./store.ts";
import type { Row, Statement } from "./transaction.ts";

/** Calls that may wait; more are refused. */
const QUEUE = 4_096;

/** Calls that share one statement at most. */
const BATCH = 64;

/** Statements under way at once. */
const IN_FLIGHT = 2;

/** Users that are told of each credential, at most. */
const USERS = 20;

/** Each is looked up by organization and id together, as a pair, so that a batch of several organizations gives each its own. */
const DESCRIBE: Statement = {
  name: "credential_describe",
  text: `select a.place, ${credentialColumns("c")}, p.kept_until, u.uses
from unnest($1::uuid[], $2::uuid[]) with ordinality as a(organization_id, id, place)
cross join lateral (
  select s.* from credential s where s.organization_id = a.organization_id and s.id = a.id and s.deleted_at is null limit 1
) c
left join lateral (
  select s.kept_until from credential_previous s
  where s.organization_id = a.organization_id and s.credential_id = a.id and s.kept_until > clock_timestamp() limit 1
) p on true
left join lateral (
  select json_agg(n order by n.last_used_at desc) as uses from (
    select s.service_account_id, s.flow_id, s.last_run_id, s.last_used_at, s.uses from credential_use s
    where s.organization_id = a.organization_id and s.credential_id = a.id order by s.last_used_at desc limit ${USERS}) n
) u on true`,
};

interface Place {
  readonly organizationId: string;
  readonly id: string;
}

type Answer = DescribedCredential | undefined;

const described = (row: Row): DescribedCredential => ({
  record: credentialRecord(row),
  previousKeptUntil: row["kept_until"] as Date | null,
  uses: ((row["uses"] as Row[] | null) ?? []).map(credentialUse),
});

/** Describes credentials: what is asked at one moment shares a statement and a round trip. */
export class Describer {
  readonly #database: Database;
  readonly #batcher: Batcher<Place, Answer>;

  constructor(database: Database) {
    this.#database = database;
    this.#batcher = new Batcher({
      queue: QUEUE,
      batch: BATCH,
      inFlight: IN_FLIGHT,
      full: "OVERLOADED",
      down: "DATABASE_UNAVAILABLE",
      state: () => "up",
      send: (asked) => this.#send(asked),
    });
  }

  /** See `CredentialStore.describe`. */
  async describe(organizationId: string, id: string): Promise<Answer> {
    return this.#batcher.submit({ organizationId: known(organizationId), id: known(id) });
  }

  /** Waits for what is under way. */
  close(): Promise<void> {
    return this.#batcher.close();
  }

  async #send(asked: readonly Waiting<Place, Answer>[]): Promise<void> {
    const organizations = asked.map(({ item }) => item.organizationId);
    try {
      const rows = await this.#database.query([...new Set(organizations)], DESCRIBE, [organizations, asked.map(({ item }) => item.id)]);
      const byPlace = new Map(rows.map((row) => [Number(row["place"]), row]));
      asked.forEach(({ resolve }, index) => {
        const row = byPlace.get(index + 1);
        resolve(row && described(row));
      });
    } catch (error) {
      const failure = translate(error);
      for (const { reject } of asked) reject(failure);
    }
  }
}
