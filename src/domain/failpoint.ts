/** Places in a renewal at which a test may let a process die, stop or fail. */
export const FAILPOINTS = ["before-call", "after-send", "after-reply", "before-commit", "after-commit"] as const;
export type FailpointName = (typeof FAILPOINTS)[number];

/** Called at each of the places; does nothing unless it was told to. */
export type Failpoint = (at: FailpointName) => Promise<void>;
