import type { Knex } from "knex";
import type { AuditEvent } from "../domain/access.ts";
import type { CredentialRecord } from "../domain/credential.ts";
import { type CredentialError, fail } from "../domain/errors.ts";
import { traced, within } from "../trace.ts";
import { askedEvents, type EventRow, eventRow, recordAnswer } from "./audit.ts";
import { Batcher, type Waiting } from "./batcher.ts";
import { abortReason } from "./cancel.ts";
import { type Database, known } from "./db.ts";
import { isConnectionLoss, translate } from "./errors.ts";
import type { LaneSetup } from "./event-lane.ts";
import { announce, eventOf } from "./events.ts";
import { flowColumns, flowValue } from "./flow-columns.ts";
import { NOW } from "./now.ts";
import { Lane } from "./lane.ts";
import type { EventLaneLoad } from "./load.ts";
import { credentialColumns, credentialRecord } from "./rows.ts";
import { scheduleNew } from "./schedule.ts";
import { sqlFacts } from "./statement-spans.ts";
import type { CredentialLimits, NewCredential } from "./store.ts";
import type { Row, Statement } from "./transaction.ts";

/**
 * Creates every credential of its one JSON parameter, or none: each is counted in both of its counters, in the order of
 * their names, which every writer keeps, and a counter without room for all that are wanted refuses the whole statement. A
 * count of the rows instead would race.
 */
const CREATE: Statement = {
  name: "credential_create",
  text: `with ${askedEvents("$1")}, wanted as materialized (
  select w.*, t.now from json_to_recordset($1::json) as w(organization uuid, id uuid, provider text, credential_type text, user_id uuid, name text,
    account_email text, token_expires_at timestamptz, modified_by text, sealed text, renewal text, flow json,
    per_provider integer, per_user integer), (select ${NOW} as now) t
), counters as materialized (
  select w.organization, k.counter, count(*)::integer as n,
    case when k.counter like 'provider:%' then coalesce(min(l.n), min(w.per_provider)) else min(w.per_user) end as most
  from wanted w left join credential_limit l on l.organization_id = w.organization and l.provider = w.provider
    cross join lateral (values ('provider:' || w.provider), ('user:' || w.user_id)) k(counter)
  group by w.organization, k.counter
), counted as (
  insert into credential_counter as k (organization_id, counter, n)
  select organization, counter, n from counters where n <= most order by organization, counter
  on conflict (organization_id, counter) do update set n = k.n + excluded.n
    where k.n + excluded.n <= (select c.most from counters c where c.organization = k.organization_id and c.counter = k.counter)
  returning k.counter
), admitted as materialized (
  select case when count(*) = (select count(*) from counters) then true
    else refuse_credential_limit(coalesce(bool_or(counter like 'provider:%'), false)) end as ok from counted
), created as (
  insert into credential as c (organization_id, id, provider, credential_type, user_id, name, account_email, token_expires_at, modified_by,
    sealed, renewable, created_at, updated_at, status_since, status_reason, oauth_origin, account_id, requested_scopes, granted_scopes)
  select w.organization, w.id, w.provider, w.credential_type, w.user_id, w.name, w.account_email, w.token_expires_at, w.modified_by,
    decode(w.sealed, 'base64'), w.renewal <> 'none', w.now, w.now, w.now, w.flow->>'reason', ${flowColumns("w.flow").join(", ")}
  from admitted, wanted w where admitted.ok
  returning ${credentialColumns("c")}
), planned as (
  select c.*, w.renewal from created c join wanted w on w.organization = c.organization_id and w.id = c.id
), ${scheduleNew("planned", "renewal")}, change as (
  ${eventOf("created", "created")}
), ${announce("change")}, happened as (
  select asked.* from asked, (select count(*) from scheduled) s, (select count(*) from announced) n where exists (select from created)
), ${recordAnswer("happened", "created", "answer.organization_id = h.organization_id and answer.id = h.credential_id")}
select * from created`,
};

/** A credential that is to be created, as its part of the statement's parameter. */
type Creation = ReturnType<typeof creation>;

function creation(row: NewCredential, limits: CredentialLimits, event: AuditEvent) {
  const asked: EventRow = eventRow(event);
  if (asked.organization_id !== row.organizationId || asked.credential_id !== known(row.id)) throw fail("INTERNAL", { cause: new TypeError("the event is of another credential") });
  return {
    ...asked, organization: known(row.organizationId), id: row.id, provider: row.provider, credential_type: row.credentialType, user_id: known(row.userId), name: row.name,
    account_email: row.accountEmail, token_expires_at: row.tokenExpiresAt, modified_by: row.modifiedBy, sealed: row.sealed.toString("base64"),
    renewal: row.renewal ?? "none", flow: flowValue(row.flow), per_provider: limits.perProvider, per_user: limits.perUser,
  } as const;
}

const values = (creations: readonly Creation[]): [string] => [JSON.stringify(creations)];

