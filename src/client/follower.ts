import type { WatchCredentialsResponse } from "../../gen/flow/credentials/v1/credential_service.ts";
import { type Followed, type Following, PAUSE_MS } from "./calls.ts";
import type { CredentialClientError, StatusName } from "./error.ts";
import type { SecretCache } from "./secret-cache.ts";

/** Statuses of the service after which nothing that is kept may be used: the caller is not let in, or what it knew is not to be gone on from. */
const FINAL: ReadonlySet<StatusName> = new Set(["UNAUTHENTICATED", "PERMISSION_DENIED", "FAILED_PRECONDITION", "OUT_OF_RANGE", "INVALID_ARGUMENT"]);

/** Longest pause before a stream is begun again, ms. */
const MOST_MS = 10_000;

/**
 * Follows what happens to credentials and keeps a cache in step. A stream that ends is begun again where it stood; one that
 * is silent for too long is given up first, so that nothing which it still holds is believed.
 */
export class Follower {
  readonly #open: (position: string, followed: Followed<WatchCredentialsResponse>) => Following;
  readonly #cache: SecretCache;
  readonly #silenceMs: number;
  #position = "";
  #failures = 0;
  #stream: Following | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;
  #ready = Promise.withResolvers<void>();
  #connected = false;

  constructor(open: (position: string, followed: Followed<WatchCredentialsResponse>) => Following, cache: SecretCache, maxSilenceMs: number) {
    this.#open = open;
    this.#cache = cache;
    this.#silenceMs = (maxSilenceMs * 2) / 3;
    this.#ready.promise.catch(() => {});
  }

  /** Whether the stream has told how fresh it is since it was begun. */
  get connected(): boolean {
    return this.#connected;
  }

  /** Begins, where it has not yet. */
  start(): void {
    if (this.#closed || this.#stream !== undefined || this.#timer !== undefined) return;
    this.#connect();
  }

  /** Resolves once it is told what happens. */
  ready(): Promise<void> {
    return this.#ready.promise;
  }

  close(error: CredentialClientError): void {
    this.#closed = true;
    this.#connected = false;
    clearTimeout(this.#timer);
    this.#stream?.cancel();
    this.#ready.reject(error);
  }

  #connect(): void {
    const begun = performance.now();
    let first: number | undefined;
    const stream: Following = this.#open(this.#position, {
      message: ({ position, message }) => {
        this.#timer?.refresh();
        if (message?.$case === "event") this.#cache.told(message.value);
        if (message?.$case === "accessChanged") this.#cache.reset(false);
        this.#position = position;
        if (message?.$case !== "bookmark" || message.value.asOf === undefined) return;
        // The service's clock is only compared with itself: its first word came after the stream was asked for, and no later one
        // is older than by what lies between them there, however long it was on its way.
        const asOf = message.value.asOf.getTime();
        first ??= asOf;
        this.#cache.follow();
        this.#cache.progress(Math.min(performance.now(), begun + asOf - first));
        this.#failures = 0;
        this.#connected = true;
        this.#ready.resolve();
      },
      end: (error) => {
        if (this.#stream === stream || this.#stream === undefined) this.#ended(error);
      },
    });
    this.#stream = stream;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => stream.cancel(), this.#silenceMs);
  }

  #ended(error: CredentialClientError): void {
    clearTimeout(this.#timer);
    [this.#stream, this.#connected] = [undefined, false];
    if (this.#closed) return;
    const lost = FINAL.has(error.code) && error.reason !== undefined;
    if (lost) {
      this.#cache.reset(true);
      this.#position = "";
    }
    const pause = error.code === "OUT_OF_RANGE" && this.#failures === 0 ? 0 : Math.random() * Math.min(MOST_MS, PAUSE_MS.first * 2 ** Math.min(this.#failures, 10));
    this.#failures += 1;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#connect();
    }, pause);
  }
}
