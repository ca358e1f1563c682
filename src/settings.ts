import { z } from "zod";

/** `host:port`, IPv6 hosts in brackets; port 0 lets the system pick one. */
export interface Address {
  readonly host: string;
  readonly port: number;
}

const address = z.string().transform((text, ctx): Address => {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match && port <= 65_535) return { host: (match[1] ?? match[2]) as string, port };
  ctx.addIssue("must be host:port");
  return z.NEVER;
});
const whole = (minimum: number, maximum: number) =>
  z
    .string()
    .regex(/^\d{1,10}$/, "must be a whole number")
    .transform(Number)
    .pipe(z.number().min(minimum, `must be at least ${minimum}`).max(maximum, `must be at most ${maximum}`));
const onOff = z.enum(["on", "off"], "must be on or off").transform((text) => text === "on");
const list = z.string().transform((text) => text.split(",").map((part) => part.trim()).filter((part) => part !== ""));
const url = z.url({ protocol: /^https?$/, error: "must be an http or https URL" });
const word = z.string().regex(/^[\x21-\x7e]+$/, "must be printable ASCII without spaces");
const path = z.string();
const origin = z.string().refine((text) => URL.canParse(text) && new URL(text).origin === text, "must list origins, each exactly scheme://host or scheme://host:port");

/** What one setting means, for the reader of the README and of `.env.example`. */
interface Setting<T> {
  readonly schema: z.ZodType<T, string>;
  /** Default as it would be written in the environment; absent where unset means something of its own. */
  readonly default?: string;
  /** May also be given as `…_FILE`, a path to a file with the value; and is kept away from the settings object. */
  readonly secret?: true;
  readonly doc: string;
}
const setting = <T>(schema: z.ZodType<T, string>, doc: string): Setting<T> => ({ schema, doc });
const defaulted = <T>(fallback: string, schema: z.ZodType<T, string>, doc: string): Setting<T> & { default: string } => ({ schema, doc, default: fallback });
const hidden = (doc: string) => ({ schema: z.string(), doc, secret: true }) as const;

