import { timingSafeEqual } from "node:crypto";
import type { MasterKeyring } from "../crypto/keyring.ts";
import type { KeyRegistryStore } from "../store/store.ts";

/** A master key that cannot be right. Names the key's id and never shows bytes. */
export class KeyCheckError extends Error {
  override readonly name = "KeyCheckError";
}

/**
 * Compares the loaded master keys with what the database knows, before anything is served: a key under a known id must
 * be the known key, and a key that still wraps organization keys must be loaded. Registers keys seen for the first time.
 */
export async function checkKeys(registry: KeyRegistryStore, keyring: Pick<MasterKeyring, "ids" | "checkValue">): Promise<void> {
  for (const { id, checkValue, inUse } of await registry.list()) {
    if (keyring.ids.includes(id)) {
      if (checkValue.length > 0) compare(id, checkValue, keyring.checkValue(id));
    } else if (inUse > 0) {
      throw new KeyCheckError(`master key "${id}" is not loaded, and ${inUse} row(s) of organization_key are wrapped under it`);
    }
  }
  for (const id of keyring.ids) compare(id, await registry.register(id, keyring.checkValue(id)), keyring.checkValue(id));
}

function compare(id: string, known: Buffer, loaded: Buffer): void {
  if (known.length !== loaded.length || !timingSafeEqual(known, loaded)) throw new KeyCheckError(`master key "${id}" is not the key this database knows under that id`);
}
