import { setTimeout as sleep } from "node:timers/promises";
import knexPackage, { type Knex } from "knex";
import type { Client } from "pg";
import { fail } from "../domain/errors.ts";
import type { ConnectionFields } from "./connection.ts";
import { isConflict, isConnectionLoss, translate } from "./errors.ts";
import { CONTEXT_FOR_KNEX, contextValues, type Row, runTransaction, type Session, type Statement } from "./transaction.ts";

/** How a pool of connections is kept. */
export interface DatabaseOptions {
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

/** How much longer than the server's own limit the driver waits before it gives a connection up, ms. */
const GRACE_MS = 1_000;

/** The pool, and the ways to use it. Every function rejects with CredentialError only. */
export class Database {
  readonly #knex: Knex;
  readonly #session: Session;

  constructor(options: DatabaseOptions) {
    this.#session = options.session;
    // A lost server that never answers is noticed by the driver's own clock, which then drops the connection.
    const connection = () => ({ ...options.fields, pipeline: true, query_timeout: options.session.timeouts.statementMs + GRACE_MS });
    this.#knex = knexPackage.knex({
      client: "pg",
      version: "18",
      connection,
      acquireConnectionTimeout: ACQUIRE_MS,
      pool: { min: 0, max: options.poolSize, propagateCreateError: true },
      log: { warn: () => {}, error: () => {}, deprecate: () => {}, debug: () => {} },
    });
  }

  /** Reads in a transaction that sees one organization; none where it is null. Tried again where the connection fails. */
  async read<T>(organizationId: string | null, work: (trx: Knex.Transaction) => PromiseLike<T>): Promise<T> {
    const organizations = organizationId === null ? [] : [known(organizationId)];
    return retrying((error) => isConnectionLoss(error) || isConflict(error), () =>
      this.#knex.transaction(async (trx) => {
        await trx.raw(CONTEXT_FOR_KNEX, contextValues(organizations, this.#session.timeouts));
        return await work(trx);
      }),
    );
  }

  /**
   * Commits one statement that may write, for the organizations it names. Tried again only where PostgreSQL rolled it
   * back because of other transactions: after a lost connection nobody knows whether it took effect.
   */
  async write(organizations: readonly string[], statement: Statement, values: readonly unknown[]): Promise<Row[]> {
    const visible = organizations.map(known);
    return retrying(isConflict, async () => {
      const client = (await this.#knex.client.acquireConnection()) as Client;
      try {
        return await runTransaction(client, this.#session, visible, statement, values);
      } catch (error) {
        // The mark by which Knex knows a connection that it must not hand out again.
        if (isConnectionLoss(error)) Object.assign(client, { __knex__disposed: error });
        throw error;
      } finally {
        await this.#knex.client.releaseConnection(client);
      }
    });
  }

  /** Waits for what is under way and closes every connection. */
  close(): Promise<void> {
    return this.#knex.destroy();
  }
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** The id, if it is a UUID in lower case; anything else is a fault of the calling code and must not reach SQL. */
export function known(id: string): string {
  if (!UUID.test(id)) throw fail("INTERNAL", { cause: new TypeError("an id is not a UUID in lower case") });
  return id;
}

async function retrying<T>(again: (error: unknown) => boolean, attempt: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await attempt();
    } catch (error) {
      if (tries === ATTEMPTS || !again(error)) throw translate(error);
      await sleep(Math.random() * PAUSE_MS * 2 ** tries);
    }
  }
}
