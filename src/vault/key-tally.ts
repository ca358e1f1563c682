import type { KeyRing } from "../crypto/ring.ts";
import type { RotationTally } from "../domain/rotation.ts";
import type { Store } from "../store/store.ts";

/** What there is to count about keys. */
export interface KeyTally {
  readonly masterKeys: {
    /** Loaded by this process. */
    readonly loaded: number;
    /** Under which organization keys are wrapped. */
    readonly used: number;
    /** Used, and not loaded by this process. */
    readonly missing: number;
  };
  /** Versions of organization keys, by the master key that wraps them. */
  readonly organizationKeys: { readonly underPrimary: number; readonly underOthers: number };
  readonly rotations: readonly RotationTally[];
}

/** What counting needs. */
export interface KeyTallyDeps {
  readonly store: Pick<Store, "keyRegistry" | "rotations">;
  readonly ring: Pick<KeyRing, "ids" | "primaryId">;
  /** How long a tally is given again, ms. */
  readonly maxAgeMs: number;
  /** How long one is waited for, ms. */
  readonly patienceMs: number;
}

async function count({ store, ring }: KeyTallyDeps): Promise<KeyTally> {
  const [keys, rotations] = await Promise.all([store.keyRegistry.list(), store.rotations.tally()]);
  const used = keys.filter(({ inUse }) => inUse > 0);
  const wrapped = used.reduce((sum, { inUse }) => sum + inUse, 0);
  const underPrimary = used.find(({ id }) => id === ring.primaryId)?.inUse ?? 0;
  return {
    masterKeys: { loaded: ring.ids.length, used: used.length, missing: used.filter(({ id }) => !ring.ids.includes(id)).length },
    organizationKeys: { underPrimary, underOthers: wrapped - underPrimary },
    rotations,
  };
}

/**
 * Counts when it is asked, and no more often than it has to: whoever asks may be anyone. Gives undefined where the database
 * does not answer: a count of before would hide that.
 */
export function createKeyTally(deps: KeyTallyDeps): () => Promise<KeyTally | undefined> {
  let latest: KeyTally | undefined;
  let countedAt = Number.NEGATIVE_INFINITY;
  let counting: Promise<void> | undefined;
  const refresh = async () => {
    try {
      latest = await count(deps);
    } catch {
      latest = undefined;
    }
    countedAt = performance.now();
    counting = undefined;
  };
  return async () => {
    if (performance.now() - countedAt < deps.maxAgeMs) return latest;
    counting ??= refresh();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<"late">((resolve) => (timer = setTimeout(resolve, deps.patienceMs, "late")));
    const outcome = await Promise.race([counting, late]);
    clearTimeout(timer);
    return outcome === "late" ? undefined : latest;
  };
}
