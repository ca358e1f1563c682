import { createHash } from "node:crypto";
import type { Scope, TenantCaller } from "./access.ts";
import type { CredentialStatusName, CredentialTypeName, ProviderName } from "./credential.ts";
import type { CredentialError } from "./errors.ts";

/** What happened to a credential, as those who watch are told. Holds no secret. */
export interface WatchedEvent {
  readonly organizationId: string;
  readonly revision: bigint;
  readonly occurredAt: Date;
  readonly kind: "created" | "updated" | "rotated" | "deleted" | "restored" | "status_changed";
  readonly credentialId: string;
  readonly provider: ProviderName;
  readonly credentialType: CredentialTypeName;
  readonly status: CredentialStatusName;
  readonly statusReason: string | null;
  readonly secretVersion: bigint;
  readonly credentialRevision: number | null;
}

/** One message to someone who watches. */
export type WatchMessage = { readonly position: string } & (
  | { readonly kind: "bookmark"; readonly revision: bigint; readonly asOf: Date }
  | { readonly kind: "event"; readonly event: WatchedEvent }
  | { readonly kind: "access_changed" }
);

/** Where the messages of one stream go. */
export interface WatchSink {
  /** Takes a message. */
  send(message: WatchMessage): void;
  /** Messages that were taken and have not left yet. */
  readonly queued: number;
  /** Ends the stream, once. */
  end(error: CredentialError): void;
}

/** Where a stream stands. */
export interface WatchPosition {
  readonly revision: bigint;
  /** What the caller was granted then. */
  readonly access: string;
}

/** Longest position, in characters. */
export const MAX_POSITION = 64;

/** A scope as a short word: two that differ have different ones. */
export function accessOf(scope: Scope | null): string {
  const text = scope === null ? "everything" : JSON.stringify([scope.providers.toSorted(), scope.credentialIds.toSorted()]);
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}

/** A position as its text. */
export const positionText = ({ revision, access }: WatchPosition): string => `${revision}.${access}`;

/** Reads a position; undefined where it is none. */
export function readPosition(text: string): WatchPosition | undefined {
  const match = /^(0|[1-9]\d{0,17})\.([0-9a-f]{16})$/.exec(text);
  return match ? { revision: BigInt(match[1] as string), access: match[2] as string } : undefined;
}

/** Someone who is to be told what happens. */
export interface WatchRequest {
  readonly caller: TenantCaller;
  /** Where to go on; undefined to begin now. */
  readonly from: WatchPosition | undefined;
  /** Until when the proof of the caller holds, ms since the epoch. */
  readonly provenUntilMs: number;
  /** Proves the same caller once more; gives until when that holds, and rejects where it does not any more. */
  readonly prove: () => Promise<number>;
}

/** What tells everyone who watches. */
export interface WatchFeed {
  /** Adds a stream. Throws WATCH_LIMIT_REACHED, and SHUTTING_DOWN. */
  add(request: WatchRequest, sink: WatchSink): WatchedStream;
}

/** One stream in the feed. */
export interface WatchedStream {
  /** Nothing more is to be told; the place is free once the stream is really gone. */
  remove(): void;
}
