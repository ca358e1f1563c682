import { randomUUID } from "node:crypto";
import { describe, expect, test } from "vitest";
import { createCredentialClient } from "../../src/client/index.ts";
import { connect, freshDatabase } from "../support/postgres.ts";
import { pgbouncerAvailable, startPgbouncer } from "../support/pgbouncer.ts";
import { rest, serviceEnv, startService, token } from "../support/service.ts";
import { watch } from "../support/watching.ts";

const LONG = process.env["FLOW_TEST_LONG"] !== undefined;
const REQUESTS = LONG ? 10_000 : 1_500;
const TENANTS = 64;
const LANES = 64;

describe.runIf(pgbouncerAvailable())("behind pgbouncer in transaction mode", () => {
  test(`${TENANTS} tenants whose ${REQUESTS} requests interleave on a few server connections never see each other`, async () => {
    await using database = await freshDatabase();
    await using bouncer = await startPgbouncer(database.applicationUrl, 4);
    const env = { ...serviceEnv(database), CREDENTIALS_DATABASE_URL: bouncer.url, CREDENTIALS_DATABASE_PREPARED: "off" };
    await using service = await startService(env);
    const tenants = await Promise.all(
      Array.from({ length: TENANTS }, async () => {
        const organizationId = randomUUID();
        const [user, machine] = await Promise.all([token("user", organizationId), token("service_account", organizationId)]);
        const secret = `secret-of-${organizationId}`;
        const body = { provider: "sftp", credential_type: "user_password", credentials: { host: "h.example", username: organizationId, password: secret } };
        const { json } = await rest(service, "POST", "/integrations/credentials", { token: user, body });
        return { organizationId, user, machine, secret, credentialId: json.id as string, client: createCredentialClient({ target: service.grpc, token: machine, tls: "insecure" }) };
      }),
    );
    const wrong: string[] = [];
    const served = { resolve: 0, list: 0, get: 0, foreign: 0 };
    let next = 0;
    const lane = async () => {
      for (let n = next++; n < REQUESTS; n = next++) {
        const own = tenants[n % TENANTS] as (typeof tenants)[number];
        const other = tenants[(n * 7 + 1) % TENANTS] as (typeof tenants)[number];
        const kind = n % 10;
        if (kind < 6) {
          const { credentials } = await own.client.resolveCredential({ credentialId: own.credentialId });
          const value = credentials?.$case === "sftpPassword" ? credentials.value : undefined;
          if (value?.password !== own.secret || value.username !== own.organizationId) wrong.push("a secret of somebody else");
          served.resolve++;
        } else if (kind === 6) {
          const { json } = await rest(service, "GET", "/integrations/credentials", { token: own.user });
          if (json.length !== 1 || json[0].id !== own.credentialId) wrong.push("a list of somebody else");
          served.list++;
        } else if (kind === 7) {
          const { json } = await rest(service, "GET", `/integrations/credentials/${own.credentialId}`, { token: own.user });
          if (json.id !== own.credentialId) wrong.push("a credential of somebody else");
          served.get++;
        } else if (own !== other) {
          const reason = await own.client.resolveCredential({ credentialId: other.credentialId }).then(() => "OK", (error: { reason?: string }) => error.reason);
          if (reason !== "CREDENTIAL_NOT_FOUND") wrong.push(`another tenant's credential: ${reason}`);
          served.foreign++;
        }
      }
    };
    await Promise.all(Array.from({ length: LANES }, lane));
    for (const { client } of tenants) client.close();
    expect(wrong).toEqual([]);
    expect(Math.min(...Object.values(served))).toBeGreaterThan(REQUESTS / 20);
    // Watching needs no session either: everyone is told of their own.
    const watches = tenants.map((tenant) => ({ ...tenant, watch: watch(service.grpc, tenant.machine) }));
    await Promise.all(watches.map(({ watch: each }) => each.bookmarked()));
    await Promise.all(watches.map(({ user, credentialId }) => rest(service, "DELETE", `/integrations/credentials/${credentialId}`, { token: user })));
    await Promise.all(watches.map(({ watch: each }) => each.until(({ events }) => events().length > 0)));
    for (const { watch: each, credentialId } of watches) {
      expect(each.events().map((event) => event.credentialId)).toEqual([credentialId]);
      each.cancel();
    }
    // The pool was really shared: far fewer server connections than callers.
    await using superuser = await connect(database.superuserUrl);
    const { rows } = await superuser.query("select count(*)::integer as n from pg_stat_activity where datname = current_database() and usename = 'credentials_app'");
    expect(rows[0].n).toBeLessThanOrEqual(4);
    // A connection that pgbouncer keeps remembers no organization.
    await using raw = await connect(bouncer.url);
    for (let n = 0; n < 20; n++) expect((await raw.query("select * from credential")).rows).toEqual([]);
  }, LONG ? 600_000 : 120_000);
});
