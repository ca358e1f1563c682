import { randomBytes, timingSafeEqual } from "node:crypto";
import { keyCommitment } from "../crypto/derive.ts";
import { openKey } from "../crypto/move.ts";
import type { KeyRing } from "../crypto/ring.ts";
import { UnreadableError } from "../crypto/unreadable.ts";
import { NIL_UUID } from "../domain/credential.ts";
import { CredentialError } from "../domain/errors.ts";
import type { KeyRegistryStore, MasterKeyRow } from "../store/store.ts";

/** A master key that cannot be right. Names the key's id and never shows bytes. */
export class KeyCheckError extends Error {
  override readonly name = "KeyCheckError";
}

/** Where a canary lives: no organization has this id. */
const CANARY = { organizationId: NIL_UUID, version: 1 } as const;

/** What is asked of the loaded keys. */
export type CheckedRing = Pick<KeyRing, "ids" | "checkValue" | "wrap" | "unwrap">;

/** Ids of the master keys without which nothing may be served: those that wrap something, and the one that will. */
export async function neededKeys(registry: Pick<KeyRegistryStore, "list" | "primary">): Promise<string[]> {
  const [rows, primary] = [await registry.list(), await registry.primary()];
  return rows.filter(({ id, inUse }) => inUse > 0 || id === primary).map(({ id }) => id);
}

/**
 * Compares the loaded master keys with what the database knows, before anything is served: a key under a known id must be
 * the known key, a key that still wraps organization keys must be loaded, and so must the one that wraps. No key may be one
 * that belongs to a system from which secrets were imported. Each key opens its canary, so that a key which is kept
 * elsewhere is tried for real. Registers keys that are seen for the first time. Throws KeyCheckError.
 */
export async function checkKeys(registry: KeyRegistryStore, ring: CheckedRing): Promise<void> {
  const rows = await registry.list();
  for (const { id, checkValue, inUse } of rows) {
    if (ring.ids.includes(id)) {
      if (checkValue.length > 0) compare(id, checkValue, ring.checkValue(id));
    } else if (inUse > 0) {
      throw new KeyCheckError(`master key "${id}" is not loaded, and ${inUse} row(s) of organization_key are wrapped under it`);
    }
  }
  const primary = await registry.primary();
  if (primary !== undefined && !ring.ids.includes(primary)) throw new KeyCheckError(`master key "${primary}" is not loaded, and it is the primary one of this database`);
  const foreign = await registry.foreign();
  for (const id of ring.ids) {
    if (foreign.some((value) => value.equals(ring.checkValue(id)))) throw new KeyCheckError(`master key "${id}" is a Fernet key from which secrets were imported; draw a new one`);
    compare(id, await registry.register(id, ring.checkValue(id)), ring.checkValue(id));
    await checkCanary(registry, ring, id, rows.find((row) => row.id === id));
  }
}

async function checkCanary(registry: KeyRegistryStore, ring: CheckedRing, id: string, row: MasterKeyRow | undefined): Promise<void> {
  if (row?.retiredAt) return;
  try {
    if (row?.canary) {
      (await openKey(ring, { ...CANARY, ...row.canary })).fill(0);
      return;
    }
    const raw = randomBytes(32);
    const canary = { wrapped: await ring.wrap(raw, CANARY, id), commitment: keyCommitment(raw) };
    raw.fill(0);
    (await openKey(ring, { ...CANARY, ...canary })).fill(0);
    await registry.setCanary(id, canary);
  } catch (error) {
    if (error instanceof UnreadableError) throw new KeyCheckError(`master key "${id}" does not open its canary (${error.code})`);
    if (error instanceof CredentialError && error.reason === "KEYS_UNAVAILABLE") throw new KeyCheckError(`master key "${id}" is kept by a key service that does not answer`);
    throw error;
  }
}

function compare(id: string, known: Buffer, loaded: Buffer): void {
  if (known.length !== loaded.length || !timingSafeEqual(known, loaded)) throw new KeyCheckError(`master key "${id}" is not the key this database knows under that id`);
}
