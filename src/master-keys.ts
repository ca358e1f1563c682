import { randomUUID } from "node:crypto";
import type { Config } from "./config.ts";
import { Envelope } from "./crypto/envelope.ts";
import { KeyringError, readMasterKeys } from "./crypto/keyring.ts";
import { KeyRing, localMasterKey, type MasterKey } from "./crypto/ring.ts";
import type { Secret } from "./domain/secret.ts";
import type { Log } from "./log.ts";
import type { Store } from "./store/store.ts";
import { checkKeys } from "./vault/keys.ts";
import { Replica } from "./vault/replica.ts";
import { RotationWorker } from "./vault/rotation-worker.ts";

/** Where the master keys come from. */
export interface KeySource {
  /** The master key that wraps in a new database. */
  readonly primaryKeyId: string;
  /** `id:base64` pairs. */
  readonly masterKeys: Secret<string>;
}

/** Everything that has to do with keys while a process serves. */
export interface RunningKeys {
  readonly ring: KeyRing;
  readonly envelope: Envelope;
  /** Looks for work of rotations at once. */
  wakeRotations(): void;
  /** Whether this process has the keys that it needs. */
  readonly ready: boolean;
}

/** The master keys of a source. Throws KeyringError. */
function masterKeysOf({ masterKeys, primaryKeyId }: KeySource): MasterKey[] {
  const keys = readMasterKeys(masterKeys.reveal());
  if (!keys.has(primaryKeyId)) throw new KeyringError(`the primary master key "${primaryKeyId}" is not among the master keys`);
  return [...keys].map(([id, key]) => localMasterKey(id, key));
}

/**
 * Loads the master keys, checks them against the database, joins the replicas, and begins to look for rotations. Throws
 * KeyringError and KeyCheckError where the keys cannot be right: nothing may be served then.
 */
export async function startKeys(source: KeySource, { settings }: Config, store: Store, log: Log, resources: AsyncDisposableStack): Promise<RunningKeys> {
  const ring = new KeyRing(masterKeysOf(source), source.primaryKeyId);
  await checkKeys(store.keyRegistry, ring);
  const id = randomUUID();
  const keyCacheSeconds = settings.keyCacheSeconds;
  const replica = resources.use(new Replica({ replicas: store.replicas, ring, log, id, heartbeatMs: settings.replicaHeartbeatMs, keyCacheSeconds }));
  await replica.join(source.primaryKeyId);
  const envelope = new Envelope({ keyring: ring, keys: store.organizationKeys, maxEntries: settings.keyCacheEntries, maxAgeMs: keyCacheSeconds * 1000 });
  const worker = resources.use(
    new RotationWorker({
      rows: store.rotationRows,
      keys: envelope.keys,
      ring,
      rotations: store.rotations,
      replicas: store.replicas,
      log,
      id,
      pollMs: settings.replicaHeartbeatMs,
      leaseMs: settings.rotationLeaseMs,
    }),
  );
  worker.start();
  return {
    ring,
    envelope,
    wakeRotations: () => worker.wake(),
    get ready() {
      return replica.ready;
    },
  };
}
