/** What a rotation moves, in the spelling of the database. */
export const ROTATION_KINDS = ["master_key", "organization_key", "verification"] as const;
export type RotationKindName = (typeof ROTATION_KINDS)[number];

/** Where a rotation stands, in the spelling of the database. */
export const ROTATION_STATES = ["running", "paused", "proving", "proven", "incomplete", "retired", "rolled_back"] as const;
export type RotationStateName = (typeof ROTATION_STATES)[number];

/** A row that does not open. */
export interface UnreadableRow {
  readonly organizationId: string;
  /** Null where the organization's key itself does not open. */
  readonly credentialId: string | null;
  /** Version of the organization key that is meant. */
  readonly keyVersion: number;
  /** A stable lower-case word. */
  readonly kind: string;
}

/** Most rows that a rotation names as unreadable; the others are counted. */
export const MAX_FAILURES = 100;

/** A rotation and how far it is. */
export interface Rotation {
  readonly id: string;
  readonly kind: RotationKindName;
  readonly state: RotationStateName;
  /** Null for what is about every organization. */
  readonly organizationId: string | null;
  readonly fromMasterKeyId: string | null;
  readonly toMasterKeyId: string | null;
  readonly fromVersion: number | null;
  readonly toVersion: number | null;
  readonly rowsTotal: number;
  readonly rowsLeft: number;
  readonly rowsMoved: number;
  readonly rowsVerified: number;
  readonly rowsFailed: number;
  readonly failures: readonly UnreadableRow[];
  /** Most rows in a second; null for no limit. */
  readonly rowsPerSecond: number | null;
  readonly startedAt: Date;
  readonly finishedAt: Date | null;
  /** SHA-256 over the proof. */
  readonly proof: Buffer | null;
  /** The operator's subject. */
  readonly startedBy: string;
  readonly rollsBack: string | null;
}

/** Rotations that are not over, counted. */
export interface RotationTally {
  readonly kind: RotationKindName;
  readonly state: RotationStateName;
  readonly rotations: number;
  /** Rows that are left to be moved or read, together. */
  readonly rowsLeft: number;
}

/** A master key as the database knows it. */
export interface MasterKeyFacts {
  readonly id: string;
  readonly primary: boolean;
  readonly organizationKeys: number;
  /** Null for a key that was never loaded and wraps something. */
  readonly firstSeen: Date | null;
  readonly retiredAt: Date | null;
}

/** A process as it reported itself last. */
export interface ReplicaFacts {
  readonly id: string;
  readonly masterKeyIds: readonly string[];
  readonly silentMs: number;
  readonly keyCacheSeconds: number;
}

/** What there is to know about keys. */
export interface KeyStatus {
  readonly masterKeys: readonly MasterKeyFacts[];
  readonly replicas: readonly ReplicaFacts[];
  /** The newest rotations, newest first. */
  readonly rotations: readonly Rotation[];
}
