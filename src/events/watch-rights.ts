import { CredentialError, fail } from "../domain/errors.ts";
import type { Watcher, WatcherStanding, WatchStore } from "../store/watch.ts";
import type { Stream } from "./watch-stream.ts";

/** Streams whose rights are asked for in one statement. */
const AT_ONCE = 2_000;

const watcherOf = ({ request: { caller } }: Stream): Watcher => ({ organizationId: caller.organizationId, accountId: caller.id, keyId: caller.keyId ?? null });
const nameOf = ({ organizationId, accountId, keyId }: Watcher): string => `${organizationId}/${accountId}/${keyId ?? ""}`;

/**
 * Asks for all of these streams whether their callers are still let in and what they are granted, and ends those that are not.
 * Rejects where that cannot be found out; then nothing may be told to them.
 */
export async function authorize(store: Pick<WatchStore, "standings">, streams: readonly Stream[], nowMs: number): Promise<void> {
  await Promise.all(streams.filter(({ request, provenUntilMs }) => request.caller.keyId === undefined && provenUntilMs <= nowMs).map(prove));
  const watchers = new Map(streams.map((stream) => [nameOf(watcherOf(stream)), watcherOf(stream)]));
  const names = [...watchers.keys()];
  const standings = new Map<string, WatcherStanding>();
  for (let from = 0; from < names.length; from += AT_ONCE) {
    const batch = names.slice(from, from + AT_ONCE);
    const answers = await store.standings(batch.map((name) => watchers.get(name) as Watcher));
    answers.forEach((answer, index) => standings.set(batch[index] as string, answer));
  }
  for (const stream of streams) {
    const standing = standings.get(nameOf(watcherOf(stream)));
    if (stream.ended || standing === undefined) continue;
    if ("refusal" in standing) stream.end(fail(standing.refusal));
    else stream.grant(standing.scope);
  }
}

/** Proves a caller once more whose token's time is over: it may have been trusted only until its issuer's keys are fetched again. */
async function prove(stream: Stream): Promise<void> {
  try {
    stream.provenUntilMs = await stream.request.prove();
  } catch (error) {
    stream.end(error instanceof CredentialError ? error : fail("INTERNAL", { cause: error }));
  }
}
