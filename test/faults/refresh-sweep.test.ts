import { randomUUID } from "node:crypto";
import { afterEach, describe, expect, test } from "vitest";
import { type Fleet, NO_SWEEP, SHORT, startFleet } from "../support/fleet.ts";
import { rest, type Service, token } from "../support/service.ts";
import { startTokenEndpoint, type TokenEndpoint } from "../support/token-endpoint.ts";
import { startWebhookEndpoint, webhookSecret } from "../support/webhook-endpoint.ts";

const LONG = process.env["FLOW_TEST_LONG"] !== undefined;

const open: AsyncDisposable[] = [];
afterEach(async () => {
  while (open.length > 0) await open.pop()?.[Symbol.asyncDispose]();
});
async function setup(replicas: number, settings: Record<string, string>, dress: "strict" | "lenient" = "strict"): Promise<{ provider: TokenEndpoint; fleet: Fleet }> {
  const provider = await startTokenEndpoint(dress);
  open.push(provider);
  const fleet = await startFleet(replicas, { CREDENTIALS_GOOGLE_ISSUER: provider.issuer, ...settings });
  open.push(fleet);
  return { provider, fleet };
}

/** Most calls in any window of that length. */
function peak(times: readonly number[], windowMs: number): number {
  let [most, from] = [0, 0];
  for (let to = 0; to < times.length; to++) {
    while ((times[to] as number) - (times[from] as number) >= windowMs) from++;
    most = Math.max(most, to - from + 1);
  }
  return most;
}

describe("what is due, in three processes", () => {
  test("is renewed once each, at an even pace, although some do not open and one always fails", async () => {
    const [count, perSecond] = LONG ? [10_000, 20] : [120, 10];
    const { provider, fleet } = await setup(3, { CREDENTIALS_REFRESH_SWEEP_MS: "200", CREDENTIALS_REFRESH_PER_SECOND: String(perSecond), CREDENTIALS_REFRESH_BACKOFF_MS: "600000" });
    const grants = Array.from({ length: count }, () => provider.grant());
    const ids: string[] = [];
    for (let from = 0; from < count; from += 50) ids.push(...(await Promise.all(grants.slice(from, from + 50).map((grant, n) => fleet.post(grant, fleet.replicas[n % 3])))));
    // Poison: sealed bytes that were touched, a key version that does not exist, and a grant at which the provider falls over.
    const poison = ids.slice(0, 6);
    const failing = grants[6]?.refresh_token;
    await fleet.superuser.query("update credential set sealed = set_byte(sealed, 40, get_byte(sealed, 40) # 1) where id = any($1)", [poison.slice(0, 3)]);
    await fleet.superuser.query("update credential set sealed = set_byte(sealed, 6, 77) where id = any($1)", [poison.slice(3)]);
    provider.answer(({ refreshToken }) => (refreshToken === failing ? { status: 500, body: "oops" } : undefined));
    await fleet.superuser.query("update credential_refresh set due_at = now() - random() * interval '1 hour'");
    const good = ids.slice(7);
    await fleet.until("count(*) = $2 from credential where id = any($1) and secret_version = 2", [good, good.length]);
    await fleet.until("count(*) = 7 from credential where id = any($1) and status <> 'active'", [ids.slice(0, 7)]);
    const { rows } = await fleet.superuser.query("select status, status_reason, count(*)::integer as n from credential where id = any($1) group by 1, 2 order by 2", [ids.slice(0, 7)]);
    expect(rows.map(({ status, n }) => [status, n])).toEqual([["in_doubt", 1], ["refresh_failed", 6]]);
    expect(rows.map(({ status_reason: reason }) => reason)).toEqual(["provider_error", "secret_unreadable"]);
    // Strict rotation: a second call for any of them would have ended its grant, and nothing was called for the unreadable.
    expect(provider.calls.filter(({ refreshToken }) => refreshToken !== failing)).toHaveLength(good.length);
    expect(new Set(provider.calls.map(({ refreshToken }) => refreshToken)).size).toBe(good.length + 1);
    const times = provider.calls.map(({ at }) => at);
    // Over a minute and more the mean is that of the pace, and the peak is at most twice that.
    if (LONG) expect(peak(times, 1_000)).toBeLessThanOrEqual((2 * times.length * 1_000) / ((times.at(-1) ?? 0) - (times[0] ?? 0)));
    // Twice what the three begin in a second at the most: a process that was held up does not catch up in a burst.
    expect(peak(times, 1_000)).toBeLessThanOrEqual(2 * 3 * perSecond);
    expect(await fleet.faults()).toEqual([]);
  }, LONG ? 1_800_000 : 60_000);

  test("and cannot be begun keeps no other organization's waiting", async () => {
    const { provider, fleet } = await setup(1, { CREDENTIALS_REFRESH_SWEEP_MS: "3600000" }, "lenient");
    const [first] = fleet.replicas as [Service];
    const neighbour = await token("user", randomUUID());
    // One by itself, so that the trail has two links at least.
    const stuck = [await fleet.post(provider.grant())];
    stuck.push(...(await Promise.all(Array.from({ length: 19 }, () => fleet.post(provider.grant())))));
    const good = await Promise.all(Array.from({ length: 3 }, async () => (await rest(first, "POST", "/integrations/credentials", { token: neighbour, body: { provider: "google", credential_type: "oauth2", credentials: provider.grant() } })).json.id as string));
    // From now on the first organization's trail takes no record.
    await fleet.superuser.query("update audit_head set link = link - 1 where organization_id = $1", [fleet.organization]);
    for (const [ids, hours] of [[stuck, 2], [good, 1]] as const) await fleet.superuser.query("update credential_refresh set due_at = now() - $2 * interval '1 hour' where credential_id = any($1)", [ids, hours]);
    await fleet.start({ CREDENTIALS_REFRESH_SWEEP_MS: "200", CREDENTIALS_REFRESH_BACKOFF_MS: "600000" });
    await fleet.until("count(*) = 3 from credential where id = any($1) and secret_version = 2", [good]);
    // What was tried in vain is put off; what was not tried yet has its turn later.
    await fleet.until("bool_or(attempts > 0) from credential_refresh where credential_id = any($1)", [stuck]);
    const { rows } = await fleet.superuser.query("select max(fence)::integer as leases, bool_and(attempts = 0 or due_at > now()) as off from credential_refresh where credential_id = any($1)", [stuck]);
    expect(rows).toEqual([{ leases: 1, off: true }]);
    expect(provider.calls).toHaveLength(3);
  }, 60_000);

  test("that was cut off is found by the others, tried once more and told, without anybody asking for it", async () => {
    await using endpoint = await startWebhookEndpoint();
    const { provider, fleet } = await setup(1, { ...SHORT, ...NO_SWEEP, CREDENTIALS_WEBHOOK_URL: endpoint.url, CREDENTIALS_WEBHOOK_SECRET: webhookSecret() }, "strict");
    const [lucky, unlucky] = [await fleet.post(provider.grant()), await fleet.post(provider.grant())];
    for (const [id, at] of [[lucky, "before-call"], [unlucky, "after-reply"]] as const) {
      const victim = await fleet.start({ CREDENTIALS_FAILPOINTS: `${at}=kill` });
      await fleet.expire([id]);
      const exit = new Promise((resolve) => victim.process.once("exit", resolve));
      void fleet.resolve(victim, id);
      await exit;
    }
    await fleet.start({ CREDENTIALS_REFRESH_SWEEP_MS: "100" });
    await fleet.until("bool_and(lease_token is null and intent_version is null) from credential_refresh");
    expect(await fleet.status(lucky)).toMatchObject({ status: "active", status_reason: null });
    expect(await fleet.status(unlucky)).toMatchObject({ status: "reauth_required", status_reason: "rotation_in_doubt" });
    const told = (id: string) => endpoint.deliveries.map(({ body }) => JSON.parse(body).data).filter((data) => data.credential_id === id).map((data) => data.status);
    await endpoint.until(() => told(lucky).length + told(unlucky).length >= 6);
    expect([told(lucky), told(unlucky)]).toEqual([["active", "in_doubt", "active"], ["active", "in_doubt", "reauth_required"]]);
  }, 60_000);
});

