import { setTimeout as sleep } from "node:timers/promises";
import pg, { type Client } from "pg";
import type { Log } from "../log.ts";
import { cancelUntil } from "./cancel.ts";
import type { ConnectionFields } from "./connection.ts";
import { isUseless } from "./errors.ts";
import { hangUp } from "./hang-up.ts";
import { type Row, runTransaction, type Session, type Statement } from "./transaction.ts";

/** What a lane needs. */
export interface LaneOptions {
  readonly fields: ConnectionFields;
  readonly session: Session;
  readonly log: Log;
  /** What the lane is for, as the log names it. */
  readonly name: string;
  /** Whether a second connection stands by. */
  readonly reserve: boolean;
  /** Called when work may be sent again, and when it became known that it cannot be. */
  readonly onChange: () => void;
}

/** `up`: work may be sent; `lost`: it will be known soon whether it may; `down`: the last attempt to connect failed. */
export type LaneState = "up" | "lost" | "down" | "closed";

/** Transactions in flight that a silent connection may delay before it is given up. */
const DEPTH = 2;

/** How much longer than the server's own limits a silent connection is waited for, ms. */
const GRACE_MS = 1_000;

/** Longest wait for a lock, ms: everyone else in the batch, and behind it, waits too. */
const LOCK_MS = 250;

/** Pauses between attempts to connect, ms: doubled from the first to the last, and shortened at random. */
const BACKOFF_MS = { first: 50, last: 1_000 } as const;

/**
 * One connection in pipeline mode, on which transactions are sent without waiting for the ones before, and perhaps a second
 * one in reserve. A connection that breaks, or is silent for too long, is dropped with all that is in flight on it; the
 * reserve takes over at once, and what is missing is connected in the background.
 */
export class Lane {
  readonly #options: LaneOptions;
  #active: Client | undefined;
  #reserve: Client | undefined;
  #refilling: Promise<void> | undefined;
  #state: LaneState = "lost";
  readonly #closing = new AbortController();
  /** Connections on which a commit did not wait for the synchronous standby, because it was cancelled: a promotion may lose it. */
  readonly #unconfirmed = new WeakSet<Client>();

  constructor(options: LaneOptions) {
    const { timeouts } = options.session;
    this.#options = { ...options, session: { ...options.session, timeouts: { ...timeouts, lockMs: Math.min(LOCK_MS, timeouts.lockMs) } } };
  }

  get state(): LaneState {
    return this.#state;
  }

  /** Connects. Rejects with the driver's error where the first connection cannot be made. */
  async open(): Promise<void> {
    const client = await this.#connect();
    if (this.#closing.signal.aborted) return hangUp(client);
    this.#active = client;
    this.#state = "up";
    this.#refill();
    await this.#refilling;
  }

  /** Commits one statement for the given organizations. Rejects with the driver's error. */
  async run(organizations: readonly string[], statement: Statement, values: readonly unknown[]): Promise<Row[]> {
    const client = this.#active;
    if (client === undefined) throw new Error("Connection terminated");
    try {
      const rows = await runTransaction(client, this.#options.session, organizations, statement, values);
      if (this.#unconfirmed.has(client)) throw new Error("Connection terminated");
      return rows;
    } catch (error) {
      // The driver tells of a silent connection here first, and only later that it closed.
      if (isUseless(error)) this.#lost(client);
      throw error;
    }
  }

  /** Asks PostgreSQL to cancel what runs on the connection, whichever transaction that is, until `done` is aborted. */
  async cancel(done: AbortSignal): Promise<void> {
    if (this.#active !== undefined) await cancelUntil(done, this.#options.fields, this.#active);
  }

  /** Closes both connections after what is in flight on them. */
  async close(): Promise<void> {
    this.#state = "closed";
    this.#closing.abort();
    const clients = [this.#active, this.#reserve];
    [this.#active, this.#reserve] = [undefined, undefined];
    await Promise.all(clients.map((client) => client && hangUp(client)));
    await this.#refilling;
  }

  async #connect(): Promise<Client> {
    const { fields, session } = this.#options;
    // In pipeline mode the driver answers this timeout by dropping the connection, which ends everything in flight on it.
    const client = new pg.Client({ ...fields, pipeline: true, query_timeout: DEPTH * session.timeouts.statementMs + GRACE_MS });
    client.on("error", () => this.#lost(client));
    client.on("end", () => this.#lost(client));
    client.on("notice", ({ routine }) => {
      if (routine === "SyncRepWaitForLSN") this.#unconfirmed.add(client);
    });
    await client.connect();
    return client;
  }

  #lost(client: Client): void {
    if (this.#state === "closed" || (client !== this.#active && client !== this.#reserve)) return;
    if (client === this.#active) this.#active = this.#reserve;
    this.#reserve = undefined;
    void hangUp(client);
    this.#options.session.lost?.();
    this.#become(this.#active === undefined ? "lost" : "up");
    this.#options.log.warn({ state: this.#state }, `a database connection of the ${this.#options.name} lane was lost`);
    this.#refill();
  }

  #become(state: LaneState): void {
    this.#state = state;
    this.#options.onChange();
  }

  #refill(): void {
    this.#refilling ??= this.#connectMissing().finally(() => (this.#refilling = undefined));
  }

  get #incomplete(): boolean {
    return this.#active === undefined || (this.#options.reserve && this.#reserve === undefined);
  }

  async #connectMissing(): Promise<void> {
    let pause: number = BACKOFF_MS.first;
    while (this.#state !== "closed" && this.#incomplete) {
      try {
        this.#install(await this.#connect());
        pause = BACKOFF_MS.first;
      } catch {
        if (this.#active === undefined && this.state !== "closed") this.#become("down");
        await sleep(pause * (0.5 + Math.random() / 2), undefined, { signal: this.#closing.signal }).catch(() => {});
        pause = Math.min(pause * 2, BACKOFF_MS.last);
      }
    }
  }

  #install(client: Client): void {
    if (this.state === "closed") {
      void hangUp(client);
    } else if (this.#active === undefined) {
      this.#active = client;
      this.#become("up");
    } else {
      this.#reserve = client;
    }
  }
}
