import { newApiKey } from "./auth/api-key.ts";
import { createAuthenticator } from "./auth/authenticate.ts";
import { readCertificate } from "./auth/certificate.ts";
import { connecting, secureBrowsers } from "./authorization.ts";
import { startBackground } from "./background.ts";
import { Certificates, readPem, tlsOf } from "./certificates.ts";
import { type Address, type Config, ConfigError, isLoopback } from "./config.ts";
import { parsePorts } from "./egress/policy.ts";
import { createProber } from "./egress/probe.ts";
import { REASONS } from "./domain/errors.ts";
import { watchCertificate, watchConnections, watchSealing, watchStore, watchTests, watchWatches } from "./gauges.ts";
import { Feed } from "./events/watch-feed.ts";
import type { Local } from "./grpc/local.ts";
import { serveGrpc } from "./grpc/server.ts";
import { tokenVerifier } from "./issuer.ts";
import { watchKeys } from "./key-gauges.ts";
import { createLog, type Log } from "./log.ts";
import { loadMasterKeys, startKeys } from "./master-keys.ts";
import { createMetrics, type Metrics } from "./metrics.ts";
import { findings } from "./providers/index.ts";
import { type OpsServer, serveOps } from "./rest/ops.ts";
import { type RestServer, serveRest } from "./rest/server.ts";
import { dial, type Transport } from "./rest/transport.ts";
import { parseDatabaseUrl } from "./store/connection.ts";
import { startEmbedded } from "./store/embedded.ts";
import { migrate } from "./store/migrate.ts";
import { openStore } from "./store/open.ts";
import { traceTo } from "./tracing.ts";
import { auditKeysOf, ratesOf, startUpkeep } from "./upkeep.ts";
import { createRepeats } from "./vault/idempotency.ts";
import { createKeyTally } from "./vault/key-tally.ts";
import { LimitedCalls } from "./vault/limited-calls.ts";
import { RateLimiter } from "./vault/rates.ts";
import { createReception } from "./vault/reception.ts";
import { bindUseCases } from "./vault/use-cases.ts";

/** A running service. Disposing stops it: no new calls, calls in flight finish, connections close. */
export interface App extends AsyncDisposable {
  /** Where gRPC listens; undefined where this process does not serve it. */
  readonly grpc: Address | undefined;
  /** Where REST listens; undefined where this process does not serve it. */
  readonly rest: Address | undefined;
  /** Where probes and metrics are; undefined where they have no listener of their own. */
  readonly ops: Address | undefined;
  /** Takes over the master keys and the certificate of a configuration that is read again; see `RunningKeys.reload` and `Certificates.reload`. */
  reload(read: () => Config): Promise<void>;
}

/** What is put in place of the real thing, and when to give up. */
export interface Overrides {
  readonly log?: Log;
  readonly now?: () => Date;
  /** Aborts a start that is under way; what was started by then is stopped again. */
  readonly signal?: AbortSignal;
}

/** Where the database is: as configured, or the embedded one, started or attached to. */
async function databaseOf({ settings, secrets }: Config, log: Log, resources: AsyncDisposableStack): Promise<{ url: string; ownerUrl: string | undefined }> {
  const [url, ownerUrl] = [secrets.databaseUrl?.reveal(), secrets.databaseMigrationUrl?.reveal()];
  if (settings.profile === "production") {
    for (const each of [url, ownerUrl]) if (each !== undefined) refusePlaintext(each, settings.databaseCaFile);
  }
  if (url !== undefined) return { url, ownerUrl };
  if (settings.profile === "production") throw new ConfigError("CREDENTIALS_DATABASE_URL is required in production");
  const embedded = await startEmbedded(settings.dataDir);
  resources.defer(() => embedded.stop());
  if (embedded.moved) log.warn({ path: embedded.dataDir }, "the data directory is closed to the user that PostgreSQL runs as; the database lives here");
  return { url: embedded.applicationUrl, ownerUrl: embedded.ownerUrl };
}

