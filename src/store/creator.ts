import type { AuditEvent } from "../domain/access.ts";
import type { CredentialRecord } from "../domain/credential.ts";
import { fail } from "../domain/errors.ts";
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
    this.#lanes = Array.from({ length: LANES }, () => new CreationLane(database, setup));
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
    // One bound for all of them, so that one organization may have what room there is.
    if (this.#lanes.reduce((sum, { queued }) => sum + queued, 0) >= this.#queue) throw fail("OVERLOADED");
    const { organizationId } = row;
    const kept = this.#places.get(organizationId);
    const place = kept?.lane.up ? kept : { lane: this.#freest(), calls: 0 };
    this.#places.set(organizationId, place);
    place.calls += 1;
    try {
      return await place.lane.create(row, limits, event, signal);
    } finally {
      place.calls -= 1;
      if (place.calls === 0 && this.#places.get(organizationId) === place) this.#places.delete(organizationId);
    }
  }

  /** Waits for the calls that were taken, then disconnects. */
  async close(): Promise<void> {
    await Promise.all(this.#lanes.map((lane) => lane.close()));
  }

  /** The one with the least to do, of those that are connected if any is. */
  #freest(): CreationLane {
    return this.#lanes.reduce((best, lane) => ((lane.up === best.up ? lane.load.waiting < best.load.waiting : lane.up) ? lane : best));
  }
}
