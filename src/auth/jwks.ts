import { createPublicKey, type KeyObject } from "node:crypto";
import { z } from "zod";
import { fail } from "../domain/errors.ts";
import { identified, type Log } from "../log.ts";
import { type VerificationKey, verificationKeyOf } from "./verification-key.ts";

/** Fetches the key set once, bounded in size and time. Rejects where it cannot be had. */
export type FetchKeySet = () => Promise<Buffer>;

/** What a key set is read and kept with. */
export interface JwksOptions {
  readonly fetch: FetchKeySet;
  readonly log: Log;
  /** The time, in ms since the epoch. */
  readonly now?: (() => number) | undefined;
}

/** A key that verifies, and until when it may be believed without asking again. */
export interface KnownKey extends VerificationKey {
  readonly untilMs: number;
}

/** How long a fetched key set is used before it is fetched anew, ms; a key that was taken out of it is refused after that. */
export const FRESH_MS = 300_000;

/** The age at which it is fetched anew in the background, so that nobody waits for it, ms. */
const REFETCH_MS = FRESH_MS / 2;

/** How long the last good key set is used while it cannot be fetched, ms. */
export const GRACE_MS = 3_600_000;

/** Least time between two fetches that tokens with an unknown key ask for, and between two that fail, ms. */
export const COOLDOWN_MS = 60_000;

/** The same while there are no keys at all, ms. */
const FIRST_COOLDOWN_MS = 2_000;

/** Most keys of a set. */
const MAX_KEYS = 100;

const KeySet = z.object({ keys: z.array(z.record(z.string(), z.unknown())).max(MAX_KEYS) });
const KEY_ID = /^[\x20-\x7e]{1,256}$/;

/** Keys by their ids. A set that holds an id twice has no key of that id: which one is meant cannot be known. */
type Keys = ReadonlyMap<string, VerificationKey>;

/** The public key of a JWK (RFC 7517) that may verify signatures; undefined for every other one, which is passed over. */
function keyOf(jwk: Readonly<Record<string, unknown>>): VerificationKey | undefined {
  if (jwk["d"] !== undefined || jwk["k"] !== undefined || (jwk["use"] !== undefined && jwk["use"] !== "sig")) return undefined;
  if (jwk["key_ops"] !== undefined && !(Array.isArray(jwk["key_ops"]) && jwk["key_ops"].includes("verify"))) return undefined;
  let key: KeyObject;
  try {
    key = createPublicKey({ key: jwk as never, format: "jwk" });
  } catch {
    return undefined;
  }
  const verification = verificationKeyOf(key);
  if (typeof verification === "string") return undefined;
  return jwk["alg"] === undefined || verification.algorithms.includes(jwk["alg"] as string) ? verification : undefined;
}

function parse(bytes: Buffer): Keys {
  const { keys } = KeySet.parse(JSON.parse(bytes.toString("utf8")));
  const found = new Map<string, VerificationKey>();
  const twice = new Set<string>();
  for (const jwk of keys) {
    const id = jwk["kid"];
    const key = keyOf(jwk);
    if (typeof id !== "string" || !KEY_ID.test(id) || key === undefined) continue;
    if (found.has(id)) twice.add(id);
    found.set(id, key);
  }
  for (const id of twice) found.delete(id);
  if (found.size === 0) throw new Error("the key set has no key that can be used");
  return found;
}

/**
 * The public keys of an issuer, from its key set (RFC 7517 section 5). A token only names a key; where keys come from, and
 * what each may verify, is never its to say.
 */
export class Jwks {
  readonly #options: JwksOptions;
  readonly #now: () => number;
  #keys: Keys | undefined;
  /** When the keys were asked for. */
  #fetchedAt = 0;
  #triedAt = -Infinity;
  #flight: Promise<void> | undefined;

  constructor(options: JwksOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
  }

  /** Fetches the keys before anybody needs them. Never rejects. */
  async prepare(): Promise<void> {
    await this.#refetch();
  }

  /** The key of that id; undefined where the issuer has none. Throws ISSUER_UNAVAILABLE where that cannot be known. */
  async key(id: string | undefined): Promise<KnownKey | undefined> {
    const age = this.#now() - this.#fetchedAt;
    if (this.#keys === undefined || age >= FRESH_MS) await this.#refetch();
    else if (age >= REFETCH_MS) void this.#refetch();
    let found = this.#find(id);
    if (found === undefined && id !== undefined) {
      // A key that is not known may be new. A flood of made-up ones costs one fetch in a minute.
      await this.#refetch();
      found = this.#find(id);
    }
    return found;
  }

  #find(id: string | undefined): KnownKey | undefined {
    const now = this.#now();
    const age = now - this.#fetchedAt;
    if (this.#keys === undefined || age >= FRESH_MS + GRACE_MS) throw fail("ISSUER_UNAVAILABLE");
    const key = id === undefined ? (this.#keys.size === 1 ? [...this.#keys.values()][0] : undefined) : this.#keys.get(id);
    return key && { ...key, untilMs: Math.max(this.#fetchedAt + FRESH_MS, now + COOLDOWN_MS) };
  }

  #refetch(): Promise<void> {
    const now = this.#now();
    if (this.#flight) return this.#flight;
    if (now - this.#triedAt < (this.#keys === undefined ? FIRST_COOLDOWN_MS : COOLDOWN_MS)) return Promise.resolve();
    this.#triedAt = now;
    this.#flight = this.#options
      .fetch()
      .then((bytes) => {
        this.#keys = parse(bytes);
        this.#fetchedAt = now;
      })
      .catch((error: unknown) => {
        const name = error instanceof Error ? error.name : "unknown";
        identified(this.#options.log).warn({ error_name: name }, "the issuer's key set could not be had; the keys that are known are used for a while");
      })
      .finally(() => (this.#flight = undefined));
    return this.#flight;
  }
}
