import { setInterval as every } from "node:timers";
import { errorFields, identified, type Log } from "../log.ts";
import { type Database, known } from "./db.ts";
import { credentialUse } from "./rows.ts";
import type { Statement } from "./transaction.ts";

/** One user of a credential. */
export interface CredentialUse {
  readonly serviceAccountId: string;
  /** Empty where the caller named no flow. */
  readonly flowId: string;
  readonly lastRunId: string | null;
  readonly lastUsedAt: Date;
  readonly uses: number;
}

/** A use that is to be remembered. */
export interface NewUse {
  readonly organizationId: string;
  readonly credentialId: string;
  readonly serviceAccountId: string;
  readonly flowId: string | null;
  readonly runId: string | null;
}

/**
 * Who uses what. A use is taken in at once and written behind the call, together with the others of the moment; a process
 * that is killed loses those of its last moment. The audit trail is exact.
 */
export interface UsageStore {
  /** Notes that a secret was handed out. */
  credential(use: NewUse): void;
  /** Notes that an API key let somebody in. */
  key(organizationId: string, keyId: string): void;
  /** Who resolved a credential, newest first; writes down what this process knows before it asks. */
  of(organizationId: string, credentialId: string, most: number, signal: AbortSignal): Promise<CredentialUse[]>;
  /** Who resolved a credential within so many seconds, newest first: also what other processes have not written down yet. */
  lately(organizationId: string, credentialId: string, seconds: number, most: number, signal: AbortSignal): Promise<Omit<CredentialUse, "lastRunId" | "uses">[]>;
  /** Writes down what was noted; for the sake of one credential, only where there is something of it. Never rejects. */
  flush(credentialId?: string): Promise<void>;
  /** Stops writing by itself, and writes down the rest. */
  close(): Promise<void>;
}

/** Times between two writes, ms: the most that is lost with a process that is killed. */
const FLUSH_MS = 1_000;

/** Uses that are kept until the next write; more are not noted, and counted in the log. */
const MAX_NOTED = 20_000;

/** Rows of one statement. */
const BATCH = 1_000;

/** In the order of the key, so that replicas that write the same rows do not block each other. */
const WRITE_USES: Statement = {
  name: "credential_use_write",
  text: `insert into credential_use as u (organization_id, credential_id, service_account_id, flow_id, last_run_id, last_used_at, uses)
select organization_id, credential_id, service_account_id, flow_id, run_id, to_timestamp(at_ms / 1000.0), uses
from json_to_recordset($1::json) as r(organization_id uuid, credential_id uuid, service_account_id uuid, flow_id text, run_id text, at_ms double precision, uses bigint)
order by organization_id, credential_id, service_account_id, flow_id
on conflict (organization_id, credential_id, service_account_id, flow_id) do update set uses = u.uses + excluded.uses,
  last_run_id = case when excluded.last_used_at >= u.last_used_at then excluded.last_run_id else u.last_run_id end,
  last_used_at = greatest(u.last_used_at, excluded.last_used_at)`,
};

/** Newest records of the trail that are looked at for uses that nobody has written down yet. */
const NEWEST = 1_000;

const USES_OF: Statement = {
  name: "credential_use_list",
  text: `select service_account_id, flow_id, last_run_id, last_used_at, uses from credential_use where organization_id = $1 and credential_id = $2 order by last_used_at desc limit $3`,
};

const LATELY: Statement = {
  name: "credential_use_lately",
  text: `select user_id, flow, max(at) as last_used_at from (
  select service_account_id::text as user_id, flow_id as flow, last_used_at as at from credential_use where organization_id = $1 and credential_id = $2
  union all (select actor_id, coalesce(flow_id, ''), occurred_at from audit_event
    where organization_id = $1 and credential_id = $2 and action = 'resolve_credential' and outcome = 'allowed'
    order by link desc, position desc limit ${NEWEST})) u
where at >= clock_timestamp() - make_interval(secs => $3) group by user_id, flow order by 3 desc limit $4`,
};

const WRITE_KEYS: Statement = {
  name: "service_account_key_use_write",
  text: `with used as (
  select organization_id, id, to_timestamp(at_ms / 1000.0) as at from json_to_recordset($1::json) as r(organization_id uuid, id uuid, at_ms double precision)
), locked as materialized (
  select l.organization_id, l.id, used.at from service_account_key_label l join used on used.organization_id = l.organization_id and used.id = l.id
  where l.last_used_at is null or l.last_used_at < used.at order by l.organization_id, l.id for update of l
)
update service_account_key_label l set last_used_at = locked.at from locked where l.organization_id = locked.organization_id and l.id = locked.id`,
};

interface NotedUse extends NewUse {
  uses: number;
  atMs: number;
  lastRunId: string | null;
}

interface NotedKey {
  readonly organizationId: string;
  readonly id: string;
  atMs: number;
}

const useRow = ({ organizationId, credentialId, serviceAccountId, flowId, lastRunId, atMs, uses }: NotedUse) => ({
  organization_id: organizationId, credential_id: credentialId, service_account_id: serviceAccountId, flow_id: flowId ?? "", run_id: lastRunId, at_ms: atMs, uses,
});

