import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Client, credentials, Metadata } from "@grpc/grpc-js";
import { ulid } from "ulid";
import { expect, test } from "vitest";
import { ResolveCredentialRequest } from "../../gen/flow/credentials/v1/credential_service.ts";
import { chainFaults } from "../support/invariants.ts";
import { connect, freshDatabase } from "../support/postgres.ts";
import { rest, serviceEnv, type Service, startService, token } from "../support/service.ts";

const LONG = process.env["FLOW_TEST_LONG"] !== undefined;
const CALLS = LONG ? 10_000 : 600;
const KILLS = LONG ? 25 : 3;
const LANES = 16;
const SFTP = { provider: "sftp", credential_type: "user_password", credentials: { host: "sftp.example.com", username: "u", password: "p" } };
const { provider: _, ...CHANGE } = SFTP;

/** A replica that is killed now and then, and started again. */
class Mortal {
  service: Service;
  client: Client;
  readonly #env: Record<string, string>;

  private constructor(service: Service, env: Record<string, string>) {
    this.service = service;
    this.client = new Client(service.grpc, credentials.createInsecure());
    this.#env = env;
  }

  static async start(env: Record<string, string>): Promise<Mortal> {
    return new Mortal(await startService(env), env);
  }

  async die(): Promise<void> {
    await this.service.stop("SIGKILL");
    const [before, service] = [this.client, await startService(this.#env)];
    [this.service, this.client] = [service, new Client(service.grpc, credentials.createInsecure())];
    before.close();
  }

  async end(): Promise<void> {
    this.client.close();
    await this.service.stop();
  }
}

test(`${CALLS} mixed calls while replicas are killed: every secret that left has a committed record, and nothing is torn`, async () => {
  await using database = await freshDatabase();
  const env = serviceEnv(database, { CREDENTIALS_RATE_WRITES_PER_CALLER: "10000", CREDENTIALS_RATE_WRITES_PER_ORGANIZATION: "10000", CREDENTIALS_LIMIT_PER_PROVIDER: "1000000", CREDENTIALS_LIMIT_PER_USER: "1000000" });
  const replicas = [await Mortal.start(env), await Mortal.start(env)] as const;
  const organizationId = randomUUID();
  const [user, machine] = await Promise.all([token("user", organizationId, randomUUID(), 3_600), token("service_account", organizationId, randomUUID(), 3_600)]);
  const released: string[] = [];
  const created = new Map<string, string>();
  const ids: string[] = [];
  const first = await rest(replicas[0].service, "POST", "/integrations/credentials", { token: user, body: SFTP });
  ids.push(first.json.id);

  const resolve = (replica: Mortal, credentialId: string): Promise<void> => {
    const requestId = ulid();
    const metadata = new Metadata();
    metadata.set("authorization", `Bearer ${machine}`);
    metadata.set("x-request-id", requestId);
    return new Promise((done) => {
      const request = Buffer.from(ResolveCredentialRequest.encode({ credentialId }).finish());
      replica.client.makeUnaryRequest("/flow.credentials.v1.CredentialService/ResolveCredential", (it: Buffer) => it, (it: Buffer) => it, request, metadata, { deadline: Date.now() + 5_000 }, (error) => {
        if (error === null) released.push(requestId);
        // A replica that is dead refuses at once, and would use up all the calls.
        setTimeout(done, error === null ? 0 : 20);
      });
    });
  };
  const turn = { next: 0 };
  const lane = async () => {
    for (let n = turn.next++; n < CALLS; n = turn.next++) {
      const replica = replicas[n % 2] as Mortal;
      const id = ids[n % ids.length] as string;
      const call = (method: string, path: string, body?: unknown, key?: string) =>
        rest(replica.service, method, path, { token: user, ...(body === undefined ? {} : { body }), ...(key === undefined ? {} : { headers: { "idempotency-key": key } }) }).catch(() => undefined);
      if (n % 10 < 7) await resolve(replica, id);
      else if (n % 10 === 7) {
        // Tried on both replicas under one key: whatever becomes of the first, there is one credential.
        const key = randomUUID();
        await call("POST", "/integrations/credentials", SFTP, key);
        const again = await rest((replicas[(n + 1) % 2] as Mortal).service, "POST", "/integrations/credentials", { token: user, body: SFTP, headers: { "idempotency-key": key } }).catch(() => undefined);
        if (again?.status === 201) {
          created.set(key, again.json.id);
          ids.push(again.json.id);
        }
      } else if (n % 10 === 8) await call("PATCH", `/integrations/credentials/${id}`, { ...CHANGE, keep_previous_seconds: 600 });
      else await call("GET", `/integrations/credentials/${id}`);
    }
  };
  const killer = async () => {
    for (let kill = 0; kill < KILLS; kill++) {
      await sleep(200 + Math.random() * 600);
      if (turn.next >= CALLS) return;
      await (replicas[kill % 2] as Mortal).die();
    }
  };
  await Promise.all([...Array.from({ length: LANES }, lane), killer()]);

  await using superuser = await connect(database.superuserUrl);
  const { rows: records } = await superuser.query("select request_id from audit_event where organization_id = $1 and action = 'resolve_credential' and outcome = 'allowed'", [organizationId]);
  const recorded = new Set(records.map(({ request_id }) => request_id as string));
  expect(released.length).toBeGreaterThan(CALLS / 10);
  expect(released.filter((requestId) => !recorded.has(requestId))).toEqual([]);

  // The chain is whole, every key stands for one effect, the counters tell the truth, and every live secret opens.
  expect(await chainFaults(async (sql, values = []) => (await superuser.query(sql, [...values])).rows, organizationId)).toEqual([]);
  const { rows: live } = await superuser.query("select id from credential where organization_id = $1 and deleted_at is null", [organizationId]);
  const { rows: keys } = await superuser.query("select answer ->> 'id' as id from idempotency_record where organization_id = $1", [organizationId]);
  const made = new Set(keys.map(({ id }) => id as string));
  expect([...created.values()].filter((id) => !made.has(id))).toEqual([]);
  // Every credential but the first was made under a key, each under its own.
  expect(live).toHaveLength(made.size + 1);
  const { rows: counters } = await superuser.query("select n from credential_counter where organization_id = $1", [organizationId]);
  expect(counters.map(({ n }) => n)).toEqual([live.length, live.length]);
  const before = released.length;
  await Promise.all(live.map(({ id }) => resolve(replicas[0], id)));
  expect(released.length - before).toBe(live.length);
  await Promise.all(replicas.map((replica) => replica.end()));
}, LONG ? 900_000 : 120_000);
