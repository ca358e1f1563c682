import { createHash } from "node:crypto";
import type { Envelope } from "../crypto/envelope.ts";
import type { Action, Call, IdempotencyClaim } from "../domain/access.ts";
import { CredentialError, fail } from "../domain/errors.ts";
import type { RecordedAnswer, RecordedWrite, RepeatPlace, Store } from "../store/store.ts";

export type { RecordedAnswer } from "../store/store.ts";

/** What repeatable writes need. */
export interface IdempotencyDeps {
  readonly store: Pick<Store, "idempotency">;
  readonly envelope: Pick<Envelope, "fingerprint">;
}

/** A write that its caller may repeat. */
export interface Repeatable {
  readonly call: Call;
  readonly action: Action;
  /** The organization that it is about. */
  readonly organizationId: string;
  /** The key that the caller chose. */
  readonly key: string;
  /** The request as it was read. */
  readonly request: unknown;
}

/** Does a write at most once under its key: runs it with a claim, or answers with what was done before. */
export interface Repeats {
  /**
   * Throws IDEMPOTENCY_KEY_REUSED where the key stands for another request, IDEMPOTENCY_IN_FLIGHT while the same one is
   * under way, and what the work throws; a write that was refused leaves its key unused.
   */
  once<T>(repeatable: Repeatable, work: (claim: IdempotencyClaim) => Promise<T>, again: (answer: RecordedAnswer) => T): Promise<T>;
}

/** A request as text, the same for equal requests: keys in order, and every kind of value told apart. */
export function canonical(value: unknown): string {
  if (typeof value === "bigint") return `${value}n`;
  if (value instanceof Date) return `@${value.getTime()}`;
  if (value instanceof Uint8Array) return `#${Buffer.from(value).toString("base64")}`;
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "-";
  const members = Object.entries(value).filter(([, member]) => member !== undefined).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([key, member]) => `${JSON.stringify(key)}:${canonical(member)}`).join(",")}}`;
}

/** Makes the repeatable writes of one process. What two processes do under one key at once, the database decides. */
export function createRepeats({ store, envelope }: IdempotencyDeps): Repeats {
  const underWay = new Set<string>();
  const matches = async (write: RecordedWrite, organizationId: string, request: Buffer): Promise<boolean> =>
    (await envelope.fingerprint(organizationId, request, write.keyVersion)).digest.toString("hex") === write.requestHash;

  return {
    async once({ call, action, organizationId, key, request }, work, again) {
      const { caller, signal } = call;
      const bytes = Buffer.from(canonical(request));
      const place: RepeatPlace = { organizationId, actorKind: caller.kind, actorId: caller.id, action, keyHash: createHash("sha256").update(key).digest("hex") };
      const name = Object.values(place).join("/");
      if (underWay.has(name)) throw fail("IDEMPOTENCY_IN_FLIGHT", { retryAfterMs: 1_000 });
      underWay.add(name);
      const done = async (): Promise<RecordedAnswer | undefined> => {
        const write = await store.idempotency.find(place, signal);
        if (write && !(await matches(write, organizationId, bytes))) throw fail("IDEMPOTENCY_KEY_REUSED");
        return write?.answer;
      };
      try {
        const before = await done();
        if (before) return again(before);
        const { version, digest } = await envelope.fingerprint(organizationId, bytes);
        try {
          return await work({ keyHash: place.keyHash, requestHash: digest.toString("hex"), keyVersion: version });
        } catch (error) {
          // Another replica was faster, and has committed: a conflict is only reported then.
          if (!(error instanceof CredentialError) || error.reason !== "IDEMPOTENCY_IN_FLIGHT") throw error;
          const meanwhile = await done();
          if (meanwhile) return again(meanwhile);
          throw error;
        }
      } finally {
        underWay.delete(name);
      }
    },
  };
}
