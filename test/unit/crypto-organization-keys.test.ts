import { randomBytes, randomUUID } from "node:crypto";
import { beforeEach, describe, expect, test } from "vitest";
import { deriveKeys } from "../../src/crypto/derive.ts";
import { type MasterKeyring, parseMasterKeys, wrappingKeyId } from "../../src/crypto/keyring.ts";
import { OrganizationKeys, type StoredOrganizationKey } from "../../src/crypto/organization-keys.ts";
import { fail } from "../../src/domain/errors.ts";
import { MemoryKeySource } from "../vectors/key-source.ts";

const MAX_AGE_MS = 60_000;
const loaded = parseMasterKeys(`m1:${randomBytes(32).toString("base64")}`, "m1");

let clock: number;
let unwraps: number;
let source: MemoryKeySource;
let organization: string;
/** The real keyring, with its unwraps counted. */
const keyring: MasterKeyring = {
  ...loaded,
  unwrap: (wrapped, place) => {
    unwraps++;
    return loaded.unwrap(wrapped, place);
  },
};
const cache = (keys = source, maxEntries = 100) => new OrganizationKeys(keyring, keys, { maxEntries, maxAgeMs: MAX_AGE_MS, now: () => clock });

beforeEach(() => {
  clock = 1_000;
  unwraps = 0;
  source = new MemoryKeySource();
  organization = randomUUID();
});

/** Stores a further version, as rotation does. */
function rotate(version: number): void {
  const place = { organizationId: organization, version };
  const raw = randomBytes(32);
  source.rows.push({ ...place, wrapped: loaded.wrap(raw, place), commitment: deriveKeys(raw).commitment });
}

/** A source whose answers wait until they are let go. */
class SlowSource extends MemoryKeySource {
  readonly #waiting: (() => void)[] = [];

  override async current(organizationId: string): Promise<StoredOrganizationKey | undefined> {
    const row = await super.current(organizationId);
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
    return row;
  }

