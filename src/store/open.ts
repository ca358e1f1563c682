import type { Knex } from "knex";
import { CredentialError } from "../domain/errors.ts";
import type { Log } from "../log.ts";
import { AuditCommitter } from "./audit.ts";
import { compare } from "./compatibility.ts";
import { parseDatabaseUrl } from "./connection.ts";
import { authorizationStore } from "./authorizations.ts";
import { Creator } from "./creator.ts";
import { credentialReads } from "./credential-reads.ts";
import { credentialChanges } from "./credentials.ts";
import { Database } from "./db.ts";
import { Describer } from "./describer.ts";
import { isReadOnly, StoreFault, StoreSetupError } from "./errors.ts";
import { idempotencyStore } from "./idempotency.ts";
import { importStore } from "./imports.ts";
import { KeyLookup } from "./key-lookup.ts";
import { keyRegistryStore, organizationKeyStore } from "./keys.ts";
import type { Recorded } from "./load.ts";
import { maintenanceStore } from "./maintenance.ts";
import { MIGRATION_TABLE, MIGRATIONS } from "./migrations/index.ts";
import { outboxStore } from "./outbox.ts";
import { refreshStore } from "./refresh.ts";
import { replicaStore } from "./replicas.ts";
import { Resolver } from "./resolve.ts";
import { rotationRows } from "./rotation-rows.ts";
import { rotationStore } from "./rotations.ts";
import { serviceAccountStore } from "./service-accounts.ts";
import type { Store } from "./store.ts";
import { tallyStore } from "./tally.ts";
import type { Session } from "./transaction.ts";
import { trailStore } from "./trail.ts";
import { UsageRecorder } from "./usage.ts";
import { useReportStore } from "./use-reports.ts";
import { watchStore } from "./watch.ts";

/** How to reach the database and how much of it to use. */
export interface StoreOptions {
  /** Database as the application role; libpq's socket form is understood. */
  readonly url: string;
  /** Named prepared statements; off behind a pooler that moves transactions between connections. */
  readonly prepared: boolean;
  /** Connections for everything else than resolving (two of its own), creating (two), auditing (one), looking up API keys (up to two), and watching (one). */
  readonly poolSize: number;
  /** Connections for what the service does by itself, renewals and webhooks, so that callers need not wait for it; 2 where not given. */
  readonly backgroundPoolSize?: number;
  /** Longest time of one statement, ms. */
  readonly statementTimeoutMs: number;
  /** Certificate authority of the server, PEM; turns TLS with full verification on. */
  readonly caFile?: string | undefined;
  /** Resolve calls that may wait. */
  readonly resolveQueue: number;
  /** Resolve calls that share a transaction at most. */
  readonly resolveBatch: number;
  /** Creations that may wait; 1,024 where not given. */
  readonly createQueue?: number;
  readonly log: Log;
  /** Is told of every transaction that recorded events. */
  readonly recorded?: Recorded;
}

/** Connections for looking up authorizations by their state. */
const LOOKUP_CONNECTIONS = 2;

/** Creations that may wait, where nothing else is said. */
const CREATE_QUEUE = 1_024;

/** Longest wait for a lock, ms: a locked row delays its own callers, and should not use up everyone's time. */
const LOCK_MS = 2_000;

/** Longest time until the database has answered whether it is there, ms. */
const PING_MS = 2_000;

/** Connections for the rows of rotations, opened when there is one: the page that is read and the batch that is written, and not those of callers. */
const ROTATION_CONNECTIONS = 3;

/** Connections for the watch feed, which asks one thing after the other and must not wait behind renewals. */
const WATCH_CONNECTIONS = 1;

/**
 * Opens the store. Throws StoreSetupError where the database cannot be reached, the role has more rights than the
 * service may have, or the schema is not the one that this code knows.
 */
