import { createHmac } from "node:crypto";
import type { SecretDocument } from "../domain/credential.ts";
import { fail } from "../domain/errors.ts";
import { decodeDocument, encodeDocument } from "./document.ts";
import type { KeyWrapping } from "./keyring.ts";
import { type OrganizationKeySource, OrganizationKeys } from "./organization-keys.ts";
import { openSecret, parseSealed, type SealedPlace, sealSecret } from "./sealed.ts";
import { UNREADABLE_KINDS, UnreadableError, type UnreadableKind } from "./unreadable.ts";

/** What an envelope needs. */
export interface EnvelopeDeps {
  readonly keyring: KeyWrapping;
  readonly keys: OrganizationKeySource;
  /** Most organization key versions kept unwrapped in memory. */
  readonly maxEntries: number;
  /** Longest time an organization key is used without reading it again, in ms. */
  readonly maxAgeMs: number;
  /** Milliseconds on a clock that never goes back; the process's own by default. */
  readonly now?: () => number;
}

/** What an envelope has done since it was made. */
export interface EnvelopeCounters {
  opened: number;
  sealed: number;
  /** Stored bytes that did not open, by kind. */
  readonly failed: Record<UnreadableKind, number>;
}

/**
 * Seals secrets under their organization's key and opens them:
 *
 *     master key        wraps one key per organization and version                        sealed.ts, keyring.ts
 *     organization key  HKDF-SHA-256 gives sealing key, fingerprint key and commitment    derive.ts, organization-keys.ts
 *     sealing key       AES-256-GCM over the padded document, bound to its place          document.ts, aad.ts, sealed.ts
 *
 * There is no plaintext fallback, and no second attempt with another key.
 */
export class Envelope {
  readonly counters: EnvelopeCounters = { opened: 0, sealed: 0, failed: noFailures() };
  /** The organizations' keys, for whoever moves secrets from one to another. */
  readonly keys: OrganizationKeys;

  constructor({ keyring, keys, maxEntries, maxAgeMs, now = () => performance.now() }: EnvelopeDeps) {
    this.keys = new OrganizationKeys(keyring, keys, { maxEntries, maxAgeMs, now });
  }

  /**
   * Seals a document for one place under the organization's current key, which is made first where the organization has
   * none. Throws INVALID_CREDENTIALS for a document that is too large, ORGANIZATION_DESTROYED, and SECRET_UNREADABLE
   * where the organization's key does not open.
   */
  seal(place: SealedPlace, document: SecretDocument): Promise<Buffer> {
    return this.#counting(async () => {
      const plaintext = encodeDocument(document);
      try {
        const key = await this.keys.current(place.organizationId);
        const sealed = sealSecret(key.sealing, key.version, place, plaintext);
        this.counters.sealed++;
        return sealed;
      } finally {
        plaintext.fill(0);
      }
    });
  }

  /**
   * Fetches what sealing for an organization needs, so that a seal soon after need not wait for a key service or the database.
   * Throws as `seal` does.
   */
  prepare(organizationId: string): Promise<void> {
    return this.#counting(async () => void (await this.keys.current(organizationId)));
  }

  /**
   * Opens a sealed document. The place comes from the authorised request and the row's key, never from the bytes. Throws
   * ORGANIZATION_DESTROYED, and SECRET_UNREADABLE with an UnreadableError as its cause: one failure outside, whatever it
   * was.
   */
  async open(place: SealedPlace, sealed: Buffer): Promise<SecretDocument> {
    try {
      const parsed = parseSealed(sealed);
      const { organizationKeyVersion: version } = parsed;
      const key = this.keys.known(place.organizationId, version) ?? (await this.keys.version(place.organizationId, version));
      const plaintext = openSecret(key.sealing, place, parsed);
      try {
        const document = decodeDocument(plaintext);
        this.counters.opened++;
        return document;
      } finally {
        plaintext.fill(0);
      }
    } catch (error) {
      throw this.#told(error);
    }
  }

  /**
   * HMAC-SHA-256 of bytes under an organization's fingerprint key, the current one unless a version is given: equal bytes of
   * one organization are known by it, and nobody without the key can guess them from it. The version may be a retired one.
   * Throws as `seal` does.
   */
  fingerprint(organizationId: string, bytes: Buffer, version?: number): Promise<{ readonly version: number; readonly digest: Buffer }> {
    return this.#counting(async () => {
      const key = await (version === undefined ? this.keys.current(organizationId) : this.keys.fingerprint(organizationId, version));
      return { version: key.version, digest: createHmac("sha256", key.fingerprint).update(bytes).digest() };
    });
  }

  /** Forgets an organization's keys, once they were destroyed or rotated; every organization's where none is named. */
  evict(organizationId?: string): void {
    this.keys.evict(organizationId);
  }

  async #counting<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw this.#told(error);
    }
  }

  /** What is said of a failure; one of stored bytes is counted. */
  #told(error: unknown): unknown {
    if (!(error instanceof UnreadableError)) return error;
    this.counters.failed[error.code]++;
    return fail("SECRET_UNREADABLE", { cause: error });
  }
}

const noFailures = (): Record<UnreadableKind, number> => Object.fromEntries(UNREADABLE_KINDS.map((kind) => [kind, 0])) as Record<UnreadableKind, number>;
