import { setTimeout as sleep } from "node:timers/promises";
import knexPackage, { type Knex } from "knex";
import type { Client } from "pg";
import { CredentialError, fail } from "../domain/errors.ts";
import { abortReason, cancelUntil } from "./cancel.ts";
import { traced } from "../trace.ts";
import type { ConnectionFields } from "./connection.ts";
import { hangUp } from "./hang-up.ts";
import type { PoolLoad } from "./load.ts";
import { isConflict, isOutdated, isUndone, isUseless, translate } from "./errors.ts";
import { sqlFacts, traceQueries } from "./statement-spans.ts";
import { CONTEXT_FOR_KNEX, contextValues, type Row, runTransaction, type Session, type Statement } from "./transaction.ts";

/** How a pool of connections is kept. */
export interface DatabaseOptions {
  /** What the pool is for, as the metrics name it. */
  readonly name: string;
  readonly fields: ConnectionFields;
  readonly session: Session;
  /** Most connections. */
  readonly poolSize: number;
}

/** Times an operation is tried in all, where trying again is safe. */
const ATTEMPTS = 3;

/** Longest pause before the next try, ms; doubled every time. */
const PAUSE_MS = 20;

/** Longest wait for a free connection, ms; who waits longer is told to try again. */
const ACQUIRE_MS = 5_000;

/** Calls that may wait for a free connection, for each connection of the pool; more are told to try again at once. */
const WAITING_PER_CONNECTION = 16;

/** How much longer than the server's own limit the driver waits before it gives a connection up, ms. */
const GRACE_MS = 1_000;

/** What is used of Knex's pool itself, which its own interface does not show. */
interface ConnectionPool {
  numPendingAcquires(): number;
  numUsed(): number;
  numFree(): number;
  acquire(): { readonly promise: Promise<Client>; abort(): void };
  release(client: Client): boolean;
}

/**
 * The pool, and the ways to use it. Every function rejects with CredentialError only. A signal that is aborted ends the wait
 * for a connection at once and cancels a statement that runs; the call then rejects with the signal's reason, unless it had
 * been committed.
 */
export class Database {
  readonly #options: DatabaseOptions;
  readonly #knex: Knex;
  readonly #session: Session;
  /** Told of organizations for which a write was refused because its key has moved: what was cached of it is out of date. */
  onKeyMoved: (organizations: readonly string[]) => void = () => {};
  #closed = false;

