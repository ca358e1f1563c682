import type { WatchFeed, WatchRequest, WatchSink } from "../domain/watch.ts";
import type { Store } from "../store/store.ts";
import { auditEvent, type Grant, recordRefusal } from "./gate.ts";

/** What watching needs. */
export interface WatchDeps {
  readonly store: Pick<Store, "audit">;
  readonly feed: WatchFeed;
}

/** A watch as it is asked for. */
export type WatchInput = Omit<WatchRequest, "caller">;

/**
 * Begins to tell a service account what happens to the credentials it is granted, after that was recorded; a refusal that ends
 * it later has a record of its own. How the account stands is asked by the feed: before it tells anything, and again and
 * again. Gives what frees its place once the stream is gone. Throws AUDIT_UNAVAILABLE and WATCH_LIMIT_REACHED.
 */
export async function watchCredentials({ store, feed }: WatchDeps, { caller, call, action }: Grant<"watch_credentials">, input: WatchInput, sink: WatchSink): Promise<() => void> {
  await store.audit.append([auditEvent(call, action)]);
  call.signal.throwIfAborted();
  const stream = feed.add({ caller, ...input }, {
    send: (message) => sink.send(message),
    get queued() {
      return sink.queued;
    },
    end(error) {
      void recordRefusal(store.audit, call, action, error, null);
      sink.end(error);
    },
  });
  return () => stream.remove();
}
