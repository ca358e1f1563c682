import { type Outcome, readBack, readBackKeys, type ProofDigest, resealBatch, rewrapBatch } from "../crypto/move.ts";
import type { OrganizationKeys } from "../crypto/organization-keys.ts";
import type { KeyRing } from "../crypto/ring.ts";
import { NIL_UUID } from "../domain/credential.ts";
import { SECRET_TABLES } from "../store/sealed-columns.ts";
import { FIRST_KEY, FIRST_SECRET, type RotationRows, type SealedRow, type WrappedRow } from "../store/rotation-rows.ts";
import type { Hold } from "./rotation-hold.ts";

/** What passes over rows need. */
export interface PassDeps {
  readonly rows: RotationRows;
  readonly keys: OrganizationKeys;
  readonly ring: KeyRing;
}

/** Organizations that are read at a time. */
const ORGANIZATIONS = 500;

/** Gives pages one after the other, and reads each while the one before it is being worked on. */
async function* pages<Row, Cursor>(read: (after: Cursor) => Promise<Row[]>, first: Cursor, cursorOf: (row: Row) => Cursor): AsyncGenerator<Row[]> {
  let next = read(first);
  for (;;) {
    const page = await next;
    const last = page.at(-1);
    if (last === undefined) return;
    next = read(cursorOf(last));
    // It is awaited in the next turn, if there is one.
    next.catch(() => {});
    yield page;
  }
}

/** Keeps one batch of changes under way while the next is prepared, and gives their number in the end. */
class Writes {
  #running: Promise<number> = Promise.resolve(0);
  #done = 0;
  readonly #hold: Hold;

  constructor(hold: Hold) {
    this.#hold = hold;
  }

  /** Waits for the batch before, then begins this one. */
  async begin(write: () => Promise<number>): Promise<void> {
    await this.end();
    this.#running = write();
    this.#running.catch(() => {});
  }

  /** Waits for everything; gives how many rows have taken effect. */
  async end(): Promise<number> {
    const moved = await this.#running;
    this.#running = Promise.resolve(0);
    this.#done += moved;
    this.#hold.moved(moved);
    return this.#done;
  }
}

/** The kind says which of a credential's two secrets it is: the other one may be sound. */
const failedSecret = ({ table, place, keyVersion }: SealedRow, kind: string) => ({
  organizationId: place.organizationId, credentialId: place.credentialId, keyVersion, kind: table === "credential_previous" ? `previous_${kind}` : kind,
});
const failedKey = ({ organizationId, version }: WrappedRow, kind: string) => ({ organizationId, credentialId: null, keyVersion: version, kind });

/** What became of a batch: rows with their new bytes; those that do not open are told to the hold. */
function sort<R>(hold: Hold, batch: readonly R[], outcomes: readonly Outcome<Buffer>[], failed: (row: R, kind: string) => Parameters<Hold["failed"]>[0]): { row: R; value: Buffer }[] {
  const good: { row: R; value: Buffer }[] = [];
  batch.forEach((row, index) => {
    const outcome = outcomes[index] as Outcome<Buffer>;
    if ("value" in outcome) good.push({ row, value: outcome.value });
    else hold.failed(failed(row, outcome.unreadable));
  });
  return good;
}

/** One pass over the secrets of an organization that are not under a version yet; gives how many were moved. */
export async function moveSecrets({ rows, keys }: PassDeps, hold: Hold, organizationId: string, version: number): Promise<number> {
  hold.beginPass();
  const writes = new Writes(hold);
  for (const table of SECRET_TABLES) {
    const read = (after: typeof FIRST_SECRET) => rows.secretsNotUnder(table, organizationId, version, after, hold.batch);
    for await (const page of pages(read, FIRST_SECRET, ({ keyVersion, place }: SealedRow) => ({ keyVersion, id: place.credentialId }))) {
      const good = sort(hold, page, await resealBatch(keys, organizationId, version, page), failedSecret);
      await writes.begin(() => rows.moveSecrets(table, organizationId, version, good.map(({ row, value }) => ({ row, sealed: value }))));
      await hold.pace(page.length);
    }
  }
  return writes.end();
}