describe("a process that is told to stop", () => {
  test("finishes the renewals it has begun, begins no more, leaves no lease, and exits with 0", async () => {
    const { provider, fleet } = await setup(1, { CREDENTIALS_REFRESH_SWEEP_MS: "50", CREDENTIALS_REFRESH_PER_SECOND: "1000", CREDENTIALS_REFRESH_CONCURRENCY: "10" });
    const ids = await Promise.all(Array.from({ length: 30 }, () => fleet.post(provider.grant())));
    const gate = provider.hold();
    await fleet.expire(ids);
    await provider.until(10);
    const [service] = fleet.replicas;
    const code = service?.stop();
    // It waits for the provider, as long as it may.
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(service?.process.exitCode).toBeNull();
    gate.release();
    expect(await code).toBe(0);
    const { rows } = await fleet.superuser.query("select count(*) filter (where c.secret_version = 2)::integer as renewed, count(r.lease_token)::integer as held, count(r.intent_version)::integer as open from credential c join credential_refresh r on r.credential_id = c.id");
    expect(rows).toEqual([{ renewed: 10, held: 0, open: 0 }]);
    expect(provider.calls).toHaveLength(10);
  }, 60_000);

  test("waits no longer for a provider than it may, leaves no lease, and says what is open", async () => {
    const { provider, fleet } = await setup(1, {
      CREDENTIALS_REFRESH_SWEEP_MS: "50", CREDENTIALS_SHUTDOWN_GRACE_MS: "300", CREDENTIALS_REFRESH_PROVIDER_DEADLINE_MS: "300000", CREDENTIALS_REFRESH_LEASE_MS: "600000",
    });
    const id = await fleet.post(provider.grant());
    provider.hold();
    await fleet.expire([id]);
    await provider.until(1);
    expect(await fleet.replicas[0]?.stop()).toBe(0);
    const { rows } = await fleet.superuser.query("select status, status_reason, lease_token, intent_version from credential c join credential_refresh r on r.credential_id = c.id");
    expect(rows).toEqual([{ status: "in_doubt", status_reason: "reply_lost", lease_token: null, intent_version: "1" }]);
  }, 60_000);
});
