import type { Knex } from "knex";
import type { AuditEvent } from "../domain/access.ts";
import { fail } from "../domain/errors.ts";
import { known } from "./db.ts";
import { EventLane, type LaneSetup } from "./event-lane.ts";
import type { EventLaneLoad } from "./load.ts";
import type { AuditStore } from "./store.ts";
import type { Statement } from "./transaction.ts";
import { NOW } from "./now.ts";

/** Longest text in a record, in characters. */
const MAX_TEXT = 1_024;

/** An event as one element of the JSON parameter from which every statement reads its events. */
export interface EventRow {
  readonly organization_id: string;
  readonly credential_id: string | null;
  readonly request_id: string;
  readonly actor_kind: string;
  readonly actor_id: string;
  readonly action: string;
  readonly outcome: string;
  readonly reason: string | null;
  readonly flow_id: string | null;
  readonly run_id: string | null;
  readonly subject_id: string | null;
  readonly key_id: string | null;
  /** Calls or uses that it stands for; null for the one call. */
  readonly calls: number | null;
  /** The service account that acts; no part of the record. */
  readonly account_id: string | null;
  /** Claim of a write that may be repeated, as `idempotency_record` keeps it; no part of the record. */
  readonly idempotency: { readonly key: string; readonly request: string; readonly version: number } | null;
}

function text(value: string): string;
function text(value: string | null): string | null;
function text(value: string | null): string | null {
  if (value === null || (value.length <= MAX_TEXT && !value.includes("\0"))) return value;
  throw fail("INTERNAL", { cause: new TypeError("a field of an audit event is too long or has a NUL") });
}

/** Checks an event before it comes near SQL: in a batch, one that PostgreSQL refuses would sink the others. */
export function eventRow(event: AuditEvent): EventRow {
  if ((event.outcome === "allowed") !== (event.reason === null)) throw fail("INTERNAL", { cause: new TypeError("every outcome but allowed has a reason") });
  return {
    organization_id: known(event.organizationId),
    credential_id: event.credentialId === null ? null : known(event.credentialId),
    request_id: text(event.requestId),
    actor_kind: event.actorKind,
    actor_id: text(event.actorId),
    action: event.action,
    outcome: event.outcome,
    reason: text(event.reason),
    flow_id: text(event.flowId),
    run_id: text(event.runId),
    subject_id: event.subjectId ? known(event.subjectId) : null,
    key_id: event.keyId ? known(event.keyId) : null,
    calls: event.calls ?? null,
    account_id: event.actorKind === "service_account" ? known(event.actorId) : null,
    idempotency: event.idempotency ? { key: event.idempotency.keyHash, request: event.idempotency.requestHash, version: event.idempotency.keyVersion } : null,
  };
}

/** What an event has in the JSON parameter: `EventRow`, by PostgreSQL's types. */
const EVENT_COLUMNS = `organization_id uuid, credential_id uuid, request_id text, actor_kind text, actor_id text, action text, outcome text, reason text,
    flow_id text, run_id text, subject_id uuid, key_id uuid, calls integer, account_id uuid, idempotency json`;

const namesOf = (columns: string): string[] => columns.split(",").map((column) => column.trim().split(" ")[0] as string);

/** The columns of an event and its `place`, of the table of that name: without what else an element brought along. */
export const eventColumns = (table: string): string => [...namesOf(EVENT_COLUMNS), "place"].map((name) => `${table}.${name}`).join(", ");

/**
 * Common table expression `asked`: the events of the JSON parameter with that number, in order of their `place`, which counts from 1. What goes
 * with an event in the same element is read along, where it is named with its types.
 */
export const askedEvents = (parameter: string, ...more: readonly string[]): string => {
  const columns = [EVENT_COLUMNS, ...more].join(", ");
  return `asked as materialized (
  select e.* from rows from (json_to_recordset(${parameter}::json) as (${columns})) with ordinality as e(${namesOf(columns).join(", ")}, place)
)`;
};

/**
 * Common table expressions that record the events of `source`, which has the columns of `asked`; the one place where
 * the trail is written. One link per organization: its head is advanced, and thereby locked until the commit, in the
 * order of the organizations, so that transactions that record several cannot block each other; the head is the last
 * lock that any statement takes.
 */
