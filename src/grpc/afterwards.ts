import { outside } from "../trace.ts";

let waiting: (() => void)[] = [];

function run(): void {
  const due = waiting;
  waiting = [];
  for (const work of due) work();
}

// Where the process ends at once, what is waiting is still done: the log is written last.
process.on("exit", run);

/**
 * Does what no caller waits for, together with what else there is of that, once answers have left: Node sends a message at the end of the
 * turn in which it is written, and its trailers in the turn after.
 */
export function afterwards(work: () => void): void {
  if (waiting.push(work) === 1) outside(() => setImmediate(() => setImmediate(run)));
}
