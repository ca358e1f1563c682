import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { developmentSecrets } from "./auth/development.ts";
import { type Config, ConfigError } from "./config.ts";
import { Envelope } from "./crypto/envelope.ts";
import { KeyringError, readMasterKeys } from "./crypto/keyring.ts";
import { awsKms } from "./crypto/kms/aws.ts";
import { Breaker } from "./crypto/kms/breaker.ts";
import { type KeyService, serviceMasterKey } from "./crypto/kms/service.ts";
import { transitService } from "./crypto/kms/transit.ts";
import { KeyRing, localMasterKey, type MasterKey } from "./crypto/ring.ts";
import { isMasterKeyId } from "./crypto/sealed.ts";
import { secret } from "./domain/secret.ts";
import { createOperatorHttp, type OperatorHttp } from "./egress/operator-http.ts";
import { errorFields, identified, type Log } from "./log.ts";
import type { Store } from "./store/store.ts";
import { traced } from "./trace.ts";
import { checkKeys, KeyCheckError, neededKeys } from "./vault/keys.ts";
import { Replica } from "./vault/replica.ts";
import { RotationWorker } from "./vault/rotation-worker.ts";

/** The master keys of a configuration, and the one that wraps in a new database. */
export interface Loaded {
  readonly keys: readonly MasterKey[];
  readonly primaryKeyId: string;
}

/** Key services last as long as the process, so that what is known of their failures outlives a reload. */
const breakers = new Map<string, Breaker>();

function breakerOf(name: string): Breaker {
  const breaker = breakers.get(name) ?? new Breaker();
  breakers.set(name, breaker);
  return breaker;
}

function readCa(file: string | undefined): Buffer | undefined {
  if (file === undefined) return undefined;
  try {
    return readFileSync(file);
  } catch (error) {
    throw new ConfigError(`CREDENTIALS_KMS_CA_FILE cannot be read (${(error as NodeJS.ErrnoException).code ?? "error"})`);
  }
}

/** What makes a key service of the name of a key. */
function serviceOf({ settings, secrets }: Config): (name: string) => KeyService {
  const direct = createOperatorHttp(readCa(settings.kmsCaFile));
  const http: OperatorHttp = (request) => traced("key service", "client", () => direct(request), ({ status }) => ({ "http.response.status_code": status }));
  const { kmsTransitUrl, kmsAwsRegion, kmsAwsAccessKeyId: accessKeyId } = settings;
  const { kmsTransitToken, kmsAwsSecretAccessKey: secretAccessKey, kmsAwsSessionToken: sessionToken } = secrets;
  if (settings.kms === "aws") {
    const credentials = accessKeyId === undefined || secretAccessKey === undefined ? undefined : { accessKeyId, secretAccessKey, sessionToken };
    return awsKms({ region: kmsAwsRegion ?? "", endpoint: settings.kmsAwsEndpoint, credentials, http });
  }
  const token = kmsTransitToken ?? secret("");
  return (key) => transitService({ url: kmsTransitUrl ?? "", mount: settings.kmsTransitMount, namespace: settings.kmsTransitNamespace, token, key, http });
}

function serviceKeys(config: Config, pairs: readonly string[]): MasterKey[] {
  const service = serviceOf(config);
  const options = { timeoutMs: config.settings.kmsTimeoutMs, breaker: breakerOf(config.settings.kms ?? "") };
  const seen = new Set<string>();
  return pairs.map((pair, index) => {
    const [, id = "", name = ""] = /^([^=]*)=(.+)$/.exec(pair) ?? [];
    if (!isMasterKeyId(id)) throw new ConfigError(`entry ${index + 1} of CREDENTIALS_KMS_KEYS is not an id (up to 32 of A-Z a-z 0-9 . _ -), = and a name`);
    if (seen.has(id)) throw new ConfigError(`CREDENTIALS_KMS_KEYS has the id "${id}" twice`);
    seen.add(id);
    return serviceMasterKey(id, service(name), options);
  });
}

/** The master keys that a configuration names, or in development those of the data directory. Throws ConfigError and KeyringError. */
export const loadMasterKeys = (config: Config): Loaded => checked(readConfigured(config));