/** In production a database is reached over TLS, unless it is on this machine. */
function refusePlaintext(url: string, caFile: string | undefined): void {
  const { host, ssl } = parseDatabaseUrl(url, caFile);
  const local = host.startsWith("/") || isLoopback(host);
  if (!ssl && !local) throw new ConfigError("the database is on another machine: production needs CREDENTIALS_DATABASE_CA_FILE, or sslmode=verify-full in its URL");
}

/** The ports that tests may use, by provider. */
function portsOf({ egressPortsSftp, egressPortsPostgresql, egressPortsAwsSes }: Config["settings"]): Record<string, readonly number[]> {
  const database = egressPortsPostgresql && parsePorts("CREDENTIALS_EGRESS_PORTS_POSTGRESQL", egressPortsPostgresql);
  return {
    ...(egressPortsSftp ? { sftp: parsePorts("CREDENTIALS_EGRESS_PORTS_SFTP", egressPortsSftp) } : {}),
    ...(egressPortsAwsSes ? { aws_ses: parsePorts("CREDENTIALS_EGRESS_PORTS_AWS_SES", egressPortsAwsSes) } : {}),
    ...(database ? { postgresql: database, internal_postgresql: database } : {}),
  };
}

/** Applies every migration that the database lacks; gives their names. */
export async function runMigrations(config: Config): Promise<string[]> {
  await using resources = new AsyncDisposableStack();
  const { url, ownerUrl } = await databaseOf(config, createLog(config.settings.logLevel), resources);
  if (ownerUrl === undefined) throw new ConfigError("CREDENTIALS_DATABASE_MIGRATION_URL is required to migrate");
  return migrate({ url: ownerUrl, ...caOf(config), applicationRole: parseDatabaseUrl(url).user });
}

const caOf = ({ settings }: Config): { caFile?: string } => (settings.databaseCaFile === undefined ? {} : { caFile: settings.databaseCaFile });

/** What both roles start from. */
interface Start {
  readonly config: Config;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly now: () => Date;
  readonly signal: AbortSignal;
  readonly certificates: Certificates;
  /** Where REST listens, once it does. */
  readonly listening: { rest?: Address };
  /** Everything that has to be stopped again, in reverse order. */
  readonly resources: AsyncDisposableStack;
}

/** How long a scrape of the metrics waits for what is counted in the database, ms. */
const SCRAPE_PATIENCE_MS = 1_000;

