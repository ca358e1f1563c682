import type { Action, Call, Scope } from "../domain/access.ts";
import { fail } from "../domain/errors.ts";
import type { Store } from "../store/store.ts";
import type { LimitedCalls } from "./limited-calls.ts";
import type { RateLimiter } from "./rates.ts";

/** What receiving callers needs. */
export interface ReceptionDeps {
  readonly store: Pick<Store, "serviceAccounts" | "usage">;
  readonly rates: Pick<RateLimiter, "count">;
  readonly limitedCalls: Pick<LimitedCalls, "note">;
}

/** What is asked of every caller whose identity is proven, before anything is done for them. */
export interface Reception {
  /**
   * Gives what a narrowed service account may touch; null for everything, and at once where nothing is to be asked. Rejects with INVALID_TOKEN for an account that is
   * disabled or deleted, or came with a key that is revoked or has ended, and RATE_LIMITED.
   */
  receive(call: Call, action: Action): Promise<Scope | null> | null;
}

/** Actions whose own statement asks how the caller stands, in the same round trip or for many at once. */
const SELF_ASKING: ReadonlySet<Action> = new Set(["resolve_credential", "watch_credentials"]);

/** Receives callers. A proof that was cached only tells who someone is; how they stand is asked anew with every call. */
export function createReception({ store, rates, limitedCalls }: ReceptionDeps): Reception {
  const refuse = async (call: Call, action: Action, error: unknown): Promise<never> => {
    await limitedCalls.note(call, action);
    throw error;
  };
  const standing = async (organizationId: string, id: string, keyId: string | undefined): Promise<Scope | null> => {
    const { good, scope } = await store.serviceAccounts.standing(organizationId, id, keyId ?? null);
    if (!good) throw fail("INVALID_TOKEN");
    return scope;
  };
  return {
    receive(call, action) {
      const { caller } = call;
      try {
        rates.count(caller, action);
      } catch (error) {
        return refuse(call, action, error);
      }
      if (caller.kind !== "service_account") return null;
      const { organizationId, id, keyId } = caller;
      if (keyId !== undefined) store.usage.key(organizationId, keyId);
      return SELF_ASKING.has(action) ? null : standing(organizationId, id, keyId);
    },
  };
}
