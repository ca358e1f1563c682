import { fail } from "../domain/errors.ts";
import { Batcher, type Waiting } from "./batcher.ts";
import { Database, type DatabaseOptions } from "./db.ts";
import { translate } from "./errors.ts";
import type { PoolLoad } from "./load.ts";
import { STORED_KEY_COLUMNS, storedKey } from "./rows.ts";
import type { StoredKey } from "./store.ts";
import type { Statement } from "./transaction.ts";

/** Connections for looking up API keys. */
const CONNECTIONS = 2;

/** Prefixes that may wait; more are refused. */
const QUEUE = 1_024;

/** Prefixes that are looked up together at most. */
const BATCH = 256;

/** Callers that may wait for one prefix, whose look-up is under way; more are refused. */
const SHARERS = 1_024;

const FIND: Statement = { name: "service_account_key_find", text: `select ${STORED_KEY_COLUMNS} from service_account_key where token_prefix = any($1)` };

/** A look-up under way and how many wait for it. */
interface Flight {
  readonly found: Promise<StoredKey | undefined>;
  sharers: number;
}

type Lookup = Waiting<string, StoredKey | undefined>;

/**
 * Finds API keys by their prefix, on connections of its own. Anyone may present a made-up key, so the look-ups must not
 * take connections from those who are known: the prefixes that wait share one statement, and callers with the same
 * prefix share one look-up.
 */
export class KeyLookup {
  readonly #database: Database;
  readonly #batcher: Batcher<string, StoredKey | undefined>;
  readonly #flights = new Map<string, Flight>();

  constructor(options: Omit<DatabaseOptions, "name" | "poolSize">) {
    this.#database = new Database({ ...options, name: "api_keys", poolSize: CONNECTIONS });
    this.#batcher = new Batcher({
      queue: QUEUE,
      batch: BATCH,
      inFlight: CONNECTIONS,
      full: "OVERLOADED",
      down: "DATABASE_UNAVAILABLE",
      state: () => "up",
      send: (lookups) => this.#send(lookups),
    });
  }

  /** The key with that prefix. Rejects with OVERLOADED where too many wait. */
  async find(prefix: string): Promise<StoredKey | undefined> {
    if (prefix.includes("\0")) return undefined;
    const flight = this.#flights.get(prefix) ?? this.#start(prefix);
    if (flight.sharers >= SHARERS) throw fail("OVERLOADED");
    flight.sharers++;
    return await flight.found;
  }

  /** How busy its connections are. */
  get load(): PoolLoad {
    return this.#database.load;
  }

  /** Waits for what is under way and closes every connection. */
  async close(): Promise<void> {
    await this.#batcher.close();
    await this.#database.close();
  }

  #start(prefix: string): Flight {
    const found = this.#batcher.submit(prefix).finally(() => this.#flights.delete(prefix));
    const flight = { found, sharers: 0 };
    this.#flights.set(prefix, flight);
    return flight;
  }

  async #send(lookups: readonly Lookup[]): Promise<void> {
    try {
      const prefixes = lookups.map(({ item }) => item);
      const rows = await this.#database.query([], FIND, [prefixes]);
      const keys = new Map(rows.map((row) => [row["token_prefix"] as string, storedKey(row)]));
      for (const { item, resolve } of lookups) resolve(keys.get(item));
    } catch (error) {
      const failure = translate(error);
      for (const { reject } of lookups) reject(failure);
    }
  }
}
