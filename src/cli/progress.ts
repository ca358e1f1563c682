/** Width of the bar, in characters. */
const BAR = 30;

/** Seconds as people read them. */
export function duration(seconds: number): string {
  const whole = Math.ceil(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3_600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3_600)} h ${Math.floor((whole % 3_600) / 60)} min`;
}

/** One line that shows how far a piece of work is, and how long it will still take at the pace it has had since it was first looked at. */
export class ProgressBar {
  readonly #now: () => number;
  #first: { readonly done: number; readonly at: number } | undefined;

  /** @param now milliseconds on a clock that never goes back */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** The line for so many rows of so many. */
  line(what: string, done: number, total: number): string {
    const at = this.#now();
    this.#first ??= { done, at };
    const share = total === 0 ? 1 : Math.min(1, done / total);
    const filled = Math.round(share * BAR);
    const rate = (done - this.#first.done) / ((at - this.#first.at) / 1000);
    const eta = share === 1 ? "" : rate > 0 ? `, ${duration((total - done) / rate)} left` : "";
    const pace = rate > 0 ? `, ${Math.round(rate)}/s` : "";
    return `${what} [${"#".repeat(filled)}${"-".repeat(BAR - filled)}] ${Math.floor(share * 100)} % ${done}/${total}${pace}${eta}`;
  }
}
