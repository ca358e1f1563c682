import { setImmediate as nextTurn } from "node:timers/promises";
import { createHash, timingSafeEqual } from "node:crypto";
import type { SecretPlace } from "../domain/credential.ts";
import { keyCommitment } from "./derive.ts";
import { decodeDocument } from "./document.ts";
import type { OrganizationKey, OrganizationKeys } from "./organization-keys.ts";
import type { KeyRing } from "./ring.ts";
import { headerOf, type KeyPlace, openSecret, parseSealed, parseWrapped, sealSecret } from "./sealed.ts";
import { UnreadableError, type UnreadableKind } from "./unreadable.ts";

/** How long sealing may keep the process from everything else, ms. */
const SLICE_MS = 2;

/** A sealed secret and what it is bound to. */
export interface SealedAt {
  readonly place: SecretPlace;
  readonly sealed: Buffer;
}

/** A wrapped organization key and its commitment. */
export interface WrappedAt extends KeyPlace {
  readonly wrapped: Buffer;
  readonly commitment: Buffer;
}

/** What came of one row: its new bytes, or what is wrong with the old ones. */
export type Outcome<T> = { readonly value: T } | { readonly unreadable: UnreadableKind };

/** Lets the process do something else as soon as a slice of time is over. */
function slices(): () => Promise<void> | undefined {
  let until = performance.now() + SLICE_MS;
  return () => {
    if (performance.now() < until) return undefined;
    return nextTurn().then(() => {
      until = performance.now() + SLICE_MS;
    });
  };
}

async function outcome<T>(work: () => Promise<T> | T): Promise<Outcome<T>> {
  try {
    return { value: await work() };
  } catch (error) {
    if (error instanceof UnreadableError) return { unreadable: error.code };
    throw error;
  }
}

/** Everything a batch does with keys, with each key asked for once. */
class KeysOfBatch {
  readonly #keys: OrganizationKeys;
  readonly #organizationId: string;
  readonly #known = new Map<number, Outcome<OrganizationKey>>();

  constructor(keys: OrganizationKeys, organizationId: string) {
    this.#keys = keys;
    this.#organizationId = organizationId;
  }

  async load(version: number): Promise<Outcome<OrganizationKey>> {
    const known = this.#known.get(version) ?? (await outcome(() => this.#keys.version(this.#organizationId, version)));
    this.#known.set(version, known);
    return known;
  }
}

/**
 * Seals secrets of one organization anew under a version of its key: opens each, seals the same padded bytes, and opens the
 * result once more and compares, before anything of the old is given up. Nothing of a secret is parsed. Rejects with
 * ORGANIZATION_DESTROYED and with whatever the keys' source throws.
 */
export async function resealBatch(keys: OrganizationKeys, organizationId: string, version: number, batch: readonly SealedAt[]): Promise<Outcome<Buffer>[]> {
  const known = new KeysOfBatch(keys, organizationId);
  const target = await known.load(version);
  if ("unreadable" in target) throw new UnreadableError(target.unreadable);
  const pause = slices();
  const moved: Outcome<Buffer>[] = [];
  for (const { place, sealed } of batch) {
    moved.push(await resealOne(known, target.value, place, sealed));
    await pause();
  }
  return moved;
}

async function resealOne(known: KeysOfBatch, target: OrganizationKey, place: SecretPlace, sealed: Buffer): Promise<Outcome<Buffer>> {
  let plaintext: Buffer | undefined;
  let again: Buffer | undefined;
  try {
    const parsed = parseSealed(sealed);
    const source = await known.load(parsed.organizationKeyVersion);
    if ("unreadable" in source) return source;
    plaintext = openSecret(source.value.sealing, place, parsed);
    const value = sealSecret(target.sealing, target.version, place, plaintext);
    again = openSecret(target.sealing, place, parseSealed(value));
    if (!again.equals(plaintext)) throw new UnreadableError("not_authentic");
    return { value };
  } catch (error) {
    if (error instanceof UnreadableError) return { unreadable: error.code };
    throw error;
  } finally {
    plaintext?.fill(0);
    again?.fill(0);
  }
}

/** Reads secrets of one organization back: opens each and reads its document. Gives what is wrong, or undefined, and the version each names. */
export async function readBack(keys: OrganizationKeys, organizationId: string, batch: readonly SealedAt[]): Promise<Outcome<number>[]> {
  const known = new KeysOfBatch(keys, organizationId);
  const pause = slices();
  const read: Outcome<number>[] = [];
  for (const { place, sealed } of batch) {
    read.push(
      await outcome(async () => {
        const parsed = parseSealed(sealed);
        const key = await known.load(parsed.organizationKeyVersion);
        if ("unreadable" in key) throw new UnreadableError(key.unreadable);
        const plaintext = openSecret(key.value.sealing, place, parsed);
        try {
          decodeDocument(plaintext);
          return parsed.organizationKeyVersion;
        } finally {
          plaintext.fill(0);
        }
      }),
    );
    await pause();
  }
  return read;
}

/** Most keys that are wrapped or unwrapped at once, where a key service does it. */
const AT_ONCE = 16;

async function withEach<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  const pause = slices();
  let next = 0;
  const lane = async () => {
    for (let index = next++; index < items.length; index = next++) {
      results[index] = await work(items[index] as T);
      await pause();
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, items.length) }, lane));
  return results;
}

/** Opens a wrapped key and compares it with its commitment. The caller wipes what it gets. */
export async function openKey(ring: Pick<KeyRing, "unwrap">, { wrapped, commitment, ...place }: WrappedAt): Promise<Buffer> {
  const raw = await ring.unwrap(wrapped, place);
  const derived = keyCommitment(raw);
  if (derived.length === commitment.length && timingSafeEqual(derived, commitment)) return raw;
  raw.fill(0);
  throw new UnreadableError("wrong_commitment");
}

/** Wraps organization keys anew under a master key, and unwraps each result once more and compares. */
export function rewrapBatch(ring: Pick<KeyRing, "wrap" | "unwrap">, masterKeyId: string, batch: readonly WrappedAt[]): Promise<Outcome<Buffer>[]> {
  return withEach(batch, (row) =>
    outcome(async () => {
      const raw = await openKey(ring, row);
      try {
        const value = await ring.wrap(raw, row, masterKeyId);
        const again = await ring.unwrap(value, row);
        const same = again.length === raw.length && timingSafeEqual(again, raw);
        again.fill(0);
        if (!same) throw new UnreadableError("wrapped_key_not_authentic");
        return value;
      } finally {
        raw.fill(0);
      }
    }),
  );
}

/** Reads wrapped keys back. Gives what is wrong, or the id of the master key that each names in its bytes. */
export function readBackKeys(ring: Pick<KeyRing, "unwrap">, batch: readonly WrappedAt[]): Promise<Outcome<string>[]> {
  return withEach(batch, (row) =>
    outcome(async () => {
      (await openKey(ring, row)).fill(0);
      return parseWrapped(row.wrapped).masterKeyId;
    }),
  );
}

/** Digest over rows that were read back: for each its id and the header of its bytes, in order. */
export class ProofDigest {
  readonly #hash = createHash("sha256");

  add(id: string, bytes: Buffer): void {
    this.#hash.update(id).update(headerOf(bytes));
  }

  /** SHA-256 over the digest of the rows and the counts; ends the digest. */
  end(facts: Readonly<Record<string, string | number | null>>): Buffer {
    return createHash("sha256").update(JSON.stringify(facts)).update(this.#hash.digest()).digest();
  }
}
