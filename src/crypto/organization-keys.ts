import { randomBytes, timingSafeEqual } from "node:crypto";
import { CredentialError, fail } from "../domain/errors.ts";
import { AgedCache, type CacheLimits } from "./aged-cache.ts";
import { type DerivedKeys, deriveKeys, keyCommitment } from "./derive.ts";
import type { KeyWrapping } from "./keyring.ts";
import { KEY_BYTES, type KeyPlace } from "./sealed.ts";
import { UnreadableError } from "./unreadable.ts";

/** A wrapped organization key as it is stored. `wrapped` is null once the organization was destroyed. */
export interface StoredOrganizationKey extends KeyPlace {
  readonly wrapped: Buffer | null;
  readonly commitment: Buffer;
  /** Whether nothing may be opened under it any more. */
  readonly retired?: boolean;
}

/** An organization key that was just drawn, wrapped. */
export interface DrawnKey extends KeyPlace {
  readonly wrapped: Buffer;
  readonly commitment: Buffer;
  readonly masterKeyId: string;
}

/** Where wrapped organization keys are kept. Every row it gives is committed. */
export interface OrganizationKeySource {
  /** The version that seals; undefined for an organization that has none yet. */
  current(organizationId: string): Promise<StoredOrganizationKey | undefined>;
  byVersion(organizationId: string, version: number): Promise<StoredOrganizationKey | undefined>;
  /** Stores version 1 unless another process was faster, and gives back the row that stands. Throws KEY_MOVED where the master key no longer wraps. */
  insertFirst(row: StoredOrganizationKey & { readonly wrapped: Buffer; readonly masterKeyId: string }): Promise<StoredOrganizationKey>;
}

/** One version of an organization's key, ready for use. */
export interface OrganizationKey extends DerivedKeys {
  readonly version: number;
}

const FIRST_VERSION = 1;

/** How often a first key is offered in all, where promotions of master keys come first each time. */
const CREATE_TRIES = 3;

const CURRENT = "current";
/** What is asked for: one version, or whichever seals. */
type Slot = number | typeof CURRENT;

/**
 * Organization keys, unwrapped and derived once and then cached. What is cached was committed before, and is never
 * older than `maxAgeMs`, counted from before it was read: this bounds how long a destroyed key still works, and how long
 * an old version still seals. Callers that miss together wait for one read. Failures are not cached.
 */
export class OrganizationKeys {
  readonly #keyring: KeyWrapping;
  readonly #source: OrganizationKeySource;
  readonly #now: () => number;
  readonly #versions: AgedCache<OrganizationKey>;
  readonly #currents: AgedCache<OrganizationKey>;
  /** Reads under way, by name. One that is no longer in here when it ends was overtaken by an eviction. */
  readonly #flights = new Map<string, Promise<OrganizationKey>>();

  /** `limits.maxEntries` counts versions; an organization's current version takes no second place. */
  constructor(keyring: KeyWrapping, source: OrganizationKeySource, limits: CacheLimits) {
    this.#keyring = keyring;
    this.#source = source;
    this.#now = limits.now;
    this.#versions = new AgedCache(limits);
    this.#currents = new AgedCache(limits);
  }

  /**
   * The version that seals. Creates version 1 for an organization that has none. Throws ORGANIZATION_DESTROYED,
   * UnreadableError, and what the source throws.
   */
  async current(organizationId: string): Promise<OrganizationKey> {
    const cached = this.#currents.get(nameOf(organizationId, CURRENT));
    return cached ?? this.#once(organizationId, CURRENT, () => this.#readCurrent(organizationId));
  }

  /** One version, for opening, where it need not be read. */
  known(organizationId: string, version: number): OrganizationKey | undefined {
    return this.#versions.get(nameOf(organizationId, version));
  }

  /** One version, for opening. Throws ORGANIZATION_DESTROYED, UnreadableError, and what the source throws. */
  async version(organizationId: string, version: number): Promise<OrganizationKey> {
    return this.known(organizationId, version) ?? this.#once(organizationId, version, () => this.#readVersion({ organizationId, version }));
  }

