import type { Duplex } from "node:stream";

/** Where a connection test ended, outermost first. */
export const LAYERS = ["address", "connect", "tls", "host_key", "auth", "authorization", "protocol", "timeout"] as const;
export type Layer = (typeof LAYERS)[number];

/** Why a guarded connection could not be made or was ended by the guard. One word each, the same for every provider. */
export const DIAL_REASONS = [
  "address_not_allowed",
  "host_malformed",
  "port_not_allowed",
  "name_not_found",
  "name_lookup_failed",
  "connection_refused",
  "connection_timed_out",
  "host_unreachable",
  "connection_reset",
  "deadline_exceeded",
  "too_much_data",
] as const;
export type DialReason = (typeof DIAL_REASONS)[number];

/** A connection that could not be made, or that the guard ended. Holds no text from outside. */
export class DialError extends Error {
  override readonly name = "DialError";
  readonly reason: DialReason;

  constructor(reason: DialReason) {
    super(reason);
    this.reason = reason;
  }
}

/** A connection to an address that a tenant chose: pinned, and capped in bytes and time. */
export interface GuardedConnection {
  /** The stream; destroyed with a DialError where a cap is passed. */
  readonly stream: Duplex;
  /** Lifts the cap on bytes from the one before authentication to the one after it. */
  authenticated(): void;
}

/** Answer of a guarded request. */
export interface GuardedResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

/** The only ways in which a test reaches the outside. */
export interface CheckIo {
  /** Opens a connection; rejects with DialError. */
  dial(host: string, port: number): Promise<GuardedConnection>;
  /**
   * Speaks TLS 1.2 or later on a dialled stream; the certificate must be valid for the name and come from an authority that Node trusts.
   * Rejects with what node:tls says, or DialError where the connection is lost; the dialled stream stays the caller's to end.
   */
  secure(stream: Duplex, name: string): Promise<Duplex>;
  /** Makes one HTTPS request; follows no redirect; rejects with DialError. */
  request(ask: { readonly method: "GET" | "POST"; readonly url: string; readonly headers: Readonly<Record<string, string>>; readonly body?: string }): Promise<GuardedResponse>;
  /** Aborts at the deadline of the whole test. */
  readonly signal: AbortSignal;
}

/** What is said of one way in which a connection test fails. */
export interface Finding {
  readonly layer: Layer;
  /** One sentence that says what happened. */
  readonly message: string;
  /** One sentence that says what to do. */
  readonly nextStep: string;
}

/** Everything that tests can find. A test only says which of it; the sentences are the service's own, whatever has become of the test's process. */
export interface Findings {
  /** By the stable word of the failure. */
  readonly failures: Readonly<Record<string, Finding>>;
  /** What may be said of a success. */
  readonly passes: ReadonlySet<string>;
}

/** What a connection test found. Every text is ours; none is the other side's. */
export interface CheckResult {
  readonly success: boolean;
  /** Where it ended; null on success. */
  readonly layer: Layer | null;
  /** What it was, as a stable lower-case word; `ok` on success. */
  readonly reason: string;
  /** One sentence that says what happened. */
  readonly message: string;
  /** One sentence that says what to do; empty on success. */
  readonly nextStep: string;
  /** Facts worth knowing: versions, fingerprints, how safe the connection was. Never a secret. */
  readonly details: Readonly<Record<string, string | number | boolean>>;
}

/** Answers that a test needs beside the secret itself. */
export interface CheckOptions {
  /** Folder in which an SFTP test writes and removes its file. */
  readonly testPath: string;
}
