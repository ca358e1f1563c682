/** When a provider is left alone. */
export interface BreakerOptions {
  /** Failures in a row after which it is. */
  readonly failures: number;
  /** For how long at first, ms; doubled each time it is still down. */
  readonly openMs: number;
  /** For how long at most, ms; also the most that is believed of a `Retry-After`. */
  readonly maxOpenMs: number;
  /** Milliseconds on a clock that never goes back. */
  readonly now: () => number;
}

/** One that was let through. What is told first counts. */
export interface Passage {
  /** The provider answered, whatever it said. */
  answered(): void;
  /** It did not, or told us to come back later. */
  failed(retryAfterMs: number | null): void;
  /** It was not asked after all. */
  abandoned(): void;
}

interface State {
  failures: number;
  opened: number;
  openUntil: number;
  /** The one that was let through while others wait. */
  probe: Passage | undefined;
}

/** Most that is remembered: clients at providers that do not answer, and credentials that were held up by them. */
const MAX_REMEMBERED = 10_000;

/**
 * Leaves a provider alone that is down, or that asked for it (RFC 9110 section 10.2.3), so that it is not held down by those
 * who wait for it. When the time is over one renewal is let through, and its outcome decides for all who share its key: the
 * endpoint, and the client there.
 */
export class Breaker {
  readonly #options: BreakerOptions;
  readonly #states = new Map<string, State>();
  /** The keys of those who were held up, by who they are. */
  readonly #heldUp = new Map<string, string>();

  constructor(options: BreakerOptions) {
    this.#options = options;
  }

  /** Whether it is worth a try for somebody: not while what held it up before would do so again. */
  mayTry(who: string): boolean {
    const state = this.#states.get(this.#heldUp.get(who) ?? "");
    return state === undefined || this.#waitMs(state) === 0;
  }

  /** Lets somebody through, or says for how long not, ms. */
  enter(key: string, who: string): Passage | number {
    const state = this.#states.get(key);
    const waitMs = state === undefined ? 0 : this.#waitMs(state);
    if (waitMs > 0) {
      remember(this.#heldUp, who, key);
      return waitMs;
    }
    let over = false;
    const once = (tell: () => void) => () => {
      if (!over) tell();
      over = true;
    };
    const passage: Passage = {
      answered: once(() => this.#states.delete(key)),
      failed: (retryAfterMs) => once(() => this.#failed(key, who, passage, retryAfterMs))(),
      abandoned: once(() => {
        const now = this.#states.get(key);
        if (now?.probe === passage) now.probe = undefined;
      }),
    };
    if (state !== undefined && state.opened > 0) state.probe = passage;
    return passage;
  }

  #waitMs({ opened, openUntil, probe }: State): number {
    if (opened === 0) return 0;
    return Math.max(openUntil - this.#options.now(), probe === undefined ? 0 : this.#options.openMs);
  }

  #failed(key: string, who: string, passage: Passage, retryAfterMs: number | null): void {
    const { failures, openMs, maxOpenMs, now } = this.#options;
    const state = this.#states.get(key) ?? { failures: 0, opened: 0, openUntil: 0, probe: undefined };
    remember(this.#states, key, state);
    remember(this.#heldUp, who, key);
    state.failures++;
    const late = state.opened > 0 && state.probe !== passage;
    if (!late) state.probe = undefined;
    if (retryAfterMs === null && (late || (state.opened === 0 && state.failures < failures))) return;
    state.openUntil = Math.max(state.openUntil, now() + Math.min(maxOpenMs, Math.max(retryAfterMs ?? 0, openMs * 2 ** state.opened)));
    state.opened = Math.min(state.opened + 1, 20);
  }
}

/** Sets an entry as the newest, and forgets the oldest where there are too many. */
function remember<V>(map: Map<string, V>, key: string, value: V): void {
  map.delete(key);
  map.set(key, value);
  const oldest = map.keys().next().value;
  if (map.size > MAX_REMEMBERED && oldest !== undefined) map.delete(oldest);
}