  /**
   * What recognizes bytes that were seen under one version; a retired one's too, under which nothing is opened any more. Throws
   * ORGANIZATION_DESTROYED, UnreadableError, and what the source throws.
   */
  async fingerprint(organizationId: string, version: number): Promise<Pick<OrganizationKey, "version" | "fingerprint">> {
    const place = { organizationId, version };
    const cached = this.#versions.get(nameOf(organizationId, version));
    if (cached) return cached;
    const row = await this.#source.byVersion(organizationId, version);
    // Never cached, so that the rest of a retired key is not there for anybody.
    return row?.retired === true ? this.#unwrap(place, { ...row, retired: false }) : this.version(organizationId, version);
  }

  /** Forgets every key of an organization, or of all. A read that is under way is not cached when it ends. */
  evict(organizationId?: string): void {
    const prefix = organizationId === undefined ? "" : nameOf(organizationId, "");
    this.#versions.deletePrefix(prefix);
    this.#currents.deletePrefix(prefix);
    for (const name of this.#flights.keys()) if (name.startsWith(prefix)) this.#flights.delete(name);
  }

  #once(organizationId: string, slot: Slot, read: () => Promise<OrganizationKey>): Promise<OrganizationKey> {
    const name = nameOf(organizationId, slot);
    const running = this.#flights.get(name);
    if (running) return running;
    const stands = () => this.#flights.get(name) === flight;
    const fly = async () => {
      const startedAt = this.#now();
      try {
        const key = await read();
        if (stands()) this.#keep(organizationId, slot, key, startedAt);
        return key;
      } finally {
        if (stands()) this.#flights.delete(name);
      }
    };
    const flight = fly();
    this.#flights.set(name, flight);
    return flight;
  }

  #keep(organizationId: string, slot: Slot, key: OrganizationKey, readAt: number): void {
    this.#versions.set(nameOf(organizationId, key.version), key, readAt);
    if (slot === CURRENT) this.#currents.set(nameOf(organizationId, CURRENT), key, readAt);
  }

  async #readVersion(place: KeyPlace): Promise<OrganizationKey> {
    const row = await this.#source.byVersion(place.organizationId, place.version);
    if (!row) throw new UnreadableError("unknown_organization_key");
    return this.#unwrap(place, row);
  }

  async #readCurrent(organizationId: string): Promise<OrganizationKey> {
    const row = (await this.#source.current(organizationId)) ?? (await this.#create({ organizationId, version: FIRST_VERSION }));
    return this.#unwrap({ organizationId, version: row.version }, row);
  }

  /** Draws a key and wraps it, without storing it. */
  async draw(place: KeyPlace): Promise<DrawnKey> {
    const raw = randomBytes(KEY_BYTES);
    try {
      const commitment = keyCommitment(raw);
      const masterKeyId = this.#keyring.primaryId;
      return { ...place, wrapped: await this.#keyring.wrap(raw, place), commitment, masterKeyId };
    } finally {
      raw.fill(0);
    }
  }

  /** Draws a key and offers it. The row that stands afterwards may be another process's, and is the one to use. */
  async #create(place: KeyPlace): Promise<StoredOrganizationKey> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.#source.insertFirst(await this.draw(place));
      } catch (error) {
        // Another master key has become the primary one, and this process has not heard of it.
        if (tries === CREATE_TRIES || !(error instanceof CredentialError) || error.reason !== "KEY_MOVED") throw error;
        await this.#keyring.refresh?.();
      }
    }
  }

  /** The place is the caller's, never the row's: a row that was moved to another organization does not unwrap. */
  async #unwrap(place: KeyPlace, row: StoredOrganizationKey): Promise<OrganizationKey> {
    if (row.wrapped === null) {
      this.evict(place.organizationId);
      throw fail("ORGANIZATION_DESTROYED");
    }
    if (row.retired === true) throw new UnreadableError("retired_organization_key");
    const raw = await this.#keyring.unwrap(row.wrapped, place);
    try {
      const derived = deriveKeys(raw);
      if (!equal(derived.commitment, row.commitment)) throw new UnreadableError("wrong_commitment");
      return { version: place.version, ...derived };
    } finally {
      raw.fill(0);
    }
  }
}

/** Lower case, so that an eviction reaches every spelling of a UUID. */
const nameOf = (organizationId: string, slot: Slot | ""): string => `${organizationId.toLowerCase()}/${slot}`;

/** timingSafeEqual throws for unequal lengths. */
const equal = (a: Buffer, b: Buffer): boolean => a.length === b.length && timingSafeEqual(a, b);
