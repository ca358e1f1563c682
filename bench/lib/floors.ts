import { randomBytes, randomUUID } from "node:crypto";
import pg from "pg";
import { createAuthenticator } from "../../src/auth/authenticate.ts";
import { createJwtVerifier } from "../../src/auth/jwt.ts";
import { signDevelopmentToken } from "../../src/auth/development.ts";
import type { AuditEvent } from "../../src/domain/access.ts";
import { secret } from "../../src/domain/secret.ts";
import { createLog } from "../../src/log.ts";
import { parseDatabaseUrl } from "../../src/store/connection.ts";
import { openStore } from "../../src/store/open.ts";
import type { Store } from "../../src/store/store.ts";
import { type Sample, sampled } from "./load.ts";
import { median } from "./report.ts";
import type { BenchDatabase } from "./session.ts";

/** Connections of the pool that bare inserts go through, as many as the service's own pool has. */
const POOL = 10;
/** Bytes of a sealed secret like the ones that calls are about. */
const SEALED_BYTES = 330;
const IN_FLIGHT = 32;
const AUTHENTICATIONS = 100_000;

/** The store as the service opens it, in this process. */
export const openBenchStore = (url: string): Promise<Store> =>
  openStore({ url, prepared: true, poolSize: POOL, statementTimeoutMs: 60_000, resolveQueue: 4_096, resolveBatch: 256, log: createLog("warn") });

/** Bytes in the form of a sealed secret. */
export const sealedBytes = (): Buffer => Buffer.concat([Buffer.from([0xc5]), randomBytes(SEALED_BYTES - 1)]);

/** Inserts of single rows, each its own commit, by the bare driver, into a table with the columns, checks and indexes of credentials. */
export interface BareInserts extends AsyncDisposable {
  insert(): Promise<unknown>;
  /** One at a time for so many seconds, as a line of the table; what PostgreSQL used is not counted. */
  alone(seconds: number): Promise<Sample>;
}

/** Makes the table, which is nobody's, and connects to it. */
export async function bareInserts({ superuser, superuserUrl }: BenchDatabase): Promise<BareInserts> {
  await superuser.query("create schema if not exists bench; create table if not exists bench.credential (like public.credential including all)");
  const pool = new pg.Pool({ ...parseDatabaseUrl(superuserUrl), max: POOL });
  pool.on("error", () => {});
  const sealed = sealedBytes();
  const text = `insert into bench.credential (organization_id, id, provider, credential_type, user_id, sealed, created_at, updated_at, modified_by)
    values ($1, $2, 'sftp', 'user_password', $1, $3, now(), now(), 'system')`;
  const insert = () => pool.query({ name: "bench_insert", text, values: [randomUUID(), randomUUID(), sealed] });
  return {
    insert,
    async alone(seconds) {
      return sampled({ name: "insert", server: { cpuMicros: () => Number.NaN, rssMegabytes: () => Number.NaN } }, async () => {
        const [times, begun]: [number[], number] = [[], performance.now()];
        while (performance.now() < begun + seconds * 1_000) {
          const sent = performance.now();
          await insert();
          times.push(performance.now() - sent);
        }
        return { latenciesMs: Float64Array.from(times), errors: 0, seconds: (performance.now() - begun) / 1_000 };
      });
    },
    async [Symbol.asyncDispose]() {
      await pool.end();
    },
  };
}

/** Keeps 32 of something in flight; how many ended in a second. */
async function rateOf(seconds: number, work: () => Promise<unknown>): Promise<number> {
  const begun = performance.now();
  let ended = 0;
  const lane = async () => {
    for (; performance.now() < begun + seconds * 1_000; ended += 1) await work();
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, lane));
  return (ended * 1_000) / (performance.now() - begun);
}

/** The event of a call that is allowed. */
export const allowed = (organizationId: string, credentialId: string | null, action: AuditEvent["action"]): AuditEvent => ({
  organizationId, requestId: "01JD8Z3NDEKTSV4RRFFQ69G5FA", actorKind: "user", actorId: organizationId, action, outcome: "allowed", reason: null, credentialId, flowId: null, runId: null,
});

/** Creates a credential in the store as CreateCredential does: counted, announced, recorded. */
export async function createInStore(store: Store, organizationId: string, sealed: Buffer): Promise<void> {
  const id = randomUUID();
  const row = { organizationId, id, provider: "sftp", credentialType: "user_password", userId: organizationId, name: "name", accountEmail: null, tokenExpiresAt: null, modifiedBy: organizationId, sealed } as const;
  await store.credentials.create(row, { perProvider: 1_000_000, perUser: 1_000_000 }, allowed(organizationId, id, "create_credential"), new AbortController().signal);
}

/** Creations of the store in this process beside bare inserts, 32 in flight, a new organization for each; rates in a second, and the median of the rounds' ratios. */
export async function createBesideInserts(database: BenchDatabase, inserts: BareInserts, seconds: number, rounds: number): Promise<{ store: number; insert: number; ratio: number }> {
  const store = await openBenchStore(database.applicationUrl);
  const sealed = sealedBytes();
  const cell = seconds / (2 * rounds + 1);
  const [creations, bare]: [number[], number[]] = [[], []];
  const create = () => createInStore(store, randomUUID(), sealed);
  await rateOf(cell / 2, create);
  await rateOf(cell / 2, inserts.insert);
  for (let round = 0; round < rounds; round += 1) {
    creations.push(await rateOf(cell, create));
    bare.push(await rateOf(cell, inserts.insert));
  }
  await store.close();
  return { store: median(creations), insert: median(bare), ratio: median(creations.map((rate, round) => rate / (bare[round] as number))) };
}

/** The time to authenticate a token that was verified before, as a call does it, µs of this process: the median of the rounds. */
export async function warmAuthentication(rounds: number): Promise<number> {
  const key = secret(randomBytes(32).toString("base64url"));
  const [issuer, audience] = ["bench", "bench"];
  const jwt = createJwtVerifier({ secret: key, issuer, audience, claims: { organization: "organization_id", kind: "account_type", role: "role" }, clockSkewSeconds: 30 });
  const authenticator = createAuthenticator({ jwt, keys: { keyByPrefix: () => Promise.reject(new Error("no key is looked up")) }, cacheEntries: 10_000, apiKeyCacheSeconds: 10 });
  const presented = await Promise.all(
    Array.from({ length: 256 }, async () => {
      const token = await signDevelopmentToken({ secret: key, issuer, audience, subject: randomUUID(), organizationId: randomUUID(), kind: "service_account", expiresInSeconds: 3_600 });
      return { authorization: [`Bearer ${token}`], apiKey: [] };
    }),
  );
  const times: number[] = [];
  for (let round = 0; round <= rounds; round += 1) {
    const begun = performance.now();
    for (let call = 0; call < AUTHENTICATIONS; call += 1) {
      const identity = presented[call % presented.length] as (typeof presented)[number];
      if (authenticator.known(identity) === undefined) await authenticator.authenticate(identity);
    }
    if (round > 0) times.push(((performance.now() - begun) * 1_000) / AUTHENTICATIONS);
  }
  return median(times);
}
