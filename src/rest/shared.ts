/**
 * Shares one answer among all who ask: those who ask while it is made get the same one, and so does everyone for a time
 * after that. A failure is shared by those who wait for it, and not kept.
 *
 * @param keepMs how long an answer holds after it was given, ms
 * @param now a clock, ms
 */
export function shared<T>(make: () => Promise<T>, keepMs: number, now: () => number = () => performance.now()): () => Promise<T> {
  let current: Promise<T> | undefined;
  let untilMs = Number.POSITIVE_INFINITY;
  return () => {
    if (current && now() < untilMs) return current;
    untilMs = Number.POSITIVE_INFINITY;
    const made = make();
    current = made;
    made.then(
      () => (untilMs = now() + keepMs),
      () => (current = undefined),
    );
    return made;
  };
}