/** The gRPC role: database, keys and the vault behind its one door. */
async function startGrpc({ config, log, metrics, certificates, now, signal, listening, resources }: Start) {
  const { settings } = config;
  const masterKeys = loadMasterKeys(config);
  const clock = () => now().getTime();
  const jwt = tokenVerifier(config, log, clock);
  const tls = certificates.current;
  const auditKeys = auditKeysOf(config);
  const database = await databaseOf(config, log, resources);
  signal.throwIfAborted();
  if (database.ownerUrl !== undefined) {
    for (const migration of await migrate({ url: database.ownerUrl, ...caOf(config), applicationRole: parseDatabaseUrl(database.url).user, signal })) log.info({ migration }, "migrated");
  }
  const store = await openStore({
    url: database.url,
    ...caOf(config),
    prepared: settings.databasePrepared,
    poolSize: settings.databasePoolSize,
    backgroundPoolSize: settings.databaseBackgroundPoolSize,
    statementTimeoutMs: settings.databaseStatementTimeoutMs,
    resolveQueue: settings.resolveQueue,
    resolveBatch: settings.resolveBatch,
    createQueue: settings.createQueue,
    log,
    recorded: metrics.recorded,
  });
  resources.defer(() => store.close());
  signal.throwIfAborted();
  const running = await startKeys(masterKeys, config, store, log, resources);
  const { envelope, ring, wakeRotations } = running;
  watchSealing(metrics, () => envelope.counters);
  watchStore(metrics, store.load);
  watchKeys(metrics, createKeyTally({ store, ring, maxAgeMs: settings.replicaHeartbeatMs, patienceMs: SCRAPE_PATIENCE_MS }));
  const authenticator = createAuthenticator({ jwt, keys: store.serviceAccounts, cacheEntries: settings.tokenCacheEntries, apiKeyCacheSeconds: settings.apiKeyCacheSeconds, now: clock });
  const prober = createProber({
    maxPerOrganization: settings.testsPerOrganization,
    maxTotal: settings.testsTotal,
    burst: settings.testsBurst,
    refillMs: settings.testRefillMs,
    deadlineMs: settings.testDeadlineMs,
    memoryMegabytes: settings.testMemoryMb,
    egress: { profile: settings.profile, allow: settings.egressAllow, nat64: settings.egressNat64, ports: portsOf(settings) },
    findings,
    log,
  });
  resources.defer(() => prober.close());
  watchTests(metrics, () => prober.load);
  const limits = { perProvider: settings.limitPerProvider, perUser: settings.limitPerUser };
  const background = startBackground({ config, store, envelope, log, metrics });
  resources.defer(() => background.stop());
  const feed = new Feed({
    store: store.watch, log,
    pollMs: settings.watchPollMs,
    heartbeatMs: settings.watchHeartbeatMs,
    reauthorizeMs: settings.watchReauthorizeMs,
    perOrganization: settings.watchPerOrganization,
    perReplica: settings.watchPerReplica,
    buffer: settings.watchBuffer,
  });
  resources.defer(() => feed.stop());
  watchWatches(metrics, () => feed.watchers);
  const vault = bindUseCases({ feed, clientCacheSeconds: settings.clientCacheSeconds, store, envelope, ring, wakeRotations, prober, tested: (provider, layer) => metrics.tested(provider, layer ?? undefined), renewal: background.renewal, oauthIo: background.oauthIo, ...connecting(config, () => listening.rest), limits, newApiKey, readCertificate, ...auditKeys, purgeAfterDays: settings.purgeAfterDays, log, now });
  const limitedCalls = new LimitedCalls(store.audit);
  resources.use(startUpkeep(config, auditKeys, { store, limitedCalls, log, metrics, now }));
  const server = await serveGrpc(
    { authenticator, audit: store.audit, reception: createReception({ store, rates: new RateLimiter(ratesOf(config)), limitedCalls }), repeats: createRepeats({ store, envelope }), log, metrics, vault },
    {
      listen: settings.grpcListen,
      ...(tls ? { tls } : {}),
      reflection: settings.grpcReflection,
      deadlineMs: settings.grpcDeadlineMs,
      maxMessageBytes: settings.grpcMaxMessageBytes,
      maxMetadataBytes: settings.grpcMaxMetadataBytes,
      maxConcurrentStreams: settings.grpcMaxConcurrentStreams,
      maxConnections: settings.grpcMaxConnections,
      keepaliveMs: settings.grpcKeepaliveMs,
      maxConnectionAgeMs: settings.grpcMaxConnectionAgeMs,
      shutdownGraceMs: settings.shutdownGraceMs,
    },
  );
  certificates.onChange(server.renewCertificate);
  resources.defer(async () => void (await Promise.all([server.stop(), feed.stop(), background.quiesce()])));
  return { server, reload: running.reload, ready: async () => running.ready && (await store.ping()) };
}

/** The way of the REST role to the gRPC service: straight to that of the same process, or over the network. */
function transportTo(local: Local | undefined, { settings }: Config): Transport | undefined {
  if (local !== undefined) return { call: (call) => local.call(call), reachable: async () => local.open, close: () => {} };
  const { grpcTarget: target, grpcTargetCaFile: caFile, grpcDeadlineMs: deadlineMs } = settings;
  return target === undefined ? undefined : dial({ target, deadlineMs, ...(caFile === undefined ? {} : { targetCa: readPem("CREDENTIALS_GRPC_TARGET_CA_FILE", caFile) }) });
}

