import { vi } from "vitest";
import { connect } from "./postgres.ts";

/** A session that holds what others want. */
export interface Blocker extends AsyncDisposable {
  /** Sessions of the application role whose statement waits for a lock, or sleeps. */
  waiting(): Promise<number[]>;
  /** Resolves when exactly so many wait. */
  holds(count: number): Promise<void>;
  /** Gives back what it holds. */
  release(): Promise<void>;
  /** Gives back what it holds and keeps what it did. */
  commit(): Promise<void>;
}

/** A superuser's session that runs a statement in a transaction and keeps its locks until it is released. */
export async function block(superuserUrl: string, statement: string, values: readonly unknown[] = []): Promise<Blocker> {
  const [holder, watcher] = [await connect(superuserUrl), await connect(superuserUrl)];
  await holder.query("begin");
  await holder.query(statement, [...values]);
  const waiting = async () => {
    const { rows } = await watcher.query<{ pid: number }>(
      "select pid from pg_stat_activity where usename = 'credentials_app' and datname = current_database() and state = 'active' and wait_event_type in ('Lock', 'Timeout')",
    );
    return rows.map(({ pid }) => pid);
  };
  return {
    waiting,
    holds: (count) => vi.waitFor(async () => {
      const found = await waiting();
      if (found.length !== count) throw new Error(`${found.length} sessions wait, not ${count}`);
    }, { timeout: 5_000, interval: 5 }),
    release: async () => void (await holder.query("rollback")),
    commit: async () => void (await holder.query("commit")),
    async [Symbol.asyncDispose]() {
      await Promise.all([holder.end(), watcher.end()]);
    },
  };
}
