import { Socket } from "node:net";
import type { CheckIo, CheckOptions, CheckResult } from "../domain/check.ts";
import type { SecretDocument } from "../domain/credential.ts";
import { NOT_SUPPORTED } from "./probe-answer.ts";
import { createCheckIo } from "./probe-io.ts";
import { CHANNEL_FD, NEWLINE, type ProbeOrder, type ProbeTask, sharedClockMs } from "./probe-task.ts";

/** What can be tried. */
export interface Checkable {
  check?(document: SecretDocument, io: CheckIo, options: CheckOptions): Promise<CheckResult>;
}

/**
 * Runs in the child: says that it is ready, waits for one order, does it, answers once, and waits to be killed. What is thrown ends the process, which is an answer
 * too. When the parent is gone the channel ends, and the process with it.
 */
export async function serveOneTask(find: (task: ProbeTask) => Promise<Checkable | undefined>): Promise<void> {
  const channel = new Socket({ fd: CHANNEL_FD, readable: true, writable: true });
  channel.on("error", () => process.exit(1));
  channel.on("close", () => process.exit(0));
  const ordered = orderFrom(channel);
  channel.write("\n");
  const { task, egress, endsAt } = await ordered;
  const shape = await find(task);
  const io = createCheckIo(task.provider, egress, Math.max(0, endsAt - sharedClockMs()));
  const result = shape?.check ? await shape.check(task.document, io, task.options) : NOT_SUPPORTED;
  channel.write(`${JSON.stringify(result)}\n`);
}

/** The first line. The channel stays in flow, so that its end is seen. */
function orderFrom(channel: Socket): Promise<ProbeOrder> {
  const chunks: Buffer[] = [];
  return new Promise((resolve, reject) => {
    channel.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      if (chunk.at(-1) !== NEWLINE) return;
      try {
        resolve(JSON.parse(Buffer.concat(chunks.splice(0)).toString()) as ProbeOrder);
      } catch {
        // The parser's own words would quote the secret.
        reject(new TypeError("the order cannot be read"));
      }
    });
  });
}
