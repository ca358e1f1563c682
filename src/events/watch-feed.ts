import { setTimeout as sleep } from "node:timers/promises";
import { fail, type Reason } from "../domain/errors.ts";
import type { WatchedEvent, WatchedStream, WatchFeed, WatchRequest, WatchSink } from "../domain/watch.ts";
import { errorFields, type Log } from "../log.ts";
import type { EventHead, EventPlace, WatchStore } from "../store/watch.ts";
import { authorize } from "./watch-rights.ts";
import { Stream } from "./watch-stream.ts";
import { Wheel } from "./watch-wheel.ts";

/** What the feed needs, and its limits. */
export interface FeedDeps {
  readonly store: WatchStore;
  readonly log: Log;
  readonly pollMs: number;
  readonly heartbeatMs: number;
  /** Within how long a stream is ended whose caller may not have it any more, ms. */
  readonly reauthorizeMs: number;
  readonly perOrganization: number;
  readonly perReplica: number;
  /** Messages that may wait for the reader of one stream. */
  readonly buffer: number;
}

/** An organization of which somebody is told what happens, as it happens. */
interface Group {
  /** Newest event that its streams were told of. */
  revision: bigint;
  readonly streams: Set<Stream>;
}

/** Events of an organization that are read at once. */
const PAGE = 500;

/** Places of those who missed something that are read in one statement. */
const MISSED_AT_ONCE = 200;

/** How long someone may take to take in a page of what was missed, ms. */
const STUCK_MS = 30_000;

/** Failed looks for so many heartbeats, after which streams are ended: their readers may find a replica that can see. */
const BLIND_HEARTBEATS = 2;

/** A clock like that of the wall, but never set back or forth while the process runs, ms since the epoch. */
const steadyNow = (): number => performance.timeOrigin + performance.now();

/**
 * Tells everyone who watches what happens to credentials. One loop looks at the outbox for all of them: one statement finds
 * the organizations in which something happened, one more reads their events. Nothing is told, no bookmark least of all,
 * of which it is not sure.
 */
export class Feed implements WatchFeed {
  readonly #deps: FeedDeps;
  readonly #stopping = new AbortController();
  readonly #groups = new Map<string, Group>();
  readonly #joining = new Set<Stream>();
  readonly #streams = new Set<Stream>();
  readonly #places = new Map<string, number>();
  readonly #heartbeats: Wheel<Stream>;
  readonly #reauthorizations: Wheel<Stream>;
  readonly #loop: Promise<void>;
  #taken = 0;
  #horizon: bigint | null = null;
  #seenAt = performance.now();
  #wake: (() => void) | undefined;

  constructor(deps: FeedDeps) {
    this.#deps = deps;
    this.#heartbeats = new Wheel(deps.heartbeatMs, performance.now());
    this.#reauthorizations = new Wheel(deps.reauthorizeMs, performance.now());
    this.#loop = this.#run();
  }

  /** Streams that have a place now. */
  get watchers(): number {
    return this.#taken;
  }

