import type { AuditEvent } from "../domain/access.ts";
import type { CredentialRecord } from "../domain/credential.ts";
import { CreationLane, type CreationSetup } from "./creation-lane.ts";
import type { Database } from "./db.ts";
import type { EventLaneLoad } from "./load.ts";
import type { CredentialLimits, NewCredential } from "./store.ts";

/** Connections on which credentials are created; each keeps a core of PostgreSQL busy. */
const LANES = 2;

/** Where an organization's creations are under way. */
interface Place {
  readonly lane: CreationLane;
  /** How many they are. */
  calls: number;
}

/**
 * Creates credentials on several connections at once. Those of one organization go to one connection for as long as any of them is under
 * way: they need the same counters and heads, and would wait for each other's commits.
 */
export class Creator {
  readonly #lanes: readonly CreationLane[];
  readonly #queue: number;
  readonly #places = new Map<string, Place>();

  constructor(database: Database, setup: CreationSetup) {
    this.#queue = setup.queue;
    const each = { ...setup, queue: Math.ceil(setup.queue / LANES) };
    this.#lanes = Array.from({ length: LANES }, () => new CreationLane(database, each));
  }

  /** How busy all of them are together. */
  get load(): EventLaneLoad {
    const loads = this.#lanes.map(({ load }) => load);
    return {
      name: "create",
      up: this.#lanes.every(({ up }) => up),
      most: this.#queue,
      waiting: loads.reduce((sum, { waiting }) => sum + waiting, 0),
      oldestMs: Math.max(...loads.map(({ oldestMs }) => oldestMs)),
    };
  }

  /** Connects. Rejects with the driver's error. */
  async open(): Promise<void> {
    await Promise.all(this.#lanes.map((lane) => lane.open()));
  }

  /** See `CredentialStore.create`. */
  async create(row: NewCredential, limits: CredentialLimits, event: AuditEvent, signal: AbortSignal): Promise<CredentialRecord> {
    const { organizationId } = row;
    const place = this.#places.get(organizationId) ?? { lane: this.#leastBusy(), calls: 0 };
    this.#places.set(organizationId, place);
    place.calls += 1;
    try {
      return await place.lane.create(row, limits, event, signal);
    } finally {
      place.calls -= 1;
      if (place.calls === 0) this.#places.delete(organizationId);
    }
  }

  /** Waits for the calls that were taken, then disconnects. */
  async close(): Promise<void> {
    await Promise.all(this.#lanes.map((lane) => lane.close()));
  }

  #leastBusy(): CreationLane {
    return this.#lanes.reduce((least, lane) => (lane.load.waiting < least.load.waiting ? lane : least));
  }
}