  letGo(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

describe("a new organization", () => {
  test("gets version 1, wrapped under the primary key and committed before it is used", async () => {
    const key = await cache().current(organization);
    expect(key.version).toBe(1);
    expect(source.rows).toHaveLength(1);
    expect(source.rows[0]).toMatchObject({ organizationId: organization, version: 1, masterKeyId: "m1", commitment: key.commitment });
    expect(wrappingKeyId(source.rows[0]?.wrapped as Buffer)).toBe("m1");
  });

  test("gets one key though 50 callers ask at once", async () => {
    const keys = cache();
    const answers = await Promise.all(Array.from({ length: 50 }, () => keys.current(organization)));
    expect(new Set(answers).size).toBe(1);
    expect(source.calls).toEqual({ current: 1, byVersion: 0, insertFirst: 1 });
    expect(unwraps).toBe(1);
  });

  test("gets one key though two processes make one at once: the row that stands is the one both use", async () => {
    const [one, two] = await Promise.all([cache().current(organization), cache().current(organization)]);
    expect(source.calls.insertFirst).toBe(2);
    expect(source.rows).toHaveLength(1);
    expect(one.sealing.equals(two.sealing)).toBe(true);
  });

  test("has no key while its row is not committed, and another attempt starts afresh", async () => {
    const insertFirst = source.insertFirst.bind(source);
    source.insertFirst = async () => Promise.reject(fail("DATABASE_UNAVAILABLE"));
    const keys = cache();
    await expect(keys.current(organization)).rejects.toMatchObject({ reason: "DATABASE_UNAVAILABLE" });
    await expect(keys.version(organization, 1)).rejects.toMatchObject({ code: "unknown_organization_key" });
    source.insertFirst = insertFirst;
    expect((await keys.current(organization)).version).toBe(1);
  });
});

describe("a cached key", () => {
  test("is the same objects at every use, unwrapped once for sealing and opening", async () => {
    const keys = cache();
    const key = await keys.current(organization);
    for (let use = 0; use < 10; use++) {
      expect((await keys.current(organization)).sealing).toBe(key.sealing);
      expect((await keys.version(organization, 1)).sealing).toBe(key.sealing);
    }
    expect(unwraps).toBe(1);
  });

  test("does not print and does not export its raw organization key", async () => {
    const key = await cache().current(organization);
    expect(Object.keys(key).sort()).toEqual(["commitment", "fingerprint", "sealing", "version"]);
    expect(JSON.stringify(key.sealing)).toBe("{}");
    const parts = [key.sealing.export(), key.fingerprint.export(), key.commitment].map((part) => part.toString("hex"));
    expect(new Set(parts).size).toBe(3);
  });

  test("is read again at the age limit, however much it is used: a rotated organization seals with its new version", async () => {
    const keys = cache();
    await keys.current(organization);
    rotate(2);
    clock += MAX_AGE_MS - 1;
    expect((await keys.current(organization)).version).toBe(1);
    clock += 1;
    expect((await keys.current(organization)).version).toBe(2);
    expect((await keys.version(organization, 1)).version).toBe(1);
  });

  test("does not become the one that seals because an older one opened something", async () => {
    await cache().current(organization);
    rotate(2);
    const keys = cache();
    expect((await keys.version(organization, 1)).version).toBe(1);
    expect((await keys.current(organization)).version).toBe(2);
    expect((await keys.version(organization, 1)).version).toBe(1);
    expect((await keys.current(organization)).version).toBe(2);
  });

  test("ages from before it was read, not from when the answer came", async () => {
    const slow = new SlowSource();
    await cache(source).current(organization);
    slow.rows.push(...source.rows);
    const keys = cache(slow);
    const flight = keys.current(organization);
    await new Promise(setImmediate);
    clock += MAX_AGE_MS;
    slow.letGo();
    await flight;
    await keys.version(organization, 1);
    expect(slow.calls.byVersion).toBe(1);
  });

  test("is displaced by newer ones once the cache is full, least recently used first", async () => {
    const keys = cache(source, 2);
    const [a, b, c] = [randomUUID(), randomUUID(), randomUUID()];
    for (const id of [a, b, a, c]) await keys.current(id);
    unwraps = 0;
    await keys.current(a);
    await keys.current(c);
    expect(unwraps).toBe(0);
    await keys.current(b);
    expect(unwraps).toBe(1);
  });
});

describe("a destroyed organization", () => {
  const destroy = () => {
    for (const row of source.rows) source.replace({ ...row, wrapped: null });
  };

  test("neither seals nor opens, and is not given a new key", async () => {
    await cache().current(organization);
    destroy();
    const keys = cache();
    await expect(keys.current(organization)).rejects.toMatchObject({ reason: "ORGANIZATION_DESTROYED" });
    await expect(keys.version(organization, 1)).rejects.toMatchObject({ reason: "ORGANIZATION_DESTROYED" });
    expect(source.calls.insertFirst).toBe(1);
  });

  test("stops at the age limit at the latest, and at once where it was evicted, in any spelling of its id", async () => {
    const keys = cache();
    await keys.current(organization);
    destroy();
    expect((await keys.version(organization, 1)).version).toBe(1);
    keys.evict(organization.toUpperCase());
    await expect(keys.version(organization, 1)).rejects.toMatchObject({ reason: "ORGANIZATION_DESTROYED" });
    await expect(keys.current(organization)).rejects.toMatchObject({ reason: "ORGANIZATION_DESTROYED" });
  });

  test("loses every cached version as soon as one is seen to be destroyed", async () => {
    const keys = cache();
    await keys.current(organization);
    rotate(2);
    destroy();
    await expect(keys.version(organization, 2)).rejects.toMatchObject({ reason: "ORGANIZATION_DESTROYED" });
    await expect(keys.version(organization, 1)).rejects.toMatchObject({ reason: "ORGANIZATION_DESTROYED" });
  });
});

test("an eviction leaves other organizations cached", async () => {
  const keys = cache();
  const other = randomUUID();
  await keys.current(organization);
  await keys.current(other);
  keys.evict(organization);
  unwraps = 0;
  await keys.current(other);
  expect(unwraps).toBe(0);
  await keys.current(organization);
  expect(unwraps).toBe(1);
});

test("a read that an eviction overtook is not cached, and callers after it do not join it", async () => {
  await cache().current(organization);
  const slow = new SlowSource(source.rows);
  const keys = cache(slow);
  const ask = async () => {
    const asked = keys.current(organization);
    await new Promise(setImmediate);
    return { asked };
  };
  const overtaken = await ask();
  keys.evict(organization);
  slow.letGo();
  await overtaken.asked;
  const first = await ask();
  expect(slow.calls.current).toBe(2);
  keys.evict(organization);
  const second = await ask();
  expect(slow.calls.current).toBe(3);
  slow.letGo();
  await Promise.all([first.asked, second.asked]);
  await keys.current(organization);
  expect(slow.calls.current).toBe(3);
});

test("a failed read is not remembered, and all who waited for it learn of it", async () => {
  await cache().current(organization);
  const keys = cache();
  const current = source.current.bind(source);
  source.current = async () => Promise.reject(fail("DATABASE_UNAVAILABLE"));
  const outcomes = await Promise.allSettled(Array.from({ length: 50 }, () => keys.current(organization)));
  expect(outcomes.every(({ status }) => status === "rejected")).toBe(true);
  source.current = current;
  expect((await keys.current(organization)).version).toBe(1);
});