  add(request: WatchRequest, sink: WatchSink): WatchedStream {
    const { organizationId } = request.caller;
    const own = this.#places.get(organizationId) ?? 0;
    if (this.#stopping.signal.aborted) throw fail("SHUTTING_DOWN");
    if (own >= this.#deps.perOrganization || this.#taken >= this.#deps.perReplica) throw fail("WATCH_LIMIT_REACHED", { retryAfterMs: this.#deps.heartbeatMs });
    this.#places.set(organizationId, own + 1);
    this.#taken += 1;
    const stream = new Stream(request, sink, (ended) => this.#forget(ended));
    this.#streams.add(stream);
    this.#joining.add(stream);
    this.#heartbeats.add(stream);
    this.#reauthorizations.add(stream);
    this.#wake?.();
    let removed = false;
    return {
      remove: () => {
        if (removed) return;
        removed = true;
        this.#forget(stream);
        this.#taken -= 1;
        const left = (this.#places.get(organizationId) ?? 1) - 1;
        if (left === 0) this.#places.delete(organizationId);
        else this.#places.set(organizationId, left);
      },
    };
  }

  /** Ends every stream, and takes no more. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#wake?.();
    this.#endAll("SHUTTING_DOWN");
    await this.#loop;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    let failing = false;
    while (!signal.aborted) {
      if (this.#streams.size === 0) {
        await new Promise<void>((resolve) => (this.#wake = resolve));
        this.#wake = undefined;
        [this.#horizon, this.#seenAt] = [null, performance.now()];
        continue;
      }
      let more = false;
      try {
        more = await this.#look();
        [this.#seenAt, failing] = [performance.now(), false];
      } catch (error) {
        this.#horizon = null;
        if (!failing) this.#deps.log.warn(errorFields(error), "what happens to credentials cannot be looked at: those who watch are told nothing");
        failing = true;
        if (performance.now() - this.#seenAt > BLIND_HEARTBEATS * this.#deps.heartbeatMs) this.#endAll("DATABASE_UNAVAILABLE");
      }
      if (!more) await sleep(this.#deps.pollMs, undefined, { signal }).catch(() => {});
    }
  }

  /** One look for everyone; gives whether there is more to be told at once. */
  async #look(): Promise<boolean> {
    const { store } = this.#deps;
    const joining = [...this.#joining].filter((stream) => this.#takesIn(stream));
    // Without a horizon something may have failed, and everyone is asked about.
    const due = this.#horizon === null ? [...this.#streams] : [...this.#reauthorizations.due(performance.now())];
    const asked = new Set([...due, ...joining.filter(({ admitted }) => !admitted)]);
    await authorize(store, [...asked], Date.now());
    const asOf = new Date(steadyNow());
    const named = new Set([...asked, ...joining].filter(({ ended }) => !ended).map(({ organizationId }) => organizationId));
    const { horizon, heads } = await store.changed(this.#horizon, [...named]);
    if (this.#horizon !== null && horizon < this.#horizon) throw fail("DATABASE_UNAVAILABLE", { cause: new Error("the database is another one than before") });
    const known = new Map(heads.map((head) => [head.organizationId, head]));
    const groups = this.#groupPlaces(known, named);
    const waiting = joining.filter((stream) => this.#begins(stream, known.get(stream.organizationId)));
    const places = new Map(groups.map((place) => [nameOf(place), place]));
    for (const stream of waiting) if (places.size < groups.length + MISSED_AT_ONCE) places.set(nameOf(placeOf(stream)), placeOf(stream));
    const found = await store.after([...places.values()], PAGE);
    const pages = new Map([...places.keys()].map((name, index) => [name, found[index] as readonly WatchedEvent[]]));
    this.#horizon = horizon;
    const caughtUp = waiting.map((stream) => [stream, pages.get(nameOf(placeOf(stream)))] as const);
    for (const place of groups) this.#tellGroup(place, pages.get(nameOf(place)) as readonly WatchedEvent[], known.get(place.organizationId));
    for (const [stream, page] of caughtUp) if (page) this.#catchUp(stream, page);
    for (const stream of joining) if (!stream.ended && this.#joining.has(stream)) this.#join(stream, known.get(stream.organizationId)?.revision ?? 0n, asOf);
    for (const stream of this.#heartbeats.due(performance.now())) {
      if (stream.live) stream.bookmark(asOf);
      stream.endIfSlow(stream.live ? this.#deps.buffer : Infinity);
    }
    return waiting.some((stream) => !stream.live && !stream.ended && stream.sink.queued === 0);
  }

  /** Whether one who is told what was missed has taken in what came before. */
  #takesIn(stream: Stream): boolean {
    if (stream.sink.queued === 0) {
      stream.stuckSince = undefined;
      return true;
    }
    stream.stuckSince ??= performance.now();
    if (performance.now() - stream.stuckSince > STUCK_MS) stream.end(fail("WATCH_TOO_SLOW"));
    return false;
  }

  /** Where to go on for the organizations in which something happened. */
  #groupPlaces(known: ReadonlyMap<string, EventHead>, named: ReadonlySet<string>): EventPlace[] {
    const places: EventPlace[] = [];
    for (const organizationId of new Set([...known.keys(), ...named])) {
      const group = this.#groups.get(organizationId);
      if (!group) continue;
      const revision = known.get(organizationId)?.revision ?? 0n;
      if (revision > group.revision) places.push({ organizationId, after: group.revision });
      else if (revision < group.revision) this.#endGroup(organizationId, group);
    }
    return places;
  }

  /** The history is not the one that was told: a database that was restored. */
  #endGroup(organizationId: string, group: Group): void {
    for (const stream of group.streams) stream.end(fail("WATCH_POSITION_LOST"));
  }

  /** Whether one who joins has missed something; ends it where that is not kept any more. */
  #begins(stream: Stream, head: EventHead | undefined): boolean {
    const { revision, pruned } = head ?? { revision: 0n, pruned: 0n };
    if (stream.ended) return false;
    stream.revision ??= revision;
    if (stream.revision <= revision && stream.revision >= pruned) return stream.revision < revision;
    stream.end(fail("WATCH_POSITION_LOST"));
    return false;
  }

  #tellGroup({ organizationId, after }: EventPlace, events: readonly WatchedEvent[], head: EventHead | undefined): void {
    const group = this.#groups.get(organizationId);
    if (!group) return;
    if (!isWhole(events, after)) return this.#endGroup(organizationId, group);
    // Of what was sent at the last look there has been time to take it in.
    for (const stream of group.streams) stream.endIfSlow(this.#deps.buffer);
    for (const event of events) for (const stream of group.streams) stream.event(event);
    group.revision = after + BigInt(events.length);
    if (group.revision >= (head?.revision ?? 0n)) return;
    // More than a page is told to each as fast as it takes it in.
    this.#groups.delete(organizationId);
    for (const stream of group.streams) {
      stream.live = false;
      this.#joining.add(stream);
    }
  }

  #catchUp(stream: Stream, events: readonly WatchedEvent[]): void {
    if (!isWhole(events, stream.revision as bigint)) stream.end(fail("WATCH_POSITION_LOST"));
    for (const event of events) stream.event(event);
  }

  /** Lets one join the others of its organization once it has been told what they have. */
  #join(stream: Stream, head: bigint, asOf: Date): void {
    const { organizationId, revision = 0n } = stream;
    const group = this.#groups.get(organizationId) ?? { revision, streams: new Set<Stream>() };
    if (revision < head || revision < group.revision) return;
    this.#groups.set(organizationId, group);
    group.streams.add(stream);
    this.#joining.delete(stream);
    stream.live = true;
    stream.bookmark(asOf);
  }

  #endAll(reason: Reason): void {
    for (const stream of this.#streams) stream.end(fail(reason));
  }

  #forget(stream: Stream): void {
    this.#streams.delete(stream);
    this.#joining.delete(stream);
    this.#heartbeats.delete(stream);
    this.#reauthorizations.delete(stream);
    const group = this.#groups.get(stream.organizationId);
    if (group?.streams.delete(stream) && group.streams.size === 0) this.#groups.delete(stream.organizationId);
  }
}

const placeOf = ({ organizationId, revision = 0n }: Stream): EventPlace => ({ organizationId, after: revision });
const nameOf = ({ organizationId, after }: EventPlace): string => `${organizationId}/${after}`;

/** Whether these are the events right after a place, of which there are some: where one is missing, it was removed in between. */
const isWhole = (events: readonly WatchedEvent[], after: bigint): boolean => events.length > 0 && events.every((event, index) => event.revision === after + BigInt(index) + 1n);
