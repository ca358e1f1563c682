import { readFileSync } from "node:fs";
import { developmentAuditKey } from "./auth/development.ts";
import { type Config, ConfigError } from "./config.ts";
import { AuditKeyError, type AuditSigner, createAuditSigner, newAuditKey } from "./crypto/audit-signer.ts";
import { type HeadKeys, readHeadKeys } from "./domain/audit-chain.ts";
import { watchSigning, watchTally } from "./gauges.ts";
import type { Log } from "./log.ts";
import type { Metrics } from "./metrics.ts";
import type { Store } from "./store/store.ts";
import type { LimitedCalls } from "./vault/limited-calls.ts";
import { clearAway, repeatedly } from "./vault/maintenance.ts";
import type { Rates } from "./vault/rates.ts";
import { type Tally, tally } from "./vault/tally.ts";
import { signHeads } from "./vault/trail.ts";

/** The keys of audit heads. */
export interface AuditKeys {
  readonly signer: AuditSigner;
  /** Every key whose signatures are believed. */
  readonly headKeys: HeadKeys;
}

/**
 * Reads the key that signs audit heads, or in development makes it once, and the keys that are believed besides. Throws
 * ConfigError, in production also where there is none: a trail that nobody signs can be cut at its end without a trace.
 */
export function auditKeysOf({ settings, secrets }: Config): AuditKeys {
  if (settings.profile === "production" && !secrets.auditSigningKey) {
    throw new ConfigError("CREDENTIALS_AUDIT_SIGNING_KEY is required in production: `openssl genpkey -algorithm ed25519` makes one");
  }
  const key = secrets.auditSigningKey ?? developmentAuditKey(settings.dataDir, newAuditKey);
  const trusted = settings.auditTrustedKeysFile === undefined ? new Map() : trustedKeys(settings.auditTrustedKeysFile);
  try {
    const signer = createAuditSigner(key);
    return { signer, headKeys: new Map([...trusted, [signer.keyId, signer.publicKey]]) };
  } catch (error) {
    throw error instanceof AuditKeyError ? new ConfigError(error.message) : error;
  }
}

function trustedKeys(file: string): HeadKeys {
  let pem: string;
  try {
    pem = readFileSync(file, "utf8");
  } catch (error) {
    throw new ConfigError(`CREDENTIALS_AUDIT_TRUSTED_KEYS_FILE cannot be read (${(error as NodeJS.ErrnoException).code ?? "error"})`);
  }
  const keys = readHeadKeys(pem);
  if (!keys) throw new ConfigError("CREDENTIALS_AUDIT_TRUSTED_KEYS_FILE must hold Ed25519 public keys in PEM and nothing else");
  return keys;
}

/** How often callers may call, as configured. */
export const ratesOf = ({ settings }: Config): Rates => ({
  resolve: { perCaller: settings.rateResolvesPerCaller, perOrganization: settings.rateResolvesPerOrganization },
  test: { perCaller: settings.rateTestsPerCaller, perOrganization: settings.rateTestsPerOrganization },
  write: { perCaller: settings.rateWritesPerCaller, perOrganization: settings.rateWritesPerOrganization },
});

/** What {@link startUpkeep} needs. */
export interface UpkeepDeps {
  readonly store: Store;
  readonly limitedCalls: LimitedCalls;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly now: () => Date;
}

/** Starts what a process does by itself now and then: sign audit heads, record limited calls, clear away what has had its time, and count. */
export function startUpkeep({ settings }: Config, { signer }: AuditKeys, deps: UpkeepDeps): AsyncDisposable {
  const stack = new AsyncDisposableStack();
  const { limitedCalls, log, metrics, now } = deps;
  const events = { keptDays: settings.eventsKeptDays, deliveredOnly: settings.webhookUrl !== undefined };
  let signedAt = now().getTime();
  const sign = async (own: Log) => {
    await signHeads({ ...deps, log: own, signer });
    signedAt = now().getTime();
  };
  watchSigning(metrics, () => signedAt);
  let counted: Tally | undefined;
  const limits = { perProvider: settings.limitPerProvider, perUser: settings.limitPerUser };
  const count = async () => {
    counted = await tally({ ...deps, limits });
  };
  watchTally(metrics, () => counted);
  stack.defer(() => limitedCalls.record());
  stack.use(repeatedly(log, "limited calls could not be recorded", settings.rateRecordMs, () => limitedCalls.record()));
  stack.use(repeatedly(log, "credentials could not be counted for the metrics", settings.tallyIntervalMs, count));
  stack.use(repeatedly(log, "audit heads could not be signed", settings.auditSignIntervalMs, sign));
  stack.use(repeatedly(log, "what has had its time could not be cleared away", settings.purgeIntervalMs, (own) => clearAway({ ...deps, log: own, purgeAfterDays: settings.purgeAfterDays, events })));
  return stack;
}
