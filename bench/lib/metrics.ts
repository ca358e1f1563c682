import { setTimeout as sleep } from "node:timers/promises";
import type { Measured } from "./process.ts";

/** Calls that a service did not answer with success, by its own metrics. */
export interface Refused {
  readonly method: string;
  readonly code: string;
  readonly calls: number;
}

/** The service renders its metrics once a second at most. */
const RENDERED_MS = 1_100;

/** Every call that was refused or failed since the service started. Those that a driver cut off at the end of its time are none. */
export async function refusedCalls(service: Measured): Promise<Refused[]> {
  await sleep(RENDERED_MS);
  const text = await (await fetch(`http://${service.rest}/metrics`)).text();
  const counts = [...text.matchAll(/^credentials_call_seconds_count\{method="([^"]*)",code="([^"]*)"\} (\d+)$/gm)];
  if (counts.length === 0) throw new Error("the service's metrics do not count calls");
  return counts.map(([, method = "", code = "", calls]) => ({ method, code, calls: Number(calls) })).filter(({ code }) => code !== "OK" && code !== "CANCELLED");
}