/** The same, whether or not the one is there that would wrap in a new database. */
function readConfigured(config: Config): Loaded {
  const { settings, secrets } = config;
  if (settings.kms !== undefined && settings.kmsKeys !== undefined && settings.primaryKeyId !== undefined) {
    const former = secrets.kmsFormerMasterKeys ? localKeys(secrets.kmsFormerMasterKeys.reveal()) : [];
    const kept = serviceKeys(config, settings.kmsKeys);
    const twice = former.find(({ id }) => kept.some((key) => key.id === id));
    if (twice) throw new ConfigError(`master key "${twice.id}" is both in CREDENTIALS_KMS_KEYS and in CREDENTIALS_KMS_FORMER_MASTER_KEYS`);
    return { keys: [...kept, ...former], primaryKeyId: settings.primaryKeyId };
  }
  if (settings.profile === "production" && !secrets.masterKeys) throw new ConfigError("CREDENTIALS_MASTER_KEYS is required in production");
  const made = secrets.masterKeys && settings.primaryKeyId !== undefined ? { masterKeys: secrets.masterKeys, primaryKeyId: settings.primaryKeyId } : developmentSecrets(settings.dataDir);
  return { keys: localKeys(made.masterKeys.reveal()), primaryKeyId: made.primaryKeyId };
}

const localKeys = (text: string): MasterKey[] => [...readMasterKeys(text)].map(([id, key]) => localMasterKey(id, key));

function checked(loaded: Loaded): Loaded {
  const { keys, primaryKeyId } = loaded;
  if (!isMasterKeyId(primaryKeyId)) throw new KeyringError("the id of the primary master key is not an id (up to 32 of A-Z a-z 0-9 . _ -)");
  if (!keys.some(({ id }) => id === primaryKeyId)) throw new KeyringError(`the primary master key "${primaryKeyId}" is not among the master keys`);
  return loaded;
}

/** Everything that has to do with keys while a process serves. */
export interface RunningKeys {
  readonly ring: KeyRing;
  readonly envelope: Envelope;
  /** Looks for work of rotations at once. */
  wakeRotations(): void;
  /**
   * Takes over the master keys of a configuration that was read again: those of a file, and the credentials of a key service.
   * Where they cannot be right, the keys stay as they were, and the log says why. Which key wraps does not change by this. One
   * that is no longer there and still wraps something stays too, and the log says so: where it is lost, only a process that has
   * it can still move what it wraps to another key.
   */
  reload(read: () => Config): Promise<void>;
  /** Whether this process has the keys that it needs. */
  readonly ready: boolean;
}

/**
 * Takes the master keys into use: checks them against the database, joins the replicas, and begins to look for rotations. Throws
 * KeyringError and KeyCheckError where the keys cannot be right: nothing may be served then.
 */
export async function startKeys({ keys, primaryKeyId }: Loaded, { settings }: Config, store: Store, log: Log, resources: AsyncDisposableStack): Promise<RunningKeys> {
  const ring = new KeyRing(keys, primaryKeyId);
  await checkKeys(store.keyRegistry, ring);
  const id = randomUUID();
  const keyCacheSeconds = settings.keyCacheSeconds;
  const replica = resources.use(new Replica({ replicas: store.replicas, ring, log, id, heartbeatMs: settings.replicaHeartbeatMs, keyCacheSeconds }));
  await replica.join(primaryKeyId);
  const envelope = new Envelope({ keyring: ring, keys: store.organizationKeys, maxEntries: settings.keyCacheEntries, maxAgeMs: keyCacheSeconds * 1000 });
  // Whoever tries again seals with the key that seals now.
  store.onKeyMoved((organizations) => organizations.forEach((organization) => envelope.evict(organization)));
  // A standby that was promoted may lack the newest keys: what is sealed with one of those would never open again.
  store.onLost(() => envelope.evict());
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
      settleMs: settings.rotationSettleMs,
    }),
  );
  worker.start();
  return {
    ring,
    envelope,
    wakeRotations: () => worker.wake(),
    async reload(read) {
      const own = identified(log);
      try {
        const { keys: given } = readConfigured(read());
        const needed = await neededKeys(store.keyRegistry);
        const missing = ring.keys.filter(({ id }) => needed.includes(id) && !given.some((key) => key.id === id));
        const next = new KeyRing([...given, ...missing], ring.primaryId);
        await checkKeys(store.keyRegistry, next);
        ring.replace(next.keys);
        await replica.report();
        for (const { id: keyId } of missing) own.error({ key_id: keyId }, "a master key that is still used is no longer configured: it stays until this process ends, and no other can start");
        own.info({ count: next.ids.length }, "the master keys were loaded again");
      } catch (error) {
        // The messages of these name keys and settings, and never hold a secret.
        const told = [ConfigError, KeyringError, KeyCheckError].some((kind) => error instanceof kind);
        own.error({ ...errorFields(error), reason: told ? (error as Error).message : undefined }, "the master keys were not loaded again; those from before stay");
      }
    },
    get ready() {
      return replica.ready;
    },
  };
}
