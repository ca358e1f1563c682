import type { Config } from "./config.ts";
import type { Envelope } from "./crypto/envelope.ts";
import { webhookSigner } from "./crypto/webhook-signature.ts";
import type { ProviderName } from "./domain/credential.ts";
import type { OauthIo } from "./domain/oauth.ts";
import { createDialer } from "./egress/dialer.ts";
import { createGuardedFetch, type GuardedFetch } from "./egress/fetch.ts";
import { createAddressPolicy } from "./egress/policy.ts";
import { Webhooks } from "./events/webhooks.ts";
import { parseFailpoints } from "./failpoints.ts";
import type { Log } from "./log.ts";
import type { Metrics } from "./metrics.ts";
import { createOauthAccess } from "./oauth-access.ts";
import { Grace } from "./process.ts";
import { refreshingProviders } from "./providers/index.ts";
import type { Store } from "./store/store.ts";
import { traced } from "./trace.ts";
import { Breaker } from "./vault/breaker.ts";
import { Refresher, type TokenRenewal } from "./vault/refresh.ts";
import { Sweep } from "./vault/refresh-sweep.ts";

/** What the service does by itself. */
export interface Background {
  readonly renewal: TokenRenewal;
  /** The way to a provider's own endpoints, with our client there, for one call. */
  oauthIo(provider: ProviderName, signal: AbortSignal): OauthIo;
  /** Begins nothing more by itself; renewals that callers wait for go on. The time for stopping runs from here. */
  quiesce(): Promise<void>;
  /** Finishes what is under way, within the time for stopping. */
  stop(): Promise<void>;
}

/** What it stands on. */
export interface BackgroundDeps {
  readonly config: Config;
  readonly store: Store;
  readonly envelope: Envelope;
  readonly log: Log;
  readonly metrics: Metrics;
}

/** The longest a provider is left alone, ms. */
const MAX_OPEN_MS = 300_000;

/** Starts the renewal of tokens and, where an endpoint is configured, the delivery of webhooks. Throws ConfigError and WebhookSecretError. */
export function startBackground({ config, store, envelope, log, metrics }: BackgroundDeps): Background {
  const { settings, secrets } = config;
  const failpoint = parseFailpoints(settings.failpoints ?? []);
  const goOut = guardedFetch(config);
  const access = createOauthAccess(config, goOut);
  const breaker = new Breaker({ failures: settings.refreshBreakerFailures, openMs: settings.refreshBreakerMs, maxOpenMs: MAX_OPEN_MS, now: () => performance.now() });
  const refresher = new Refresher({
    store, envelope, breaker, log, failpoint,
    request: access.request,
    clientOf: access.clientOf,
    endpoints: access.endpoints,
    observe: (provider, outcome, cause) => metrics.renewed(provider, outcome, cause),
    leaseMs: settings.refreshLeaseMs,
    providerDeadlineMs: settings.refreshProviderDeadlineMs,
    backoffMs: settings.refreshBackoffMs,
    maxBackoffMs: settings.refreshBackoffMaxMs,
  });
  const webhooks = startWebhooks(settings.webhookUrl, secrets.webhookSecret?.reveal());
  const sweep = new Sweep({
    store, refresher, log,
    providers: refreshingProviders,
    idleMs: settings.refreshSweepMs,
    concurrency: settings.refreshConcurrency,
    perSecond: settings.refreshPerSecond,
    leaseMs: settings.refreshLeaseMs,
  });
  const grace = new Grace(settings.shutdownGraceMs);
  const quiesce = async () => {
    grace.begin();
    await Promise.all([sweep.stop(), webhooks?.stop()]);
  };
  return {
    renewal: refresher,
    oauthIo: (provider, signal) => access.io(provider, signal, settings.refreshProviderDeadlineMs),
    quiesce,
    async stop() {
      await quiesce();
      // Calls in flight had the same time to end, and much of it may be gone.
      await refresher.close(grace.leftMs);
    },
  };

  function startWebhooks(url: string | undefined, secret: string | undefined): Webhooks | undefined {
    if (url === undefined || secret === undefined) return undefined;
    return new Webhooks({
      outbox: store.outbox,
      signer: webhookSigner(secret),
      post: (headers, body, signal) => traced("POST webhook", "client", () => goOut({ url, method: "POST", headers, body, signal })),
      log,
      observe: (outcome) => metrics.delivered(outcome),
      timeoutMs: settings.webhookTimeoutMs,
      attempts: settings.webhookAttempts,
    });
  }
}

/** The guarded way out to endpoints that operators or providers name. */
function guardedFetch({ settings }: Config): GuardedFetch {
  const policy = createAddressPolicy({ profile: settings.profile, allow: settings.egressAllow, nat64: settings.egressNat64 });
  return createGuardedFetch({
    dialer: createDialer({ policy }),
    development: settings.profile === "development",
    totalMs: Math.max(settings.refreshProviderDeadlineMs, settings.webhookTimeoutMs),
  });
}