/** The REST role: a client of the gRPC service. */
async function startRest({ config, log, metrics, certificates, resources }: Start, transport: Transport, ready: () => Promise<boolean>): Promise<RestServer> {
  const { settings } = config;
  const tls = certificates.current;
  const server = await serveRest({
    listen: settings.restListen,
    transport,
    ...(tls ? { tls } : {}),
    corsOrigins: settings.corsOrigins,
    maxBodyBytes: settings.restMaxBodyBytes,
    maxJsonDepth: settings.restMaxJsonDepth,
    maxJsonKeys: settings.restMaxJsonKeys,
    deadlineMs: settings.grpcDeadlineMs,
    limits: {
      headersMs: settings.restHeadersTimeoutMs,
      requestMs: settings.restRequestTimeoutMs,
      keepAliveMs: settings.restKeepaliveMs,
      maxHeaderBytes: settings.restMaxHeaderBytes,
      maxConnections: settings.restMaxConnections,
    },
    secureBrowsers: secureBrowsers(config),
    docs: settings.restDocs,
    resolve: settings.restResolve,
    log,
    ready,
    metrics: () => metrics.render(),
    probes: settings.opsListen === undefined,
  });
  certificates.onChange((files) => server.renewCertificate(files));
  resources.defer(() => server.stop());
  return server;
}

/** The listener for operators, if one is asked for: the first to answer, while the rest still starts, and the last to go. */
async function startOps({ config, log, metrics, resources }: Start, state: { readonly stopping: boolean; readonly ready: () => Promise<boolean> }): Promise<OpsServer | undefined> {
  const listen = config.settings.opsListen;
  if (listen === undefined) return undefined;
  const server = await serveOps({ listen, log, ready: () => state.ready(), metrics: () => metrics.render(), stopping: () => state.stopping });
  resources.defer(() => server.stop());
  return server;
}

/** Starts everything the configuration asks for, or nothing: what was started before a failure is stopped again. */
export async function createApp(config: Config, overrides: Overrides = {}): Promise<App> {
  await using resources = new AsyncDisposableStack();
  const { settings } = config;
  const { log = createLog(settings.logLevel), now = () => new Date(), signal = new AbortController().signal } = overrides;
  const certificates = new Certificates(tlsOf(config), log);
  const start: Start = { config, log, metrics: createMetrics(Object.keys(REASONS)), certificates, now, signal, listening: {}, resources };
  const traces = await traceTo(config, log, start.metrics);
  if (traces) resources.use(traces);
  const state = { stopping: false, ready: async () => false };
  const ops = await startOps(start, state);
  const [serves, adapts] = [settings.roles.includes("grpc"), settings.roles.includes("rest")];
  const grpc = serves ? await startGrpc(start) : undefined;
  const transport = adapts ? transportTo(grpc?.server.local, config) : undefined;
  const rest = transport ? await startRest(start, transport, grpc?.ready ?? (async () => true)) : undefined;
  if (rest !== undefined) start.listening.rest = rest.address;
  watchCertificate(start.metrics, certificates);
  watchConnections(start.metrics, () => [
    ...(grpc ? [{ name: "grpc", open: grpc.server.connections, most: settings.grpcMaxConnections }] : []),
    ...(rest ? [{ name: "rest", open: rest.connections, most: settings.restMaxConnections }] : []),
  ]);
  state.ready = rest?.ready ?? grpc?.ready ?? state.ready;
  const started = resources.move();
  return {
    grpc: grpc?.server.address,
    rest: rest?.address,
    ops: ops?.address,
    async reload(read) {
      certificates.reload(read);
      await grpc?.reload(read);
    },
    [Symbol.asyncDispose]: () => {
      state.stopping = true;
      return started.disposeAsync();
    },
  };
}
