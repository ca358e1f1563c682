import type { AuditEvent } from "../domain/access.ts";
import type { CredentialRecord } from "../domain/credential.ts";
import { type CredentialError, fail } from "../domain/errors.ts";
import { traced, within } from "../trace.ts";
import { Batcher, type Waiting } from "./batcher.ts";
import { abortReason } from "./cancel.ts";
import { CREATE, type Creation, creation, creationValues } from "./creation.ts";
import type { Database } from "./db.ts";
import { isConnectionLoss, translate } from "./errors.ts";
import type { LaneSetup } from "./event-lane.ts";
import { Lane } from "./lane.ts";
import { credentialRecord } from "./rows.ts";
import { sqlFacts } from "./statement-spans.ts";
import type { CredentialLimits, NewCredential } from "./store.ts";
import type { Row } from "./transaction.ts";

/** What creations are sent with. */
export type CreationSetup = Pick<LaneSetup, "fields" | "session" | "log" | "queue">;

/** A creation that waits. */
interface Call {
  readonly creation: Creation;
  readonly signal: AbortSignal;
}

/** Creations that share one statement at most. */
const BATCH = 64;

/**
 * Creates credentials on one connection: those that wait share one statement and one commit. Where that is rolled back, because of one that is
 * refused, cancelled or in another's way, each is created by itself on a connection of the pool, so that nobody fails, or waits for a
 * lock, because of another; without the lane's connection likewise.
 */
export class CreationLane {
  readonly #database: Database;
  readonly #lane: Lane;
  readonly #batcher: Batcher<Call, CredentialRecord>;

  constructor(database: Database, { fields, session, log, queue }: CreationSetup) {
    this.#database = database;
    this.#lane = new Lane({ fields, session, log, name: "create", reserve: false, onChange: () => this.#batcher.schedule() });
    this.#batcher = new Batcher({
      queue,
      batch: BATCH,
      inFlight: 1,
      full: "OVERLOADED",
      down: "DATABASE_UNAVAILABLE",
      state: () => this.#lane.state,
      send: (calls) => this.#send(calls),
    });
  }

  /** Whether it can be sent anything now. */
  get up(): boolean {
    return this.#lane.state === "up";
  }

  /** How many creations have not been sent yet. */
  get queued(): number {
    return this.#batcher.queued;
  }

  /** How many creations have no answer yet, and how long the oldest of them has waited, ms. */
  get load(): Batcher<Call, CredentialRecord>["load"] {
    return this.#batcher.load;
  }

  /** Connects. Rejects with the driver's error. */
  open(): Promise<void> {
    return this.#lane.open();
  }

  /** See `CredentialStore.create`. */
  async create(row: NewCredential, limits: CredentialLimits, event: AuditEvent, signal: AbortSignal): Promise<CredentialRecord> {
    const call = { creation: creation(row, limits, event), signal };
    if (signal.aborted) throw abortReason(signal);
    return this.up ? traced(CREATE.name, "client", () => this.#batcher.submit(call), sqlFacts) : this.#alone(call);
  }

  /** Waits for the calls that were taken, then disconnects. */
  async close(): Promise<void> {
    await this.#batcher.close();
    await this.#lane.close();
  }

  async #alone({ creation, signal }: Call): Promise<CredentialRecord> {
    const [row] = await this.#database.write([creation.organization_id], CREATE, creationValues([creation]), signal);
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
    const organizations = [...new Set(creations.map(({ organization_id }) => organization_id))];
    try {
      rows = await this.#cancelled(calls.map(({ item }) => item.signal), () => this.#lane.run(organizations, CREATE, creationValues(creations)));
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
      const row = byId.get(item.creation.credential_id ?? "");
      if (row !== undefined && row["organization_id"] === item.creation.organization_id) resolve(credentialRecord(row));
      else reject(fail("INTERNAL", { cause: new Error("a batch of creations gave back another one") }));
    }
  }
}