export const recordEvents = (source: string): string => `digested as materialized (
  select e.*, audit_record_digest(e.organization_id, e.occurred_at, e.request_id, e.actor_kind, e.actor_id, e.action,
    e.outcome, e.reason, e.credential_id, e.flow_id, e.run_id, e.subject_id, e.key_id, e.calls) as digest
  from (select s.*, ${NOW} as occurred_at,
    row_number() over (partition by s.organization_id order by s.place) as position from ${source} s) e
), advanced as (
  insert into audit_head as h (organization_id, link, digest, hash)
  select organization_id, 1, digest, sha256(decode(repeat('00', 32), 'hex') || digest)
  from (select organization_id, sha256(string_agg(digest, ''::bytea order by position)) as digest from digested group by organization_id) b
  order by organization_id
  on conflict (organization_id) do update set link = h.link + 1, digest = excluded.digest, hash = sha256(h.hash || excluded.digest)
  returning h.organization_id, h.link, h.hash
), recorded as (
  insert into audit_event (organization_id, link, position, occurred_at, request_id, actor_kind, actor_id, action, outcome,
    reason, credential_id, flow_id, run_id, subject_id, key_id, calls, hash)
  select d.organization_id, a.link, d.position, d.occurred_at, d.request_id, d.actor_kind, d.actor_id, d.action, d.outcome,
    d.reason, d.credential_id, d.flow_id, d.run_id, d.subject_id, d.key_id, d.calls, a.hash
  from digested d join advanced a on a.organization_id = d.organization_id
  order by d.organization_id, d.position
)`;

/** How long a write may be repeated under its idempotency key. */
const IDEMPOTENCY_KEPT = "interval '24 hours'";

/**
 * The same for a write that its caller may repeat: the row of `answer`, one at most for each event and without a secret, is
 * committed as what a repetition is answered with; of several, `belongs` says whose it is. A second write under the same key
 * violates the primary key, and nothing of it stands.
 */
export const recordAnswer = (source: string, answer: string, belongs = "true"): string => `${recordEvents(source)}, claimed as (
  insert into idempotency_record (organization_id, actor_kind, actor_id, action, key_hash, request_hash, key_version, answer, expires_at)
  select h.organization_id, h.actor_kind, h.actor_id, h.action, decode(h.idempotency ->> 'key', 'hex'), decode(h.idempotency ->> 'request', 'hex'),
    (h.idempotency ->> 'version')::bigint, to_jsonb(answer), clock_timestamp() + ${IDEMPOTENCY_KEPT}
  from ${source} h join ${answer} answer on ${belongs} where h.idempotency is not null
)`;

const APPEND: Statement = { name: "audit_append", text: `with ${askedEvents("$1")}, ${recordEvents("asked")} select 1` };

/** Records events in a transaction of several statements. */
export async function recordIn(trx: Knex.Transaction, events: readonly AuditEvent[]): Promise<void> {
  await trx.raw(`with ${askedEvents("?")}, ${recordEvents("asked")} select 1`, [JSON.stringify(events.map(eventRow))]);
}

/** Events that may wait to be recorded; more are not recorded. */
const QUEUE = 4_096;

/** Events that share one transaction at most. */
const BATCH = 256;

/** The audit trail on its own, for what has no other effect: events that wait are committed together, on a connection of their own. */
export class AuditCommitter implements AuditStore {
  readonly #lane: EventLane<void>;

  constructor(setup: Omit<LaneSetup, "queue" | "batch">) {
    this.#lane = new EventLane<void>({
      ...setup,
      name: "audit",
      reserve: false,
      queue: QUEUE,
      batch: BATCH,
      statement: APPEND,
      answer: () => undefined,
      full: "AUDIT_UNAVAILABLE",
    });
  }

  /** How busy it is. */
  get load(): EventLaneLoad {
    return this.#lane.load;
  }

  /** Connects. Rejects with the driver's error. */
  open(): Promise<void> {
    return this.#lane.open();
  }

  /** See `AuditStore.append`. */
  async append(events: readonly AuditEvent[]): Promise<void> {
    const rows = events.map(eventRow);
    await Promise.all(rows.map((row) => this.#lane.submit(row)));
  }

  /** Waits for the events that were taken, then disconnects. */
  close(): Promise<void> {
    return this.#lane.close();
  }
}
