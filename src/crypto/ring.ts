import type { KeyObject } from "node:crypto";
import { fail } from "../domain/errors.ts";
import { masterKeyCheckValue } from "./derive.ts";
import { KeyringError } from "./keyring.ts";
import { type KeyPlace, parseWrapped, unwrapKey, type WrappedKey, wrapKey } from "./sealed.ts";
import { UnreadableError } from "./unreadable.ts";

/** One master key, wherever it is kept. */
export interface MasterKey {
  readonly id: string;
  /** 32 bytes by which a database knows the key again, and which reveal nothing about it. */
  readonly checkValue: Buffer;
  /** Wraps the 32 bytes of an organization key. Throws KEYS_UNAVAILABLE where the key is kept elsewhere and cannot be reached. */
  wrap(key: Buffer, place: KeyPlace): Promise<Buffer>;
  /** Unwraps one. The caller wipes what it gets. Throws UnreadableError, and KEYS_UNAVAILABLE as above. */
  unwrap(wrapped: WrappedKey, place: KeyPlace): Promise<Buffer>;
}

/** A master key whose bytes are in this process. */
export function localMasterKey(id: string, key: KeyObject): MasterKey {
  return {
    id,
    checkValue: masterKeyCheckValue(key),
    wrap: async (organizationKey, place) => wrapKey(key, id, place, organizationKey),
    unwrap: async (wrapped, place) => unwrapKey(key, place, wrapped),
  };
}

/** Which key wraps, and which open nothing any more; the database says so. */
export interface Roles {
  readonly primaryId: string;
  readonly retiredIds: readonly string[];
}

/**
 * The master keys of a process. Which of them wraps is not this process's own decision: the database says so, to all
 * replicas, and whoever reports to it hands the answer in here. Shows none of the keys.
 */
export class KeyRing {
  #keys: ReadonlyMap<string, MasterKey>;
  #roles: Roles;
  /** Asks the database again who has which role; set by whoever reports to it. */
  refresh: () => Promise<void> = async () => {};

  constructor(keys: readonly MasterKey[], primaryId: string) {
    this.#keys = byId(keys);
    this.#roles = { primaryId, retiredIds: [] };
  }

  /** The key that wraps, as far as this process knows. */
  get primaryId(): string {
    return this.#roles.primaryId;
  }

  /** Ids of every loaded key. */
  get ids(): readonly string[] {
    return [...this.#keys.keys()];
  }

  /** Every loaded key. */
  get keys(): readonly MasterKey[] {
    return [...this.#keys.values()];
  }

  /** Whether the key that wraps is loaded. */
  get complete(): boolean {
    return this.#keys.has(this.#roles.primaryId);
  }

  /** Takes over what the database says. */
  assign(roles: Roles): void {
    this.#roles = roles;
  }

  /** Takes over another set of keys. */
  replace(keys: readonly MasterKey[]): void {
    this.#keys = byId(keys);
  }

  /** What the database knows a key by. Throws KeyringError for an id that is not loaded. */
  checkValue(id: string): Buffer {
    const key = this.#keys.get(id);
    if (!key) throw new KeyringError(`master key "${id}" is not loaded`);
    return key.checkValue;
  }

  /** Wraps an organization key under the key that wraps, or under another one that is named. */
  async wrap(key: Buffer, place: KeyPlace, id: string = this.primaryId): Promise<Buffer> {
    const master = this.#keys.get(id);
    if (!master) throw fail("KEYS_UNAVAILABLE", { cause: new UnreadableError("unknown_master_key") });
    return master.wrap(key, place);
  }

  /**
   * Unwraps an organization key under the one key that its bytes name. The caller wipes what it gets. Throws UnreadableError
   * `wrapped_key_malformed`, `retired_master_key`, `wrapped_key_not_authentic`, and KEYS_UNAVAILABLE where the key is kept
   * elsewhere and cannot be reached, or is not loaded here: the start sees to it that it is loaded by the others.
   */
  async unwrap(bytes: Buffer, place: KeyPlace): Promise<Buffer> {
    const wrapped = parseWrapped(bytes);
    if (this.#roles.retiredIds.includes(wrapped.masterKeyId)) throw new UnreadableError("retired_master_key");
    const master = this.#keys.get(wrapped.masterKeyId);
    if (!master) throw fail("KEYS_UNAVAILABLE", { cause: new UnreadableError("unknown_master_key") });
    return master.unwrap(wrapped, place);
  }
}

function byId(keys: readonly MasterKey[]): ReadonlyMap<string, MasterKey> {
  return new Map(keys.map((key) => [key.id, key]));
}
