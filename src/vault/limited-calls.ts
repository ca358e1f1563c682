import type { Action, AuditEvent, Call } from "../domain/access.ts";
import type { AuditStore } from "../store/store.ts";
import { auditEvent } from "./gate.ts";
import { rateClassOf } from "./rates.ts";

/** Callers of one organization that are told apart in a period; the calls of all others are recorded together. */
const CALLERS_PER_ORGANIZATION = 100;

/** Callers, by what they do, that are known in a period; of more, only the log tells. */
const MAX_CALLERS = 20_000;

/** What a caller was refused since the period began, or since it was last recorded. */
interface Refused {
  /** The record of the newest refusal. */
  newest: AuditEvent;
  /** Calls that no record stands for yet. */
  calls: number;
}

/**
 * Records refusals of callers that call too often, without letting them fill the trail: for each caller, and each kind of
 * call that is limited, the first refusal of a period at once, and at its end one record that stands for all the others.
 * Each process has its own periods; one that is killed forgets how many there were in its last one.
 */
export class LimitedCalls {
  readonly #audit: AuditStore;
  #refused = new Map<string, Refused>();
  #callers = new Map<string, number>();

  constructor(audit: AuditStore) {
    this.#audit = audit;
  }

  /** Takes in a refusal. Resolves when the first of a period is recorded, and also when it cannot be: it is counted then. */
  async note(call: Call, action: Action): Promise<void> {
    const event = auditEvent(call, action, { ending: { outcome: "refused", reason: "RATE_LIMITED" } });
    const name = this.#nameOf(call, action);
    const known = this.#refused.get(name);
    if (known) {
      known.newest = event;
      known.calls += 1;
      return;
    }
    if (this.#refused.size >= MAX_CALLERS) return;
    this.#refused.set(name, { newest: event, calls: 0 });
    if (!(await this.#recorded(event))) this.#again(name, { newest: event, calls: 1 });
  }

  /** Ends the period: records what it has not yet. What cannot be recorded now is kept for the end of the next one. */
  async record(): Promise<void> {
    const ended = this.#refused;
    [this.#refused, this.#callers] = [new Map(), new Map()];
    await Promise.all(
      Array.from(ended, async ([name, refused]) => {
        const { newest, calls } = refused;
        if (calls > 0 && !(await this.#recorded({ ...newest, calls }))) this.#again(name, refused);
      }),
    );
  }

  async #recorded(event: AuditEvent): Promise<boolean> {
    return this.#audit.append([event]).then(
      () => true,
      () => false,
    );
  }

  #again(name: string, { newest, calls }: Refused): void {
    const known = this.#refused.get(name);
    if (known) known.calls += calls;
    else if (this.#refused.size < MAX_CALLERS) this.#refused.set(name, { newest, calls });
  }

  #nameOf({ caller }: Call, action: Action): string {
    const organization = caller.kind === "operator" ? "" : caller.organizationId;
    const own = `${organization}/${rateClassOf(action)}/${caller.kind}/${caller.id}`;
    if (this.#refused.has(own)) return own;
    const callers = this.#callers.get(organization) ?? 0;
    if (callers >= CALLERS_PER_ORGANIZATION) return `${organization}/${rateClassOf(action)}`;
    this.#callers.set(organization, callers + 1);
    return own;
  }
}