  constructor(options: DatabaseOptions) {
    this.#options = options;
    this.#session = options.session;
    // A lost server that never answers is noticed by the driver's own clock, which then drops the connection.
    const connection = () => ({ ...options.fields, pipeline: true, query_timeout: options.session.timeouts.statementMs + GRACE_MS });
    this.#knex = knexPackage.knex({
      client: "pg",
      version: "18",
      connection,
      // Values stay out of the messages of errors.
      compileSqlOnError: false,
      acquireConnectionTimeout: ACQUIRE_MS + GRACE_MS,
      pool: { min: 0, max: options.poolSize, propagateCreateError: true },
      log: { warn: () => {}, error: () => {}, deprecate: () => {}, debug: () => {} },
    });
    this.#knex.client.destroyRawConnection = hangUp;
    traceQueries(this.#knex);
  }

  /** Reads in a transaction that sees one organization; none where it is null. Tried again where the connection fails, or leads to a standby. */
  async read<T>(organizationId: string | null, work: (trx: Knex.Transaction) => PromiseLike<T>, signal?: AbortSignal): Promise<T> {
    return this.#transaction(isHarmless, organizationId === null ? [] : [organizationId], work, signal);
  }

  /** Reads with one statement, for the organizations it names, in one round trip: a fraction of what the same costs with a builder. Tried again as `read` is. */
  async query(organizations: readonly string[], statement: Statement, values: readonly unknown[], signal?: AbortSignal): Promise<Row[]> {
    return this.#alone(isHarmless, organizations.map(known), statement, values, signal);
  }

  /**
   * Reads and writes in several statements of one transaction, which sees the given organizations. Tried again only where
   * PostgreSQL surely rolled it back: because of other transactions, or because it is a standby.
   */
  async transact<T>(organizations: readonly string[], work: (trx: Knex.Transaction) => PromiseLike<T>, signal?: AbortSignal): Promise<T> {
    return this.#noticing(organizations, this.#transaction(isUndone, organizations, work, signal));
  }

  /**
   * Commits one statement that may write, for the organizations it names. Tried again only where PostgreSQL surely rolled it
   * back: after a lost connection nobody knows whether it took effect.
   */
  async write(organizations: readonly string[], statement: Statement, values: readonly unknown[], signal?: AbortSignal): Promise<Row[]> {
    const visible = organizations.map(known);
    return this.#noticing(visible, this.#alone(isUndone, visible, statement, values, signal));
  }

  /** How busy the pool is. */
  get load(): PoolLoad {
    const { name, poolSize } = this.#options;
    const [busy, free, waiting] = [this.#pool.numUsed(), this.#pool.numFree(), this.#pool.numPendingAcquires()];
    return { name, open: busy + free, busy, waiting, most: poolSize };
  }

  /** Waits for what is under way and closes every connection. */
  close(): Promise<void> {
    this.#closed = true;
    return this.#knex.destroy();
  }

  async #noticing<T>(organizations: readonly string[], work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      if (error instanceof CredentialError && error.reason === "KEY_MOVED") this.onKeyMoved(organizations);
      throw error;
    }
  }

  #alone(again: (error: unknown) => boolean, visible: readonly string[], statement: Statement, values: readonly unknown[], signal: AbortSignal | undefined): Promise<Row[]> {
    const work = () => this.#retrying(again, signal, (client) => runTransaction(client, this.#session, visible, statement, values));
    return traced(statement.name, "client", work, sqlFacts);
  }

  #transaction<T>(again: (error: unknown) => boolean, organizations: readonly string[], work: (trx: Knex.Transaction) => PromiseLike<T>, signal: AbortSignal | undefined): Promise<T> {
    const visible = organizations.map(known);
    const within = (connection: Client) =>
      this.#knex.transaction(
        async (trx) => {
          await trx.raw(CONTEXT_FOR_KNEX, contextValues(visible, this.#session.timeouts));
          return await work(trx);
        },
        { connection },
      );
    return traced("transaction", "client", () => this.#retrying(again, signal, within), sqlFacts);
  }

  async #retrying<T>(again: (error: unknown) => boolean, signal: AbortSignal | undefined, work: (client: Client) => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.#connected(signal, work);
      } catch (error) {
        if (signal?.aborted) throw abortReason(signal);
        // Each ends one of the pool's connections, all of which may be outdated by the same migration.
        if (isOutdated(error)) tries -= 1;
        else if (tries === ATTEMPTS || !again(error)) throw translate(error);
      }
      await sleep(Math.random() * PAUSE_MS * 2 ** tries, undefined, signal && { signal }).catch(() => {});
    }
  }

  /** Runs a transaction on a connection of the pool, and cancels it where the signal is aborted meanwhile. */
  async #connected<T>(signal: AbortSignal | undefined, work: (client: Client) => Promise<T>): Promise<T> {
    const client = await this.#acquire(signal);
    // Made only where something is cancelled: aborting it costs more than the rest of this does.
    let done: AbortController | undefined;
    const cancel = () => {
      done = new AbortController();
      void cancelUntil(done.signal, this.#options.fields, client);
    };
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      return await work(client);
    } catch (error) {
      if (isUseless(error)) {
        drop(client, error);
        this.#session.lost?.();
      }
      throw error;
    } finally {
      signal?.removeEventListener("abort", cancel);
      done?.abort();
      // A late request would cancel what another call does on this connection.
      if (signal?.aborted) drop(client, signal.reason);
      this.#pool.release(client);
    }
  }

  async #acquire(signal: AbortSignal | undefined): Promise<Client> {
    if (this.#closed) throw fail("SHUTTING_DOWN");
    if (signal?.aborted) throw abortReason(signal);
    if (this.#pool.numPendingAcquires() >= WAITING_PER_CONNECTION * this.#options.poolSize) throw fail("OVERLOADED");
    const acquiring = this.#pool.acquire();
    let late = false;
    const giveUp = () => acquiring.abort();
    const timer = setTimeout(() => {
      late = true;
      giveUp();
    }, ACQUIRE_MS);
    signal?.addEventListener("abort", giveUp, { once: true });
    try {
      const client = await acquiring.promise;
      if (!signal?.aborted) return client;
      this.#pool.release(client);
      throw abortReason(signal);
    } catch (error) {
      throw late ? fail("OVERLOADED") : error;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", giveUp);
    }
  }

  get #pool(): ConnectionPool {
    return this.#knex.client.pool as ConnectionPool;
  }
}

/** Whether a transaction that only reads may be tried again. */
const isHarmless = (error: unknown): boolean => isUseless(error) || isConflict(error);

/** Closes a connection and marks it, as Knex does, as one that must not be handed out again. */
function drop(client: Client, cause: unknown): void {
  Object.assign(client, { __knex__disposed: cause });
  void hangUp(client);
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** The id, if it is a UUID in lower case; anything else is a fault of the calling code and must not reach SQL. */
export function known(id: string): string {
  if (!UUID.test(id)) throw fail("INTERNAL", { cause: new TypeError("an id is not a UUID in lower case") });
  return id;
}
