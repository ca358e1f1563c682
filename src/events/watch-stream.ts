import { inScope, type Scope } from "../domain/access.ts";
import { type CredentialError, fail } from "../domain/errors.ts";
import { accessOf, positionText, type WatchedEvent, type WatchMessage, type WatchRequest, type WatchSink } from "../domain/watch.ts";

/** What somebody is told, without where that leaves the stream. */
type Told = WatchMessage extends infer M ? (M extends WatchMessage ? Omit<M, "position"> : never) : never;

const EVERYTHING = accessOf(null);

/** One stream of the feed: where it stands and what it may be told. Holds no events: those that wait are the sink's. */
export class Stream {
  readonly request: WatchRequest;
  readonly sink: WatchSink;
  readonly organizationId: string;
  /** Newest event that it has been told of, or that is not for it; undefined until it is known where it begins. */
  revision: bigint | undefined;
  /** Whether events of its organization are told to it as they come; before that, it is told what it has missed. */
  live = false;
  /** When it began not to take in what it has missed, ms. */
  stuckSince: number | undefined;
  provenUntilMs: number;
  #scope: Scope | null = null;
  #access: string | undefined;
  #ended = false;
  readonly #onEnd: (stream: Stream) => void;

  constructor(request: WatchRequest, sink: WatchSink, onEnd: (stream: Stream) => void) {
    this.request = request;
    this.sink = sink;
    this.#onEnd = onEnd;
    this.organizationId = request.caller.organizationId;
    this.revision = request.from?.revision;
    this.provenUntilMs = request.provenUntilMs;
    this.#access = request.from?.access;
  }

  /** Whether it has been ended. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Whether it was ever found to be allowed. */
  admitted = false;

  /** Takes what its caller is granted now, and tells where that is not what it was. */
  grant(scope: Scope | null): void {
    const access = scope === null ? EVERYTHING : accessOf(scope);
    const before = this.#access;
    this.admitted = true;
    this.#scope = scope;
    this.#access = access;
    if (before !== undefined && before !== access) this.#send({ kind: "access_changed" });
  }

  /** Tells an event, once, and only where it is about something that is granted. */
  event(event: WatchedEvent): void {
    if (this.#ended || this.revision === undefined || event.revision <= this.revision) return;
    this.revision = event.revision;
    if (inScope(this.#scope, { id: event.credentialId, provider: event.provider })) this.#send({ kind: "event", event });
  }

  /** Tells that there is nothing more of before that time. */
  bookmark(asOf: Date): void {
    if (!this.#ended && this.revision !== undefined) this.#send({ kind: "bookmark", revision: this.revision, asOf });
  }

  /** Ends it, once. */
  end(error: CredentialError): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#onEnd(this);
    this.sink.end(error);
  }

  /** Ends it where more than so many messages wait for its reader. */
  endIfSlow(most: number): void {
    if (this.sink.queued > most) this.end(fail("WATCH_TOO_SLOW"));
  }

  #send(message: Told): void {
    this.sink.send({ ...message, position: positionText({ revision: this.revision ?? 0n, access: this.#access ?? EVERYTHING }) });
  }
}
