import { setTimeout as sleep } from "node:timers/promises";
import type { WebhookSigner } from "../crypto/webhook-signature.ts";
import type { GuardedResponse } from "../domain/check.ts";
import { errorFields, identified, type Log } from "../log.ts";
import type { CredentialEvent, DeliveryLease, OutboxStore } from "../store/outbox.ts";

/** What delivering needs. */
export interface WebhookDeps {
  readonly outbox: OutboxStore;
  readonly signer: WebhookSigner;
  /** Posts to the configured endpoint; rejects where it does not answer in time. */
  readonly post: (headers: Readonly<Record<string, string>>, body: string, signal: AbortSignal) => Promise<Pick<GuardedResponse, "status" | "headers">>;
  readonly log: Log;
  readonly observe: (outcome: "delivered" | "failed" | "given_up") => void;
  /** Longest time of one delivery, ms. */
  readonly timeoutMs: number;
  /** How often one is tried before it is given up. */
  readonly attempts: number;
}

/** Organizations whose events are delivered at a time. */
const CONCURRENCY = 8;

/** Events of an organization that are read at once. */
const PAGE = 100;

/** Pause between two looks at the outbox where it is empty, ms. */
const IDLE_MS = 1_000;

/** Pauses between attempts, ms: doubled from the first to the last, and shortened at random. */
const BACKOFF_MS = { first: 1_000, last: 6 * 3_600_000 } as const;

/** The most that is believed of a `Retry-After`, ms. */
const MAX_RETRY_AFTER_MS = 3_600_000;

/** The message of an event: its id, which is the same at every attempt, and its body. */
export function messageOf(event: CredentialEvent): { readonly id: string; readonly body: string } {
  return {
    id: `evt_${event.organizationId.replaceAll("-", "")}_${event.revision}`,
    body: JSON.stringify({
      type: `credential.${event.kind}`,
      timestamp: event.occurredAt.toISOString(),
      data: {
        organization_id: event.organizationId,
        revision: event.revision.toString(),
        credential_id: event.credentialId,
        provider: event.provider,
        credential_type: event.credentialType,
        status: event.status,
        status_reason: event.statusReason,
        status_since: event.statusSince.toISOString(),
      },
    }),
  };
}

/**
 * Delivers the outbox to one endpoint, at least once and each organization's events in order; any replica does so under a lease.
 * An event that is not taken is tried again with growing pauses, and those after it wait, until it is given up.
 */
export class Webhooks {
  readonly #deps: WebhookDeps;
  readonly #stopping = new AbortController();
  readonly #running = new Set<Promise<void>>();
  readonly #loop: Promise<void>;

  constructor(deps: WebhookDeps) {
    this.#deps = deps;
    this.#loop = this.#run();
  }

  /** Takes nothing more and ends what is under way; its lease is given back, and another replica goes on. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#loop;
    await Promise.allSettled(this.#running);
  }

  async #run(): Promise<void> {
    const { outbox, log } = this.#deps;
    const signal = this.#stopping.signal;
    let failing = false;
    while (!signal.aborted) {
      try {
        const room = CONCURRENCY - this.#running.size;
        for (const lease of room > 0 ? await outbox.claim(room, this.#leaseMs) : []) this.#track(lease);
        failing = false;
      } catch (error) {
        if (!failing) identified(log).warn(errorFields(error), "the outbox cannot be read");
        failing = true;
      }
      const idle = sleep(IDLE_MS * (0.75 + Math.random() / 2), undefined, { signal }).catch(() => {});
      await (this.#running.size < CONCURRENCY ? idle : Promise.race([idle, ...this.#running]));
    }
  }

  /** Longer than a delivery, and what is written after it, may take. */
  get #leaseMs(): number {
    return this.#deps.timeoutMs * 2 + 5_000;
  }

  #track(lease: DeliveryLease): void {
    const log = identified(this.#deps.log);
    const entry: Promise<void> = this.#deliverAll(lease, log)
      .catch((error: unknown) => log.warn(errorFields(error), "a delivery could not be noted; it is repeated"))
      .finally(() => this.#running.delete(entry));
    this.#running.add(entry);
  }

  async #deliverAll(lease: DeliveryLease, log: Log): Promise<void> {
    const { outbox, observe, attempts } = this.#deps;
    let { sent, attempts: failures } = lease;
    for (;;) {
      const events = await outbox.after(lease.organizationId, sent, PAGE);
      for (const event of events) {
        const retryMs = this.#stopping.signal.aborted ? 0 : await this.#deliver(event);
        if (this.#stopping.signal.aborted && retryMs !== undefined) return await outbox.release(lease, 0, false);
        if (retryMs !== undefined && ++failures < attempts) {
          observe("failed");
          return await outbox.release(lease, Math.max(retryMs, backoff(failures)), true);
        }
        observe(retryMs === undefined ? "delivered" : "given_up");
        if (retryMs !== undefined) log.error({ organization_id: event.organizationId, credential_id: event.credentialId, attempt: failures }, "a webhook was given up");
        if (!(await outbox.advance(lease, event.revision, this.#leaseMs))) return;
        [sent, failures] = [event.revision, 0];
      }
      if (events.length < PAGE) return await outbox.release(lease, 0, false);
    }
  }

  /** Undefined where it was taken, else the shortest pause until it may be tried again, ms. */
  async #deliver(event: CredentialEvent): Promise<number | undefined> {
    const { id, body } = messageOf(event);
    const timestamp = Math.floor(Date.now() / 1000);
    const headers = {
      "content-type": "application/json",
      "user-agent": "flow-credentials",
      "webhook-id": id,
      "webhook-timestamp": String(timestamp),
      "webhook-signature": this.#deps.signer.sign(id, timestamp, body),
    };
    try {
      const signal = AbortSignal.any([AbortSignal.timeout(this.#deps.timeoutMs), this.#stopping.signal]);
      const response = await this.#deps.post(headers, body, signal);
      if (response.status >= 200 && response.status <= 299) return undefined;
      const seconds = Number(response.headers["retry-after"]);
      return seconds > 0 ? Math.min(seconds * 1000, MAX_RETRY_AFTER_MS) : 0;
    } catch {
      return 0;
    }
  }
}

const backoff = (failures: number): number => Math.min(BACKOFF_MS.last, BACKOFF_MS.first * 2 ** Math.min(failures - 1, 30)) * (0.5 + Math.random() / 2);