/** One pass over the organization keys that are not under a master key yet; gives how many were moved. */
export async function moveKeys({ rows, ring }: PassDeps, hold: Hold, masterKeyId: string): Promise<number> {
  hold.beginPass();
  const writes = new Writes(hold);
  const read = (after: typeof FIRST_KEY) => rows.keysNotUnder(masterKeyId, after, hold.batch);
  for await (const page of pages(read, FIRST_KEY, ({ organizationId, version }: WrappedRow) => ({ organizationId, version }))) {
    const good = sort(hold, page, await rewrapBatch(ring, masterKeyId, page), failedKey);
    await writes.begin(() => rows.moveKeys(masterKeyId, good.map(({ row, value }) => ({ row, wrapped: value }))));
    await hold.pace(page.length);
  }
  return writes.end();
}

/** Reads every secret of an organization back; gives how many name another version than `version`, where one is given. */
export async function readSecrets({ rows, keys }: PassDeps, hold: Hold, digest: ProofDigest, organizationId: string, version: number | null): Promise<number> {
  let strays = 0;
  for (const table of SECRET_TABLES) {
    for await (const page of pages((after: string) => rows.secrets(table, organizationId, after, hold.batch), NIL_UUID, ({ place }: SealedRow) => place.credentialId)) {
      const outcomes = await readBack(keys, organizationId, page);
      page.forEach((row, index) => {
        const outcome = outcomes[index] as Outcome<number>;
        if ("unreadable" in outcome) return hold.failed(failedSecret(row, outcome.unreadable));
        if (version !== null && outcome.value !== version) strays++;
        digest.add(`${table}/${row.place.credentialId}`, row.sealed);
        hold.read(1);
      });
      await hold.pace(page.length);
    }
  }
  return strays;
}

async function readKeyPage({ ring }: PassDeps, hold: Hold, digest: ProofDigest, page: readonly WrappedRow[], masterKeyId: string | null): Promise<number> {
  let strays = 0;
  const outcomes = await readBackKeys(ring, page);
  page.forEach((row, index) => {
    const outcome = outcomes[index] as Outcome<string>;
    if ("unreadable" in outcome) return hold.failed(failedKey(row, outcome.unreadable));
    if (masterKeyId !== null && outcome.value !== masterKeyId) strays++;
    digest.add(`${row.organizationId}/${row.version}`, row.wrapped);
    hold.read(1);
  });
  await hold.pace(page.length);
  return strays;
}

/** Reads every organization key back; gives how many name another master key in their bytes. */
export async function readKeys(deps: PassDeps, hold: Hold, digest: ProofDigest, masterKeyId: string): Promise<number> {
  let strays = 0;
  const read = (after: typeof FIRST_KEY) => deps.rows.keysNotUnder(null, after, hold.batch);
  for await (const page of pages(read, FIRST_KEY, ({ organizationId, version }: WrappedRow) => ({ organizationId, version }))) {
    strays += await readKeyPage(deps, hold, digest, page, masterKeyId);
  }
  return strays;
}

/** Organizations that have a key, a page at a time. */
const organizations = ({ rows }: PassDeps): AsyncGenerator<string[]> => pages((after: string) => rows.organizations(after, ORGANIZATIONS), NIL_UUID, (id: string) => id);

/** Reads the keys and the secrets of one organization back, or of all. */
export async function readEverything(deps: PassDeps, hold: Hold, digest: ProofDigest, organizationId: string | null): Promise<void> {
  const readOne = async (id: string) => {
    const held = await deps.rows.keysOf(id);
    // Destroyed since it began: nothing of it opens any more, and none of that is a failure.
    if (held.length === 0) return;
    await readKeyPage(deps, hold, digest, held, null);
    await readSecrets(deps, hold, digest, id, null);
  };
  if (organizationId !== null) return readOne(organizationId);
  for await (const page of organizations(deps)) for (const id of page) await readOne(id);
}

/** How many rows `readEverything` has to read. */
export async function countEverything(deps: PassDeps, hold: Hold, organizationId: string | null): Promise<number> {
  const countOne = async (id: string) => {
    const keys = (await deps.rows.keysOf(id)).length;
    return keys === 0 ? 0 : keys + (await deps.rows.countSecrets(id));
  };
  if (organizationId !== null) return countOne(organizationId);
  let total = 0;
  for await (const page of organizations(deps)) {
    for (const id of page) total += await countOne(id);
    await hold.pace(0);
  }
  return total;
}
