/** How busy a pool of connections is. */
export interface PoolLoad {
  readonly name: string;
  /** Open connections. */
  readonly open: number;
  /** Those that are in use. */
  readonly busy: number;
  /** Calls that wait for one. */
  readonly waiting: number;
  /** Most connections. */
  readonly most: number;
}

/** How busy a lane of events is. */
export interface EventLaneLoad {
  readonly name: string;
  /** Whether events can be sent. */
  readonly up: boolean;
  /** Events that wait to be recorded, those that are being recorded included. */
  readonly waiting: number;
  /** Most events that may wait. */
  readonly most: number;
  /** How long the oldest of them has waited, ms. */
  readonly oldestMs: number;
}

/** How busy the ways to the database are. */
export interface StoreLoad {
  readonly pools: readonly PoolLoad[];
  readonly lanes: readonly EventLaneLoad[];
}

/** Is told of each transaction that recorded events: how many, how long the first of them had waited, and whether they stand. */
export type Recorded = (lane: string, batch: { readonly events: number; readonly seconds: number; readonly stands: boolean }) => void;
