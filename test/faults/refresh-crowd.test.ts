import { randomUUID } from "node:crypto";
import { afterEach, expect, test } from "vitest";
import { createCredentialClient } from "../../src/client/index.ts";
import { type Fleet, NO_SWEEP, startFleet } from "../support/fleet.ts";
import { connect } from "../support/postgres.ts";
import { rest, type Service, token } from "../support/service.ts";
import { startTokenEndpoint, type TokenEndpoint } from "../support/token-endpoint.ts";

const open: AsyncDisposable[] = [];
afterEach(async () => {
  while (open.length > 0) await open.pop()?.[Symbol.asyncDispose]();
});
async function setup(settings: Record<string, string>): Promise<{ provider: TokenEndpoint; fleet: Fleet; replica: Service }> {
  const provider = await startTokenEndpoint("lenient");
  open.push(provider);
  const fleet = await startFleet(1, { CREDENTIALS_GOOGLE_ISSUER: provider.issuer, ...settings });
  open.push(fleet);
  return { provider, fleet, replica: fleet.replicas[0] as Service };
}

test("more expired tokens at once than there are connections and places in front of them are waited for, not refused", async () => {
  const { provider, fleet, replica } = await setup({ ...NO_SWEEP, CREDENTIALS_DATABASE_BACKGROUND_POOL_SIZE: "2" });
  const ids: string[] = [];
  for (let n = 0; n < 100; n += 20) ids.push(...(await Promise.all(Array.from({ length: 20 }, () => fleet.post(provider.grant())))));
  await fleet.expire(ids);
  const outcomes = await Promise.all(ids.map((id) => fleet.resolve(replica, id)));
  expect(outcomes.flatMap((outcome) => ("token" in outcome ? [] : [outcome.reason]))).toEqual([]);
  expect(provider.calls).toHaveLength(100);
}, 60_000);

test("an organization whose rows are locked keeps no other one's token from being renewed", async () => {
  const { provider, fleet, replica } = await setup({ CREDENTIALS_REFRESH_SWEEP_MS: "100" });
  const stuck = await Promise.all(Array.from({ length: 40 }, () => fleet.post(provider.grant())));
  const neighbour = randomUUID();
  const { json: other } = await rest(replica, "POST", "/integrations/credentials", { token: await token("user", neighbour), body: { provider: "google", credential_type: "oauth2", credentials: provider.grant() } });
  await using client = createCredentialClient({ target: replica.grpc, token: await token("service_account", neighbour), tls: "insecure", retries: 0 });
  await using locker = await connect(fleet.database.superuserUrl);
  await locker.query("begin");
  await locker.query("select from audit_head where organization_id = $1 for update", [fleet.organization]);
  await fleet.expire(stuck, 3_600);
  await fleet.until("count(*) >= 2 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'");
  await fleet.expire([other.id]);
  for (let n = 0; n < 3; n++) {
    const { credentials } = await client.resolveCredential({ credentialId: other.id });
    expect(credentials?.$case === "oauthToken" && provider.issued.has(credentials.value.accessToken)).toBe(true);
    await fleet.expire([other.id]);
  }
  await locker.query("rollback");
}, 60_000);
