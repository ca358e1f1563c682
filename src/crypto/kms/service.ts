import { createHash } from "node:crypto";
import { fail } from "../../domain/errors.ts";
import type { MasterKey } from "../ring.ts";
import { KEY_BYTES, KEY_SERVICE, keyBinding, type KeyPlace, MAX_SERVICE_BYTES, serviceHeader } from "../sealed.ts";
import { UnreadableError } from "../unreadable.ts";
import type { Breaker } from "./breaker.ts";

/** What a wrapped key is bound to, in the two forms that key services take. None of it is confidential: it appears in their logs. */
export interface KeyContext {
  /** Additional authenticated data, as aad.ts makes it. */
  readonly bytes: Buffer;
  /** The same facts as names and texts. */
  readonly facts: Readonly<Record<string, string>>;
}

/**
 * One key that a key service keeps. Both functions throw UnreadableError `wrapped_key_not_authentic` where the service says
 * that the bytes are not its own, or not of this context; anything else that they throw means that it cannot answer now.
 */
export interface KeyService {
  /** Gives opaque bytes, 4096 at most. */
  wrap(key: Buffer, context: KeyContext, signal: AbortSignal): Promise<Buffer>;
  /** The caller wipes what it gets. */
  unwrap(blob: Buffer, context: KeyContext, signal: AbortSignal): Promise<Buffer>;
  /** Which key of which service this is, for the registry; no secret. */
  readonly identity: string;
  /** Brings in what requests need, such as the code of an SDK; no part of a request's time. */
  ready?(): Promise<unknown>;
}

/** Sends one HTTP request to a key service; handed in, because sockets are opened elsewhere. */
export type KeyServiceHttp = (request: {
  readonly method: "GET" | "POST" | "PUT";
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  readonly signal: AbortSignal;
}) => Promise<{ readonly status: number; readonly headers: Readonly<Record<string, string>>; readonly body: Buffer }>;

/** How a key service is used. */
export interface ServiceOptions {
  /** Longest time of one request, ms. */
  readonly timeoutMs: number;
  readonly breaker: Breaker;
}

const CHECK_CONTEXT = "flow-credentials/v1/key-service";

/**
 * A master key that a key service keeps. Fails closed: where the service does not answer in time, refuses, or gives something
 * else than a key, the call is KEYS_UNAVAILABLE, and nothing takes the service's place. Organization keys that were unwrapped
 * before stay usable for as long as the cache keeps them.
 */
export function serviceMasterKey(id: string, service: KeyService, { timeoutMs, breaker }: ServiceOptions): MasterKey {
  const header = serviceHeader(id);
  const contextOf = (place: KeyPlace): KeyContext => ({
    bytes: keyBinding(place, header),
    facts: {
      application: "flow-credentials/v1",
      purpose: "organization-key",
      master_key_id: id,
      organization_id: place.organizationId.toLowerCase(),
      version: String(place.version),
    },
  });
  const ask = async <T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> => {
    try {
      await service.ready?.();
      return await breaker.run(() => work(AbortSignal.timeout(timeoutMs)));
    } catch (error) {
      if (error instanceof UnreadableError) throw error;
      throw fail("KEYS_UNAVAILABLE", { cause: error });
    }
  };
  return {
    id,
    checkValue: createHash("sha256").update(`${CHECK_CONTEXT}\n${service.identity}`).digest(),
    wrap: (key, place) =>
      ask(async (signal) => {
        const blob = await service.wrap(key, contextOf(place), signal);
        if (blob.length === 0 || blob.length > MAX_SERVICE_BYTES) throw new TypeError("the key service gave bytes of an impossible size");
        return Buffer.concat([header, blob]);
      }),
    unwrap: async (wrapped, place) => {
      if (wrapped.algorithm !== KEY_SERVICE) throw new UnreadableError("wrapped_key_malformed");
      return ask(async (signal) => {
        const key = await service.unwrap(wrapped.body, contextOf(place), signal);
        if (key.length === KEY_BYTES) return key;
        key.fill(0);
        throw new UnreadableError("wrapped_key_not_authentic");
      });
    },
  };
}