/** Every setting, by its name without the prefix `CREDENTIALS_`. The README's table is checked against this one. */
export const SETTINGS = {
  PROFILE: defaulted("development", z.enum(["development", "production"], "must be development or production"), "`production` refuses every development convenience"),
  ROLES: defaulted("grpc,rest", list.pipe(z.array(z.enum(["grpc", "rest"], "must name grpc, rest or both")).min(1)), "what this process serves"),
  GRPC_LISTEN: defaulted("127.0.0.1:50051", address, "address of the gRPC listener; port 0 picks one"),
  REST_LISTEN: defaulted("127.0.0.1:8080", address, "address of the REST listener; port 0 picks one"),
  OPS_LISTEN: setting(address, "address of a listener of its own for `/healthz`, `/readyz` and `/metrics`, in plain HTTP and for the inner network; where set they are no longer on the REST listener; port 0 picks one"),
  GRPC_TARGET: setting(word, "`host:port` of the gRPC service, where `rest` runs alone"),
  GRPC_TARGET_CA_FILE: setting(path, "certificate authority of that service, PEM; its presence turns TLS on"),
  TLS_CERT_FILE: setting(path, "certificate chain for the gRPC and the REST listener, PEM; read again on SIGHUP"),
  TLS_KEY_FILE: setting(path, "private key for the gRPC and the REST listener, PEM; read again on SIGHUP"),
  TLS_CLIENT_CA_FILE: setting(path, "certificate authority of gRPC clients, PEM; its presence requires a client certificate; read again on SIGHUP"),
  DATA_DIR: defaulted(".data", path, "embedded database and generated development keys"),
  DATABASE_URL: hidden("PostgreSQL for the application role; embedded where unset (development)"),
  DATABASE_MIGRATION_URL: hidden("PostgreSQL for the role that owns the schema; migrations run at start where it is set"),
  DATABASE_CA_FILE: setting(path, "certificate authority of the PostgreSQL server, PEM; its presence turns TLS with full verification on"),
  DATABASE_POOL_SIZE: defaulted("10", whole(2, 200), "connections for everything off the hot path"),
  DATABASE_STATEMENT_TIMEOUT_MS: defaulted("10000", whole(100, 600_000), "longest time one statement may take, ms"),
  DATABASE_PREPARED: defaulted("on", onOff, "named prepared statements; `off` behind pgbouncer in transaction mode"),
  MASTER_KEYS: hidden("`id:base64` pairs, comma-separated or one a line, 32 bytes each; generated in development where unset"),
  KMS: setting(z.enum(["transit", "aws"], "must be transit or aws"), "key service that keeps the master keys, in the place of `MASTER_KEYS`: `transit` (OpenBao, Vault) or `aws` (AWS KMS)"),
  KMS_KEYS: setting(list, "`id=name` pairs, comma-separated: ids of master keys, and what the key service calls each (name of a Transit key; id, ARN or alias of a KMS key)"),
  KMS_FORMER_MASTER_KEYS: hidden("what `MASTER_KEYS` was before the key service: loaded beside it while everything is moved over, and then taken out"),
  KMS_TIMEOUT_MS: defaulted("2000", whole(100, 30_000), "longest time of one request to the key service, ms"),
  KMS_TRANSIT_URL: setting(url, "base URL of the OpenBao or Vault server; https in production, unless it is on this machine"),
  KMS_TRANSIT_MOUNT: defaulted("transit", z.string().regex(/^[\w-]+(\/[\w-]+)*$/, "must be a path of letters, digits, _ and -"), "path of the Transit engine"),
  KMS_TRANSIT_NAMESPACE: setting(word, "namespace of the server, where it has such"),
  KMS_TRANSIT_TOKEN: hidden("token for the Transit engine; its file is read again on SIGHUP"),
  KMS_CA_FILE: setting(path, "certificate authority of the key service, PEM, in the place of the system's"),
  KMS_AWS_REGION: setting(word, "region of AWS KMS"),
  KMS_AWS_ENDPOINT: setting(url, "another address of AWS KMS, such as a private endpoint"),
  KMS_AWS_ACCESS_KEY_ID: setting(word, "access key for AWS KMS; without it, what the AWS SDK finds (web identity, container or instance role)"),
  KMS_AWS_SECRET_ACCESS_KEY: hidden("secret of that access key"),
  KMS_AWS_SESSION_TOKEN: hidden("session token of that access key, where it has one"),
  PRIMARY_KEY_ID: setting(word, "id of the master key that wraps in a new database; in one that is in use, the database says which one does"),
  KEY_CACHE_ENTRIES: defaulted("10000", whole(1, 10_000_000), "unwrapped organization keys kept in memory"),
  KEY_CACHE_SECONDS: defaulted("60", whole(1, 60), "longest age of an unwrapped organization key in memory, s"),
  AUDIT_SIGNING_KEY: hidden("Ed25519 private key that signs audit heads: PKCS#8 in PEM, or the base64 of its DER form; required in production, generated in development where unset"),
  AUDIT_TRUSTED_KEYS_FILE: setting(path, "public keys, PEM, whose earlier signatures of audit heads are believed besides the signing key's own"),
  AUDIT_SIGN_INTERVAL_MS: defaulted("60000", whole(100, 86_400_000), "time between two signings of the audit heads that have moved, ms"),
  TALLY_INTERVAL_MS: defaulted("60000", whole(100, 86_400_000), "time between two counts of credentials by state and of limits that are near, for the metrics, ms"),
  PURGE_AFTER_DAYS: defaulted("30", whole(0, 36_500), "how long the sealed secret of a deleted credential is kept, days"),
  PURGE_INTERVAL_MS: defaulted("3600000", whole(100, 86_400_000), "time between two clearings of what has had its time, ms"),
  EVENTS_KEPT_DAYS: defaulted("7", whole(0, 3_650), "how long events are kept for those who watch and were away, days; where webhooks are configured, one that was not delivered yet is kept longer"),
  WATCH_POLL_MS: defaulted("200", whole(10, 10_000), "pause between two looks for events to tell those who watch, ms; each is one statement for everyone"),
  WATCH_HEARTBEAT_MS: defaulted("5000", whole(50, 7_500), "time between two bookmarks of one watch, ms; executors trust what they keep for 15 s after one"),
  WATCH_REAUTHORIZE_MS: defaulted("5000", whole(50, 60_000), "time between two looks at the rights of those who watch, ms: a watch whose token, key, account or organization has ended is ended within it and one look for events"),
  WATCH_PER_ORGANIZATION: defaulted("1000", whole(1, 1_000_000), "watches of one organization at a time, on each replica; more are refused"),
  WATCH_PER_REPLICA: defaulted("20000", whole(1, 1_000_000), "watches at a time on each replica; more are refused"),
  WATCH_BUFFER: defaulted("256", whole(1, 100_000), "messages that may wait for the reader of one watch; it is ended when there are more, and may go on from where it stood"),
  CLIENT_CACHE_SECONDS: defaulted("300", whole(0, 3_600), "how long an executor that watches may use a secret again without asking, s; 0 for not at all"),
  REPLICA_HEARTBEAT_MS: defaulted("5000", whole(50, 60_000), "time between two reports of a replica about the master keys it has loaded, ms; silent for three of them, it counts as dead"),
  ROTATION_SETTLE_MS: defaulted("15000", whole(0, 600_000), "how much longer than their caches last replicas are given to stop sealing with an organization key that was replaced, ms; no less than a write may take"),
  ROTATION_LEASE_MS: defaulted("15000", whole(500, 600_000), "how long a rotation of keys stays with a replica that does not report, ms"),
  JWT_SECRET: hidden("HS256 secret, at least 32 bytes; generated in development where unset"),
  JWT_PUBLIC_KEY: hidden("RS256, ES256 or EdDSA public key, PEM; instead of the secret"),
  JWT_JWKS_URL: setting(url, "key set (RFC 7517) of the issuer, https; instead of the secret"),
  JWT_JWKS_ALLOW: defaulted("", list, "ranges that are not global and that the key set may be fetched from all the same, CIDR list; loopback only in development, link-local never"),
  JWT_JWKS_CA_FILE: setting(path, "certificate authority of the key set's server, PEM; the system's where unset"),
  JWT_ISSUER: defaulted("flow-credentials-dev", word, "issuer that tokens must name"),
  JWT_AUDIENCE: defaulted("flow-credentials", word, "audience that tokens must name"),
  JWT_OPERATOR_AUDIENCE: setting(word, "the only audience whose tokens may be `operator`; `flow-credentials-operator` in development"),
  JWT_CLAIM_ORGANIZATION: defaulted("organization_id", word, "claim with the organization's UUID; dots descend into objects"),
  JWT_CLAIM_KIND: defaulted("account_type", word, "claim with the kind of caller"),
  JWT_CLAIM_ROLE: defaulted("role", word, "claim with the role inside the organization"),
  JWT_CLOCK_SKEW_SECONDS: defaulted("30", whole(0, 60), "how far clocks may differ when a token's times are checked, s"),
  TOKEN_CACHE_ENTRIES: defaulted("10000", whole(1, 1_000_000), "verified tokens kept in memory until they expire"),
  API_KEY_CACHE_SECONDS: defaulted("5", whole(0, 60), "how long a verified API key is trusted without asking the database, s"),
  LIMIT_PER_PROVIDER: defaulted("50", whole(1, 1_000_000), "active credentials for a provider in an organization"),
  RATE_RESOLVES_PER_CALLER: defaulted("5000", whole(1, 1_000_000), "resolve calls of one caller in a second, on each replica; ten seconds' worth at once"),
  RATE_RESOLVES_PER_ORGANIZATION: defaulted("10000", whole(1, 1_000_000), "resolve calls of one organization in a second, on each replica; ten seconds' worth at once"),
  RATE_WRITES_PER_CALLER: defaulted("50", whole(1, 1_000_000), "writes of one caller in a second, on each replica; ten seconds' worth at once"),
  RATE_WRITES_PER_ORGANIZATION: defaulted("200", whole(1, 1_000_000), "writes of one organization in a second, on each replica; ten seconds' worth at once"),
  RATE_TESTS_PER_CALLER: defaulted("2", whole(1, 1_000_000), "connection tests of one caller in a second, on each replica; ten seconds' worth at once"),
  RATE_TESTS_PER_ORGANIZATION: defaulted("4", whole(1, 1_000_000), "connection tests of one organization in a second, on each replica; ten seconds' worth at once"),
  RATE_RECORD_MS: defaulted("60000", whole(100, 86_400_000), "time between two audit records of how often a caller was refused because it called too often, ms; the first refusal is recorded at once"),
  LIMIT_PER_USER: defaulted("100", whole(1, 1_000_000), "active credentials of a user"),
  GRPC_REFLECTION: setting(onOff, "server reflection; on in development, off in production"),
  GRPC_DEADLINE_MS: defaulted("15000", whole(100, 600_000), "deadline of a call that brings none, and the longest one granted, ms"),
  GRPC_MAX_MESSAGE_BYTES: defaulted("262144", whole(1_024, 16_777_216), "largest request message, bytes"),
  GRPC_MAX_METADATA_BYTES: defaulted("16384", whole(1_024, 1_048_576), "largest request metadata, bytes"),
  GRPC_MAX_CONCURRENT_STREAMS: defaulted("100", whole(1, 100_000), "calls at once on one connection, and from REST in the same process"),
  GRPC_MAX_CONNECTIONS: defaulted("2048", whole(1, 100_000), "connections at once on one address; more are closed at once"),
  GRPC_KEEPALIVE_MS: defaulted("60000", whole(1_000, 7_200_000), "time between pings on a quiet connection, ms"),
  GRPC_MAX_CONNECTION_AGE_MS: defaulted("1800000", whole(1_000, 86_400_000), "age at which a connection is asked to go, so that load spreads, ms"),
  REST_RESOLVE: defaulted("off", onOff, "mounts `GET …/credentials/{id}/credentials` for service accounts"),
  REST_DOCS: defaulted("on", onOff, "serves the API reference at `/openapi.json`, and a page for it at `/docs`"),
  REST_MAX_BODY_BYTES: defaulted("131072", whole(1_024, 1_048_576), "largest request body, bytes"),
  REST_MAX_HEADER_BYTES: defaulted("16384", whole(1_024, 1_048_576), "largest request line and headers together, bytes"),
  REST_HEADERS_TIMEOUT_MS: defaulted("10000", whole(100, 600_000), "how long the headers of a request may take to arrive, ms"),
  REST_REQUEST_TIMEOUT_MS: defaulted("30000", whole(100, 600_000), "how long a request may take to arrive as a whole, ms; a client that takes nothing of its answer for so long is cut off"),
  REST_KEEPALIVE_MS: defaulted("72000", whole(0, 600_000), "how long a connection is kept between two requests, ms; longer than the load balancer in front keeps it"),
  REST_MAX_CONNECTIONS: defaulted("2048", whole(1, 1_000_000), "connections at once; one more is closed at once"),
  REST_MAX_JSON_DEPTH: defaulted("16", whole(2, 100), "deepest nesting of a JSON body"),
  REST_MAX_JSON_KEYS: defaulted("1000", whole(10, 100_000), "most keys and array elements in a JSON body"),
  RESOLVE_QUEUE: defaulted("4096", whole(1, 1_000_000), "resolve calls that may wait for the database; more are refused at once"),
  RESOLVE_BATCH: defaulted("256", whole(1, 10_000), "resolve calls that share one round trip at most"),
  CREATE_QUEUE: defaulted("1024", whole(1, 1_000_000), "creations that may wait for the database; more are refused at once"),
  SHUTDOWN_GRACE_MS: defaulted("25000", whole(0, 600_000), "how long calls in flight may take after a stop signal, ms"),
  LOG_LEVEL: defaulted("info", z.enum(["debug", "info", "warn", "error"], "must be debug, info, warn or error"), "least severe log line that is written"),
  OTLP_ENDPOINT: setting(url, "where traces are sent, OTLP over HTTP in JSON: a collector's base URL, such as `http://127.0.0.1:4318`; nothing is traced where unset"),
  OTLP_HEADERS: hidden("headers for the collector, such as its token: `name=value` pairs, comma-separated"),
  OTLP_CA_FILE: setting(path, "certificate authority of the collector, PEM, in the place of the system's"),
  OTLP_INTERVAL_MS: defaulted("5000", whole(50, 60_000), "longest time that spans wait to be sent, ms"),
  TRACE_SAMPLE_PERCENT: defaulted("100", whole(0, 100), "how many of the traces that begin here are kept, percent; one that a caller's `traceparent` begins is kept as that says"),
  EGRESS_ALLOW: defaulted("", list, "ranges that connection tests, OAuth providers and webhooks may reach although they are not global, CIDR list; loopback only in development, link-local never"),
  EGRESS_NAT64: defaulted("", list, "IPv6 prefixes of the network's own NAT64, beside the well-known one: what they carry is judged by the IPv4 address inside"),
  EGRESS_PORTS_SFTP: setting(list, "the only ports that tests of SFTP may use; any where unset"),
  EGRESS_PORTS_POSTGRESQL: setting(list, "the only ports that tests of PostgreSQL may use; any where unset"),
  EGRESS_PORTS_AWS_SES: setting(list, "the only ports that tests of Amazon SES may use; any where unset; 443 is the API's, 587 and 465 are SMTP's"),
  TEST_DEADLINE_MS: defaulted("10000", whole(1_000, 14_000), "longest time of a connection test, ms"),
  TEST_MEMORY_MB: defaulted("256", whole(160, 4_096), "most memory of a connection test's process, MiB"),
  TESTS_PER_ORGANIZATION: defaulted("2", whole(1, 100), "connection tests of one organization at a time; more are refused at once"),
  TESTS_BURST: defaulted("30", whole(1, 10_000), "connection tests that an organization may run in a row before it has to wait"),
  TEST_REFILL_MS: defaulted("2000", whole(1, 3_600_000), "time in which an organization may run one more connection test, ms"),
  REFRESH_LEASE_MS: defaulted("30000", whole(1_000, 600_000), "for how long a renewal is one replica's alone, ms; above the provider's deadline"),
  REFRESH_PROVIDER_DEADLINE_MS: defaulted("10000", whole(100, 300_000), "longest time a provider may take to renew a token, ms"),
  REFRESH_SWEEP_MS: defaulted("2000", whole(50, 3_600_000), "pause between two looks for tokens that are due, ms"),
  REFRESH_CONCURRENCY: defaulted("20", whole(1, 1_000), "renewals of due tokens at one provider at a time, in each replica"),
  REFRESH_PER_SECOND: defaulted("20", whole(1, 10_000), "renewals of due tokens that are begun at one provider in a second, in each replica"),
  REFRESH_BACKOFF_MS: defaulted("2000", whole(10, 3_600_000), "pause after a renewal that failed, ms; doubled each time"),
  REFRESH_BACKOFF_MAX_MS: defaulted("900000", whole(10, 86_400_000), "longest such pause, ms"),
  REFRESH_BREAKER_FAILURES: defaulted("5", whole(1, 1_000), "failures in a row after which a provider is left alone"),
  REFRESH_BREAKER_MS: defaulted("5000", whole(10, 3_600_000), "for how long at first, ms; doubled while it is down, and at most five minutes"),
  WEBHOOK_URL: setting(url, "where events of credentials are posted, signed as Standard Webhooks; https in production"),
  WEBHOOK_SECRET: hidden("what they are signed with: `whsec_` and base64 of 24 to 64 random bytes; several, comma-separated, while one is replaced"),
  WEBHOOK_TIMEOUT_MS: defaulted("10000", whole(100, 60_000), "longest time a delivery may take, ms"),
  WEBHOOK_ATTEMPTS: defaulted("20", whole(1, 1_000), "how often a delivery is tried before it is given up; with the pauses between them about a day"),
  FAILPOINTS: setting(list, "development only: where a renewal is to `kill` or `stop` this process or to `error`, such as `after-send=kill`"),
  DATABASE_BACKGROUND_POOL_SIZE: defaulted("4", whole(1, 100), "connections for renewals and webhooks"),
  TESTS_TOTAL: defaulted("16", whole(1, 1_000), "connection tests at a time; more are refused at once"),
  CORS_ORIGINS: defaulted("", list.pipe(z.array(origin)), "exact origins that browsers may call REST from, comma-separated; none where empty"),
  PUBLIC_URL: setting(url, "where browsers reach REST, the base of the OAuth callback's URL: https, or http on loopback in development; the REST listen address where unset"),
  OAUTH_REDIRECTS: defaulted("", list, "where a browser may be sent after an authorization: URLs, comma-separated, of which each allows what its origin and whole path segments begin"),
  OAUTH_IN_PROGRESS_PER_USER: defaulted("20", whole(1, 1_000), "authorizations of one user in progress; the oldest gives way to one more"),
  GOOGLE_CLIENT_ID: setting(word, "the service's own OAuth client at Google; without one Google is not offered for authorization"),
  GOOGLE_CLIENT_SECRET: hidden("its secret"),
  GOOGLE_ISSUER: setting(url, "where Google's users sign in; `https://accounts.google.com` where unset, and nothing else in production; another OpenID provider has `/auth`, `/token` and `/jwks` below it"),
  MICROSOFT_CLIENT_ID: setting(word, "the service's own OAuth client at Microsoft, for SharePoint too; without one they are not offered for authorization"),
  MICROSOFT_CLIENT_SECRET: hidden("its secret"),
  MICROSOFT_TENANT: setting(word, "the tenant whose users sign in to it: GUID or domain; `organizations` where unset"),
  MICROSOFT_AUTHORITY: setting(url, "where Microsoft's users sign in; `https://login.microsoftonline.com` where unset, and in production that or the one of a national cloud: `https://login.microsoftonline.us`, `https://login.partner.microsoftonline.cn`"),
} as const satisfies Record<string, Setting<unknown>>;

/** Name of a setting, without the prefix. */
export type SettingName = keyof typeof SETTINGS;

type Parsed<N extends SettingName> = z.output<(typeof SETTINGS)[N]["schema"]>;

/** Names of the settings whose values are secrets. */
export type SecretName = { [N in SettingName]: (typeof SETTINGS)[N] extends { secret: true } ? N : never }[SettingName];

/** Value of a setting as parsed; undefined only where it has no default. */
export type SettingValue<N extends SettingName> = (typeof SETTINGS)[N] extends { default: string } ? Parsed<N> : Parsed<N> | undefined;

/** `GRPC_LISTEN` as a property name: `grpcListen`. */
export type CamelCase<S extends string> = S extends `${infer Head}_${infer Tail}` ? `${Lowercase<Head>}${Capitalize<CamelCase<Tail>>}` : Lowercase<S>;
