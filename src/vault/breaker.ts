import type { ProviderName } from "../domain/credential.ts";

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

interface State {
  failures: number;
  opened: number;
  openUntil: number;
  /** Whether the one that is let through while others wait is under way. */
  probing: boolean;
}

/**
 * Leaves a provider alone that is down, or that asked for it (RFC 9110 section 10.2.3), so that it is not held down by those
 * who wait for it. When the time is over one renewal is let through, and its outcome decides for all.
 */
export class Breaker {
  readonly #options: BreakerOptions;
  readonly #states = new Map<ProviderName, State>();

  constructor(options: BreakerOptions) {
    this.#options = options;
  }

  /** Whether a renewal may be tried now. */
  admits(provider: ProviderName): boolean {
    const state = this.#states.get(provider);
    return state === undefined || state.opened === 0 || (this.#options.now() >= state.openUntil && !state.probing);
  }

  /** How many of so many may be tried now: one, where its outcome is to show whether the provider is back. */
  room(provider: ProviderName, limit: number): number {
    if (!this.admits(provider)) return 0;
    return (this.#states.get(provider)?.opened ?? 0) > 0 ? Math.min(1, limit) : limit;
  }

  /** Notes that one is tried. */
  started(provider: ProviderName): void {
    const state = this.#states.get(provider);
    if (state !== undefined && state.opened > 0) state.probing = true;
  }

  /** Notes that the provider answered, whatever it said. */
  answered(provider: ProviderName): void {
    this.#states.delete(provider);
  }

  /** Notes that the provider did not answer, or told us to come back later. */
  failed(provider: ProviderName, retryAfterMs: number | null): void {
    const { failures, openMs, maxOpenMs, now } = this.#options;
    const state = this.#states.get(provider) ?? { failures: 0, opened: 0, openUntil: 0, probing: false };
    this.#states.set(provider, state);
    state.failures++;
    const late = state.opened > 0 && !state.probing;
    state.probing = false;
    if (retryAfterMs === null && (late || (state.opened === 0 && state.failures < failures))) return;
    state.openUntil = Math.max(state.openUntil, now() + Math.min(maxOpenMs, Math.max(retryAfterMs ?? 0, openMs * 2 ** state.opened)));
    state.opened = Math.min(state.opened + 1, 20);
  }

  /** Notes that one that was tried came to nothing before the provider was asked. */
  abandoned(provider: ProviderName): void {
    const state = this.#states.get(provider);
    if (state !== undefined) state.probing = false;
  }
}