/** Creates a credential as a part of a transaction of several statements. */
export async function createCredential(trx: Knex.Transaction, row: NewCredential, limits: CredentialLimits, event: AuditEvent): Promise<void> {
  await trx.raw(CREATE.text.replaceAll("$1", ":creations"), { creations: values([creation(row, limits, event)])[0] });
}

/** A creation that waits. */
interface Call {
  readonly creation: Creation;
  readonly signal: AbortSignal;
}

/** Statements under way at once: while one commits, the next is gathered. */
const IN_FLIGHT = 2;

/** Creations that share one statement at most. */
const BATCH = 64;

/**
 * Creates credentials: those that wait share one statement and one commit. Where that is rolled back, because of one that is
 * refused, cancelled or in another's way, each is created by itself on a connection of the pool, so that nobody fails, or waits for a
 * lock, because of another; without the lane's connection likewise.
 */
export class Creator {
  readonly #database: Database;
  readonly #lane: Lane;
  readonly #queue: number;
  readonly #batcher: Batcher<Call, CredentialRecord>;

  constructor(database: Database, { fields, session, log, queue }: Pick<LaneSetup, "fields" | "session" | "log" | "queue">) {
    this.#database = database;
    this.#queue = queue;
    this.#lane = new Lane({ fields, session, log, name: "create", reserve: false, onChange: () => this.#batcher.schedule() });
    this.#batcher = new Batcher({
      queue,
      batch: BATCH,
      inFlight: IN_FLIGHT,
      full: "OVERLOADED",
      down: "DATABASE_UNAVAILABLE",
      state: () => this.#lane.state,
      send: (calls) => this.#send(calls),
    });
  }

  /** How busy it is. */
  get load(): EventLaneLoad {
    return { name: "create", up: this.#lane.state === "up", most: this.#queue, ...this.#batcher.load };
  }

  /** Connects. Rejects with the driver's error. */
  open(): Promise<void> {
    return this.#lane.open();
  }

  /** See `CredentialStore.create`. */
  async create(row: NewCredential, limits: CredentialLimits, event: AuditEvent, signal: AbortSignal): Promise<CredentialRecord> {
    const call = { creation: creation(row, limits, event), signal };
    if (signal.aborted) throw abortReason(signal);
    return this.#lane.state === "up" ? traced(CREATE.name, "client", () => this.#batcher.submit(call), sqlFacts) : this.#alone(call);
  }

  /** Waits for the calls that were taken, then disconnects. */
  async close(): Promise<void> {
    await this.#batcher.close();
    await this.#lane.close();
  }

  async #alone({ creation, signal }: Call): Promise<CredentialRecord> {
    const [row] = await this.#database.write([creation.organization], CREATE, values([creation]), signal);
    if (row === undefined) throw fail("INTERNAL", { cause: new Error("a creation gave back no row") });
    return credentialRecord(row);
  }

  /** Runs a statement, and cancels it as soon as somebody whose creation is in it has gone; the others' are then made alone. */
  async #cancelled<T>(signals: readonly AbortSignal[], run: () => Promise<T>): Promise<T> {
    let done: AbortController | undefined;
    const cancel = () => {
      if (done !== undefined) return;
      done = new AbortController();
      void this.#lane.cancel(done.signal);
    };
    for (const signal of signals) signal.addEventListener("abort", cancel, { once: true });
    try {
      return await run();
    } finally {
      for (const signal of signals) signal.removeEventListener("abort", cancel);
      done?.abort();
    }
  }

  async #send(waiting: readonly Waiting<Call, CredentialRecord>[]): Promise<void> {
    for (const { item, reject } of waiting) if (item.signal.aborted) reject(abortReason(item.signal));
    const calls = waiting.filter(({ item }) => !item.signal.aborted);
    if (calls.length === 0) return;
    const creations = calls.map(({ item }) => item.creation);
    let rows: Row[];
    const organizations = [...new Set(creations.map(({ organization }) => organization))];
    try {
      rows = await this.#cancelled(calls.map(({ item }) => item.signal), () => this.#lane.run(organizations, CREATE, values(creations)));
    } catch (error) {
      const failure: CredentialError | undefined = isConnectionLoss(error) ? translate(error) : undefined;
      // Nobody knows whether it took effect where the connection was lost; otherwise it surely did not.
      for (const { item, span, resolve, reject } of calls) {
        if (failure === undefined) void within(span, () => this.#alone(item)).then(resolve, reject);
        else reject(failure);
      }
      return;
    }
    const byId = new Map(rows.map((row) => [row["id"] as string, row]));
    for (const { item, resolve, reject } of calls) {
      const row = byId.get(item.creation.id);
      if (row !== undefined && row["organization_id"] === item.creation.organization) resolve(credentialRecord(row));
      else reject(fail("INTERNAL", { cause: new Error("a batch of creations gave back another one") }));
    }
  }
}
