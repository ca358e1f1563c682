import type { KeyRing } from "../crypto/ring.ts";
import { errorFields, identified, type Log } from "../log.ts";
import type { ReplicaStore } from "../store/replicas.ts";
import { KeyCheckError } from "./keys.ts";

/** What a replica's reports need. */
export interface ReplicaDeps {
  readonly replicas: ReplicaStore;
  readonly ring: KeyRing;
  readonly log: Log;
  /** UUID, drawn at the start of the process. */
  readonly id: string;
  /** Time between two reports, ms. */
  readonly heartbeatMs: number;
  readonly keyCacheSeconds: number;
}

/** Reports that may be missed before a replica is taken for dead. */
const MISSED = 3;

/**
 * Tells the database which master keys this process has loaded, and learns which one wraps.
 *
 * How replicas agree on a promotion: PostgreSQL's row of the primary key is the one place that says which key wraps; the
 * setting only nominates one for a new database. Reports, promotions and every write of a wrapped key lock that row, a
 * promotion alone and the others together. So a promotion sees the report of every replica that goes on serving and is
 * refused where one of them lacks the key; a replica that reports after it sees the new key, and does not begin to serve
 * without it; and no organization key is stored under the old key once the promotion has been committed, whoever wrapped it
 * and however long ago (a trigger refuses it, the writer asks again and wraps it anew). What is left under the old key can
 * therefore only become less. A replica that is silent for three reports counts as dead. Should it come back and lack the
 * key, it says that it is not ready, and calls that need the key are UNAVAILABLE until somebody gives it the key.
 */
export class Replica {
  readonly #deps: ReplicaDeps;
  #timer: NodeJS.Timeout | undefined;
  #stranded = false;
  #stopped = false;

  constructor(deps: ReplicaDeps) {
    this.#deps = deps;
    deps.ring.refresh = () => this.report();
  }

  /** UUID of this process. */
  get id(): string {
    return this.#deps.id;
  }

  /** Whether the key that wraps is loaded. */
  get ready(): boolean {
    return !this.#stranded;
  }

  /** Joins the replicas. Throws KeyCheckError where the key that wraps is not loaded. */
  async join(nominee: string): Promise<void> {
    const { replicas, ring, heartbeatMs } = this.#deps;
    await replicas.nominate(nominee);
    await this.report();
    if (!ring.complete) {
      await replicas.leave(this.id);
      throw new KeyCheckError(`master key "${ring.primaryId}" is not loaded, and it is the primary one of this database`);
    }
    this.#timer = setInterval(() => void this.#beat(), heartbeatMs);
    this.#timer.unref();
  }

  /** Reports now. Rejects where the database does not take it. */
  async report(): Promise<void> {
    const { replicas, ring, id, heartbeatMs, keyCacheSeconds, log } = this.#deps;
    ring.assign(await replicas.report({ id, masterKeyIds: ring.ids, keyCacheSeconds, aliveMs: heartbeatMs * MISSED }));
    if (!ring.complete && !this.#stranded) identified(log).error({ key_id: ring.primaryId }, "the primary master key is not loaded here: not ready until it is");
    this.#stranded = !ring.complete;
  }

  async #beat(): Promise<void> {
    try {
      await this.report();
      // Disposed meanwhile: the report has put it back on the list.
      if (this.#stopped) await this.#deps.replicas.leave(this.id);
    } catch (error) {
      identified(this.#deps.log).warn(errorFields(error), "the report of this replica was not taken");
    }
  }

  /** Takes this process off the list. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    await this.#deps.replicas.leave(this.id).catch(() => {});
  }
}
