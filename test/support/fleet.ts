import { randomUUID } from "node:crypto";
import type pg from "pg";
import { inject } from "vitest";
import { createCredentialClient } from "../../src/client/index.ts";
import { connect, freshDatabase } from "./postgres.ts";
import { rest, type Service, serviceEnv, startService, token } from "./service.ts";

/** Short times, so that what takes half a minute in production takes a second here. */
export const SHORT = {
  CREDENTIALS_REFRESH_LEASE_MS: "2000",
  CREDENTIALS_REFRESH_PROVIDER_DEADLINE_MS: "1000",
  CREDENTIALS_REFRESH_BACKOFF_MS: "50",
  CREDENTIALS_REFRESH_BACKOFF_MAX_MS: "400",
  CREDENTIALS_REFRESH_BREAKER_MS: "100",
} as const;

const ALWAYS = {
  CREDENTIALS_RATE_WRITES_PER_CALLER: "100000",
  CREDENTIALS_RATE_WRITES_PER_ORGANIZATION: "100000",
  CREDENTIALS_EGRESS_ALLOW: "127.0.0.0/8",
  CREDENTIALS_LIMIT_PER_PROVIDER: "1000000",
  CREDENTIALS_LIMIT_PER_USER: "1000000",
} as const;

/** A sweep that does not come during a test, so that the test decides who renews. */
export const NO_SWEEP = { CREDENTIALS_REFRESH_SWEEP_MS: "3600000" } as const;

/** What resolving gave: a token, or why not. */
export type Outcome = { readonly token: string; readonly scopes: readonly string[]; readonly expiresAt: Date | undefined } | { readonly reason: string };

/** The status of a credential as its owner sees it. */
export interface StatusView {
  readonly status: string;
  readonly status_reason: string | null;
  readonly updated_at: string;
  readonly modified_by: string;
  readonly etag: string;
}

/** Several service processes on one database of their own, `without` some settings, a user and an executor of one organization, and the keys to the database. */
export async function startFleet(size: number, extra: Record<string, string> = {}, without: readonly string[] = []) {
  const database = await freshDatabase();
  const env = Object.fromEntries(Object.entries(serviceEnv(database, { ...ALWAYS, ...extra })).filter(([name]) => !without.includes(name)));
  const organization = randomUUID();
  const [user, machine] = await Promise.all([token("user", organization, undefined, 7_200), token("service_account", organization, undefined, 7_200)]);
  const superuser: pg.Client & AsyncDisposable = await connect(database.superuserUrl);
  const started = new Set<Service>();
  const clients = new Map<Service, ReturnType<typeof createCredentialClient>>();

  async function start(more: Record<string, string> = {}): Promise<Service> {
    const service = await startService({ ...env, ...more });
    started.add(service);
    const client = createCredentialClient({ target: service.grpc, token: machine, tls: "insecure", retries: 0 });
    clients.set(service, client);
    service.process.once("exit", () => client.close());
    return service;
  }
  const first = await start();
  const replicas = [first, ...(await Promise.all(Array.from({ length: size - 1 }, () => start())))];

  return {
    database, superuser, organization, user, machine, replicas, start,
    /** Stores a grant of Google's as its owner would; gives its id. */
    async post(credentials: object, through: Service = first, provider = "google"): Promise<string> {
      const answer = await rest(through, "POST", "/integrations/credentials", { token: user, body: { provider, credential_type: "oauth2", credentials } });
      if (answer.status !== 201) throw new Error(`not created: ${answer.text}`);
      return answer.json.id as string;
    },
    /** Lets access tokens end in so many seconds, and be due now. */
    async expire(ids: readonly string[], inSeconds = -1): Promise<void> {
      await superuser.query("update credential set token_expires_at = now() + $2 * interval '1 second' where id = any($1)", [ids, inSeconds]);
      await superuser.query("update credential_refresh set due_at = now() where credential_id = any($1)", [ids]);
    },
    /** Resolves as an executor does. */
    async resolve(through: Service, credentialId: string): Promise<Outcome> {
      try {
        const { credentials } = await (clients.get(through) as ReturnType<typeof createCredentialClient>).resolveCredential({ credentialId });
        if (credentials?.$case !== "oauthToken") return { reason: credentials?.$case ?? "nothing" };
        const { accessToken, scopes, expiresAt } = credentials.value;
        return { token: accessToken, scopes, expiresAt };
      } catch (error) {
        return { reason: String((error as { reason?: unknown }).reason ?? error) };
      }
    },
    async status(id: string, through: Service = first): Promise<StatusView> {
      return (await rest(through, "GET", `/integrations/credentials/${id}`, { token: user })).json as StatusView;
    },
    /** Waits until the database says so; the test's own time limit bounds it. */
    async until(sql: string, values: readonly unknown[] = []): Promise<void> {
      while ((await superuser.query(`select (select ${sql}) as done`, [...values])).rows[0]?.done !== true) await new Promise((resolve) => setTimeout(resolve, 20));
    },
    /** Cuts every connection to the database and lets nobody connect, until it is disposed of. */
    async outage(): Promise<AsyncDisposable> {
      const server: pg.Client & AsyncDisposable = await connect(inject("postgres").superuserUrl);
      await server.query(`alter database ${database.name} with allow_connections false`);
      await server.query("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and application_name = 'flow-credentials' and usename = 'credentials_app'", [database.name]);
      return {
        async [Symbol.asyncDispose]() {
          await server.query(`alter database ${database.name} with allow_connections true`);
          await server.end();
        },
      };
    },
    /** Everything that must hold whatever happened: no lease that outlives its time, and events without gaps. */
    async faults(): Promise<string[]> {
      const { rows: held } = await superuser.query("select credential_id from credential_refresh where lease_until > now() + interval '1 minute'");
      const { rows: gaps } = await superuser.query("select organization_id from credential_event group by 1 having max(revision) <> count(*) or min(revision) <> 1");
      return [...held.map((row) => `held: ${row.credential_id}`), ...gaps.map((row) => `gap: ${row.organization_id}`)];
    },
    async [Symbol.asyncDispose]() {
      for (const client of clients.values()) client.close();
      await Promise.all([...started].map((service) => (service.process.exitCode === null && service.process.signalCode === null ? (service.process.kill("SIGCONT"), service.stop()) : undefined)));
      await superuser.end();
      await database[Symbol.asyncDispose]();
    },
  };
}

/** A running fleet. */
export type Fleet = Awaited<ReturnType<typeof startFleet>>;
