/** Ways in which stored bytes can fail to open. They differ in metrics and logs only; a caller sees one failure. */
export const UNREADABLE_KINDS = [
  /** The sealed value is not of the format. */
  "malformed",
  /** The sealed value names an organization key version that is not stored. */
  "unknown_organization_key",
  /** The wrapped organization key is not of the format. */
  "wrapped_key_malformed",
  /** The wrapped organization key names a master key that is not loaded. */
  "unknown_master_key",
  /** The master key is retired. */
  "retired_master_key",
  /** The organization key is retired. */
  "retired_organization_key",
  /** The wrapped organization key does not authenticate: altered, moved, or wrapped under another key of the same id. */
  "wrapped_key_not_authentic",
  /** The organization key is not the one that was committed to. */
  "wrong_commitment",
  /** The sealed value does not authenticate: altered, moved to another place, or sealed under another key. */
  "not_authentic",
  /** The value is authentic, and what it holds is not a secret document. */
  "malformed_document",
] as const;
export type UnreadableKind = (typeof UNREADABLE_KINDS)[number];

/** Stored bytes that do not open. Carries the kind and nothing else: no bytes, no key, no place. */
export class UnreadableError extends Error {
  override readonly name = "UnreadableError";
  /** The kind, under the name that logs read. */
  readonly code: UnreadableKind;

  constructor(kind: UnreadableKind) {
    super(`stored bytes do not open: ${kind}`);
    this.code = kind;
  }
}