export async function openStore(options: StoreOptions): Promise<Store> {
  const fields = parseDatabaseUrl(options.url, options.caFile);
  const statementMs = options.statementTimeoutMs;
  let lost = () => {};
  const session: Session = { prepared: options.prepared, timeouts: { statementMs, lockMs: Math.min(LOCK_MS, Math.ceil(statementMs / 2)) }, lost: () => lost() };
  const database = new Database({ name: "calls", fields, session, poolSize: options.poolSize });
  const backgroundPoolSize = options.backgroundPoolSize ?? 2;
  const background = new Database({ name: "background", fields, session, poolSize: backgroundPoolSize });
  const moving = new Database({ name: "rotations", fields, session, poolSize: ROTATION_CONNECTIONS });
  const watching = new Database({ name: "watches", fields, session, poolSize: WATCH_CONNECTIONS });
  const lookup = new KeyLookup({ fields, session });
  const states = new Database({ name: "authorizations", fields, session, poolSize: LOOKUP_CONNECTIONS });
  const authorizations = authorizationStore(database, states);
  const { log, recorded } = options;
  const audit = new AuditCommitter({ fields, session, log, recorded });
  const resolver = new Resolver({ fields, session, log, recorded, queue: options.resolveQueue, batch: options.resolveBatch });
  const creator = new Creator(database, { fields, session, log, queue: options.createQueue ?? CREATE_QUEUE });
  const describer = new Describer(database);
  const usage = new UsageRecorder(database, log);
  const close = async () => {
    await Promise.all([usage.close(), describer.close(), creator.close(), resolver.close(), audit.close(), lookup.close(), authorizations.close()]);
    await Promise.all([database.close(), background.close(), moving.close(), watching.close()]);
  };
  try {
    const { fault, ahead } = await database.read(null, checkSetup);
    if (fault !== undefined) throw fault;
    if (ahead !== undefined) log.warn({ migration: ahead }, "the database is ahead of this version, which can still work with it");
    await Promise.all([resolver.open(), creator.open(), audit.open()]);
  } catch (error) {
    await close();
    if (error instanceof StoreSetupError) throw error;
    const fault = error instanceof CredentialError ? error.cause : new StoreFault(error);
    if (fault instanceof StoreFault && isReadOnly(fault)) throw new StoreSetupError("the database takes no writes, as a standby does not; give the primary's address, or one that follows it");
    throw new StoreSetupError(`the database cannot be used: ${fault instanceof StoreFault ? fault.message : "it does not answer"}`);
  }
  return {
    credentials: {
      ...credentialReads(database),
      ...credentialChanges(database),
      create: (row, limits, event, signal) => creator.create(row, limits, event, signal),
      describe: (organizationId, id) => describer.describe(organizationId, id),
      resolve: (organizationId, id, event) => resolver.resolve(organizationId, id, event),
    },
    organizationKeys: organizationKeyStore(database),
    keyRegistry: keyRegistryStore(database),
    replicas: replicaStore(database),
    rotations: rotationStore(database),
    rotationRows: rotationRows(moving),
    imports: importStore(database),
    serviceAccounts: serviceAccountStore(database, lookup),
    idempotency: idempotencyStore(database),
    usage,
    useReports: useReportStore(database, () => usage.flush()),
    trail: trailStore(database),
    maintenance: maintenanceStore(database),
    authorizations,
    audit,
    refresh: refreshStore(background, backgroundPoolSize),
    outbox: outboxStore(background),
    tally: tallyStore(background),
    load: () => ({ pools: [database, background, moving, watching, lookup, states].map(({ load }) => load), lanes: [resolver.load, audit.load, creator.load] }),
    watch: watchStore(watching),
    onKeyMoved(listener) {
      for (const pool of [database, background]) pool.onKeyMoved = listener;
    },
    onLost: (listener) => void (lost = listener),
    // One that waits for a server that vanished would still say so long after another has taken its place.
    ping: () => database.read(null, (trx) => trx.raw("select 1"), AbortSignal.timeout(PING_MS)).then(() => resolver.load.up && audit.load.up, () => false),
    close,
  };
}

/** What is wrong with the role or the schema, and the oldest migration that this code does not know; neither where all is well. */
async function checkSetup(trx: Knex.Transaction): Promise<{ readonly fault?: StoreSetupError | undefined; readonly ahead?: string | undefined }> {
  const { rows } = await trx.raw(
    `select r.rolsuper, r.rolbypassrls, to_regclass(?) is not null as migrated,
      exists (select from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and pg_has_role(c.relowner, 'member')) as owner
    from pg_roles r where r.rolname = current_user`,
    [`public.${MIGRATION_TABLE}`],
  );
  const [role] = rows as [{ rolsuper: boolean; rolbypassrls: boolean; owner: boolean; migrated: boolean }];
  if (role.rolsuper) return wrong("the database role is a superuser, which row-level security does not bind; give the application role");
  if (role.rolbypassrls) return wrong("the database role bypasses row-level security; give the application role");
  if (role.owner) return wrong("the database role owns tables, or may become their owner; give the application role");
  if (!role.migrated) return wrong("the database has no schema yet; run the migrations");
  const { fault, missing, unknown } = await compare(trx, MIGRATIONS);
  if (fault === undefined && missing !== undefined) return wrong(`the database lacks the migration ${missing}; run the migrations`);
  return { fault, ahead: unknown };
}

const wrong = (message: string): { readonly fault: StoreSetupError } => ({ fault: new StoreSetupError(message) });