const keyRow = ({ organizationId, id, atMs }: NotedKey) => ({ organization_id: organizationId, id, at_ms: atMs });

const nameOf = ({ organizationId, credentialId, serviceAccountId, flowId }: NewUse): string => `${organizationId}/${credentialId}/${serviceAccountId}/${flowId ?? ""}`;

/** Remembers uses, and writes them down once a second. */
export class UsageRecorder implements UsageStore {
  readonly #database: Database;
  readonly #log: Log;
  readonly #timer: NodeJS.Timeout;
  #uses = new Map<string, NotedUse>();
  /** The credentials among them. */
  #used = new Set<string>();
  #keys = new Map<string, NotedKey>();
  #lost = 0;
  #writing: Promise<void> | undefined;
  /** The write that begins when that one has ended. */
  #next: Promise<void> | undefined;

  constructor(database: Database, log: Log) {
    this.#database = database;
    this.#log = log;
    this.#timer = every(() => void this.flush(), FLUSH_MS).unref();
  }

  credential(use: NewUse): void {
    const { runId } = use;
    const name = nameOf(use);
    const noted = this.#uses.get(name);
    if (noted) {
      noted.uses += 1;
      noted.atMs = Date.now();
      noted.lastRunId = runId;
    } else if (this.#uses.size < MAX_NOTED) {
      this.#note(name, { ...use, uses: 1, atMs: Date.now(), lastRunId: runId });
    } else {
      this.#lost += 1;
    }
  }

  key(organizationId: string, keyId: string): void {
    this.#keyAt(organizationId, keyId, Date.now());
  }

  async of(organizationId: string, credentialId: string, most: number, signal: AbortSignal): Promise<CredentialUse[]> {
    await this.flush(credentialId);
    return (await this.#database.query([organizationId], USES_OF, [organizationId, known(credentialId), most], signal)).map(credentialUse);
  }

  async lately(organizationId: string, credentialId: string, seconds: number, most: number, signal: AbortSignal): Promise<Omit<CredentialUse, "lastRunId" | "uses">[]> {
    await this.flush(credentialId);
    const rows = await this.#database.query([organizationId], LATELY, [organizationId, known(credentialId), seconds, most], signal);
    return rows.map((row) => ({ serviceAccountId: row["user_id"] as string, flowId: row["flow"] as string, lastUsedAt: row["last_used_at"] as Date }));
  }

  flush(credentialId?: string): Promise<void> {
    const nothing = credentialId === undefined ? this.#uses.size === 0 && this.#keys.size === 0 : !this.#used.has(credentialId);
    if (nothing) return this.#writing ?? Promise.resolve();
    // One more write is enough for everybody who asks before it begins.
    this.#next ??= (this.#writing ?? Promise.resolve()).then(() => {
      this.#next = undefined;
      this.#writing = this.#write().finally(() => (this.#writing = undefined));
      return this.#writing;
    });
    return this.#next;
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.flush();
  }

  async #write(): Promise<void> {
    const [uses, keys] = [[...this.#uses.values()], [...this.#keys.values()]];
    [this.#uses, this.#used, this.#keys] = [new Map(), new Set(), new Map()];
    const log = identified(this.#log);
    if (this.#lost > 0) log.warn({ count: this.#lost }, "more credentials were used at once than are noted");
    this.#lost = 0;
    await this.#inBatches(log, WRITE_USES, uses, useRow, (use) => this.#again(use));
    await this.#inBatches(log, WRITE_KEYS, keys, keyRow, ({ organizationId, id, atMs }) => this.#keyAt(organizationId, id, atMs));
  }

  #again(use: NotedUse): void {
    const name = nameOf(use);
    const noted = this.#uses.get(name);
    if (noted) noted.uses += use.uses;
    else if (this.#uses.size < MAX_NOTED) this.#note(name, use);
    else this.#lost += 1;
  }

  #keyAt(organizationId: string, id: string, atMs: number): void {
    const noted = this.#keys.get(id);
    if (noted) noted.atMs = Math.max(noted.atMs, atMs);
    else if (this.#keys.size < MAX_NOTED) this.#keys.set(id, { organizationId, id, atMs });
  }

  #note(name: string, use: NotedUse): void {
    this.#uses.set(name, use);
    this.#used.add(use.credentialId);
  }

  /** Writes down what was noted, and notes again what could not be: after a lost connection some may be counted twice, but none is forgotten. */
  async #inBatches<Noted extends { readonly organizationId: string }>(log: Log, statement: Statement, noted: readonly Noted[], rowOf: (one: Noted) => object, again: (one: Noted) => void): Promise<void> {
    let written = 0;
    try {
      for (; written < noted.length; written += BATCH) {
        const batch = noted.slice(written, written + BATCH);
        await this.#database.write([...new Set(batch.map(({ organizationId }) => organizationId))], statement, [JSON.stringify(batch.map(rowOf))]);
      }
    } catch (error) {
      log.warn({ ...errorFields(error) }, "uses could not be written down yet");
      noted.slice(written).forEach(again);
    }
  }
}
