import type { CredentialUseReport, ReportCredentialUsesResponse } from "../../gen/flow/credentials/v1/credential_service.ts";
import { named } from "./calls.ts";

/** Items of one report. */
const ITEMS = 256;

/** Uses of one item. */
const USES = 1_000_000;

/** Items that wait to be reported; above it, runs and flows of one credential are counted together. */
const MAX_WAITING = 4_096;

/** How often an item is reported that the service does not take, as where the replica that knew of its resolve was killed. */
const TRIES = 5;

interface Waiting {
  readonly credentialId: string;
  readonly flowId: string | undefined;
  readonly runId: string | undefined;
  uses: number;
  tries: number;
}

/** Counts uses of secrets that were kept, until they are reported: each at least once, unless nobody takes the report. */
export class UseCounter {
  readonly #report: (reports: CredentialUseReport[], deadlineMs: number | undefined) => Promise<ReportCredentialUsesResponse>;
  #waiting = new Map<string, Waiting>();
  #running: Promise<void> | undefined;
  /** Uses that could not be reported. */
  lost = 0;

  constructor(report: (reports: CredentialUseReport[], deadlineMs: number | undefined) => Promise<ReportCredentialUsesResponse>) {
    this.#report = report;
  }

  /** Uses that wait. */
  get waiting(): number {
    let uses = 0;
    for (const item of this.#waiting.values()) uses += item.uses;
    return uses;
  }

  /** Counts one use. Throws INVALID_ARGUMENT for a flow or a run that cannot be one. */
  count(credentialId: string, flowId: string | undefined, runId: string | undefined): void {
    const item = this.#waiting.get(`${credentialId}\0${flowId ?? ""}\0${runId ?? ""}`);
    if (item !== undefined) {
      item.uses += 1;
      return;
    }
    if (flowId !== undefined) named("x-flow-id", flowId);
    if (runId !== undefined) named("x-run-id", runId);
    this.#add({ credentialId, flowId, runId, uses: 1, tries: 0 });
  }

  /** Reports what waits. Never rejects. */
  flush(deadlineMs?: number): Promise<void> {
    return (this.#running ??= this.#flush(deadlineMs).finally(() => (this.#running = undefined)));
  }

  #add(item: Waiting): void {
    const full = this.#waiting.size >= MAX_WAITING;
    const kept = full ? { ...item, flowId: undefined, runId: undefined } : item;
    const key = `${kept.credentialId}\0${kept.flowId ?? ""}\0${kept.runId ?? ""}`;
    const known = this.#waiting.get(key);
    if (known) known.uses += kept.uses;
    else if (this.#waiting.size < 2 * MAX_WAITING) this.#waiting.set(key, kept);
    else this.lost += kept.uses;
  }

  async #flush(deadlineMs: number | undefined): Promise<void> {
    const due = [...this.#waiting.values()];
    this.#waiting = new Map();
    for (let from = 0; from < due.length; from += ITEMS) {
      const items = due.slice(from, from + ITEMS);
      try {
        const reports = items.map(({ credentialId, flowId, runId, uses }) => ({ credentialId, flowId, runId, uses: BigInt(Math.min(uses, USES)) }));
        const { notResolved } = await this.#report(reports, deadlineMs);
        const refused = new Set(notResolved);
        items.forEach((item, place) => this.#settle(item, refused.has(place)));
      } catch {
        for (const item of items) this.#again(item);
      }
    }
  }

  #settle(item: Waiting, refused: boolean): void {
    if (refused) this.#again(item);
    else if (item.uses > USES) this.#add({ ...item, uses: item.uses - USES, tries: 0 });
  }

  #again(item: Waiting): void {
    if (item.tries + 1 >= TRIES) this.lost += item.uses;
    else this.#add({ ...item, tries: item.tries + 1 });
  }
}
