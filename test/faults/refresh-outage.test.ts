import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { FailpointName } from "../../src/domain/failpoint.ts";
import { type Fleet, NO_SWEEP, SHORT, startFleet } from "../support/fleet.ts";
import type { Service } from "../support/service.ts";
import { CLIENT, startTokenEndpoint, type TokenEndpoint } from "../support/token-endpoint.ts";

const LONG = process.env["FLOW_TEST_LONG"] !== undefined;
const ROUNDS = LONG ? 100 : 1;
const LIMIT_MS = LONG ? 1_800_000 : 60_000;

let provider: TokenEndpoint;
let fleet: Fleet;
let replica: Service;
beforeAll(async () => {
  provider = await startTokenEndpoint("strict");
  // No pauses between attempts, and a breaker that never opens: here the test asks, and each time something is tried.
  fleet = await startFleet(1, { ...NO_SWEEP, CREDENTIALS_GOOGLE_ISSUER: provider.issuer, CREDENTIALS_REFRESH_BACKOFF_MS: "10", CREDENTIALS_REFRESH_BACKOFF_MAX_MS: "10", CREDENTIALS_REFRESH_BREAKER_FAILURES: "1000" });
  replica = fleet.replicas[0] as Service;
});
afterAll(async () => {
  await fleet[Symbol.asyncDispose]();
  await provider[Symbol.asyncDispose]();
});
const sentOf = (grant: { refresh_token: string }) => provider.calls.filter(({ refreshToken }) => refreshToken === grant.refresh_token);

/** What the other replica says once it has found the database again. */
async function recovered(id: string) {
  for (;;) {
    const outcome = await fleet.resolve(replica, id);
    if (!("reason" in outcome) || !["AUDIT_UNAVAILABLE", "DATABASE_UNAVAILABLE"].includes(outcome.reason)) return outcome;
  }
}

/** Waits until a process is stopped (proc(5): state T). */
async function stopped({ process: { pid } }: Service): Promise<void> {
  while (!/\) T /.test(await readFile(`/proc/${pid}/stat`, "utf8"))) await new Promise((resolve) => setTimeout(resolve, 10));
}

describe("a database that is gone", () => {
  test.each(["before-call", "after-send", "after-reply", "before-commit", "after-commit"] satisfies FailpointName[])("%s, loses no token: it is stored from memory when the database is back", async (at) => {
    for (let round = 0; round < ROUNDS; round++) {
      const grant = provider.grant();
      const id = await fleet.post(grant);
      const victim = await fleet.start({ CREDENTIALS_FAILPOINTS: `${at}=stop` });
      await fleet.expire([id]);
      const answer = fleet.resolve(victim, id);
      await stopped(victim);
      {
        await using outage = await fleet.outage();
        void outage;
        victim.process.kill("SIGCONT");
        // It goes on without a database: asks the provider where it had not, and fails to store.
        while (sentOf(grant).length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
      const outcome = await answer;
      expect(provider.issued).toContain("token" in outcome ? outcome.token : outcome.reason);
      expect(await recovered(id)).toEqual(outcome);
      expect(sentOf(grant)).toHaveLength(1);
      expect(await fleet.status(id)).toMatchObject({ status: "active", status_reason: null });
      expect(await victim.stop()).toBe(0);
      expect(await fleet.faults()).toEqual([]);
    }
  }, LIMIT_MS);

  test("for longer than the leases last loses no token although another process takes them over first", async () => {
    const strict = await startTokenEndpoint("strict");
    await using other = await startFleet(2, { ...SHORT, CREDENTIALS_GOOGLE_ISSUER: strict.issuer, CREDENTIALS_REFRESH_SWEEP_MS: "100" });
    const ids = await Promise.all(Array.from({ length: 4 }, () => other.post(strict.grant())));
    const gate = strict.hold();
    await other.expire(ids);
    await strict.until(4);
    {
      await using outage = await other.outage();
      void outage;
      gate.release();
      await new Promise((resolve) => setTimeout(resolve, Number(SHORT.CREDENTIALS_REFRESH_LEASE_MS) + 500));
    }
    await other.until("bool_and(lease_token is null and intent_version is null and (due_at is null or due_at > now())) from credential_refresh");
    const { rows } = await other.superuser.query("select status, status_reason, secret_version from credential");
    expect(rows).toEqual(ids.map(() => ({ status: "active", status_reason: null, secret_version: "2" })));
    expect(strict.calls).toHaveLength(4);
    expect(await other.faults()).toEqual([]);
    await strict[Symbol.asyncDispose]();
  }, 60_000);

  test("while tokens are still good costs nobody a renewal", async () => {
    const grant = provider.grant();
    const id = await fleet.post(grant);
    {
      await using outage = await fleet.outage();
        void outage;
      expect(await fleet.resolve(replica, id)).toEqual({ reason: "AUDIT_UNAVAILABLE" });
    }
    expect(await recovered(id)).toMatchObject({ token: grant.access_token });
    expect(sentOf(grant)).toEqual([]);
    expect(await fleet.status(id)).toMatchObject({ status: "active" });
  });
});

describe("a provider that is down", () => {
  test("does not take away a token that is still good, and is told of one that is not; all is well when it is back", async () => {
    const [good, ended] = [provider.grant(), provider.grant()];
    const ids = [await fleet.post(good), await fleet.post(ended)];
    provider.answer(() => ({ status: 503, body: "<html>down</html>" }));
    await fleet.expire(ids.slice(0, 1), 30);
    await fleet.expire(ids.slice(1));
    expect(await fleet.resolve(replica, ids[0] as string)).toMatchObject({ token: good.access_token });
    expect(await fleet.resolve(replica, ids[1] as string)).toEqual({ reason: "TOKEN_NOT_RENEWED" });
    for (const id of ids) expect(await fleet.status(id)).toMatchObject({ status: "in_doubt", status_reason: "provider_error" });
    provider.answer(() => undefined);
    await fleet.expire(ids);
    for (const id of ids) {
      expect(await fleet.resolve(replica, id)).toMatchObject({ token: expect.stringContaining("access-") });
      expect(await fleet.status(id)).toMatchObject({ status: "active", status_reason: null, etag: "r1" });
    }
  });

  test("is left alone after some failures, and asked again by one when the time is over", async () => {
    const careful = await fleet.start({ CREDENTIALS_REFRESH_BREAKER_FAILURES: "3", CREDENTIALS_REFRESH_BREAKER_MS: "1500" });
    const ids: string[] = [];
    for (let n = 0; n < 12; n++) ids.push(await fleet.post(provider.grant()));
    provider.answer(() => ({ status: 500, body: { error: "server_error" } }));
    await fleet.expire(ids);
    const before = provider.calls.length;
    for (const id of ids) expect(await fleet.resolve(careful, id)).toEqual({ reason: "TOKEN_NOT_RENEWED" });
    // Who was not asked for is not blamed.
    const { rows } = await fleet.superuser.query("select status, count(*)::integer as n from credential where id = any($1) group by 1 order by 1", [ids]);
    expect(rows).toEqual([{ status: "active", n: 9 }, { status: "in_doubt", n: 3 }]);
    expect(provider.calls.length - before).toBe(3);
    provider.answer(() => undefined);
    await fleet.expire(ids);
    for (const id of ids) while ("reason" in (await fleet.resolve(careful, id)));
    expect(provider.calls.length - before).toBe(3 + 12);
  });

  test("for one client, or does not like what it is sent, is down for nobody else", async () => {
    const careful = await fleet.start({ CREDENTIALS_REFRESH_BREAKER_FAILURES: "2", CREDENTIALS_REFRESH_BREAKER_MS: "600000" });
    const [odd, throttled] = [provider.grant(), { ...provider.grant(), client_id: "another" }];
    const ids = [await fleet.post(odd), await fleet.post(throttled)];
    provider.answer(({ refreshToken }) => {
      if (refreshToken === odd.refresh_token) return { status: 400, body: { error: "invalid_scope" } };
      return refreshToken === throttled.refresh_token ? { status: 429, body: {}, headers: { "retry-after": "300" } } : undefined;
    });
    for (let round = 0; round < 3; round++) {
      await fleet.expire(ids);
      for (const id of ids) expect(await fleet.resolve(careful, id)).toEqual({ reason: "TOKEN_NOT_RENEWED" });
    }
    // The one goes on being asked for; the other's client is left alone.
    expect([sentOf(odd).length, sentOf(throttled).length]).toEqual([3, 1]);
    const id = await fleet.post(provider.grant());
    await fleet.expire([id]);
    expect(await fleet.resolve(careful, id)).toMatchObject({ token: expect.stringContaining("access-") });
    provider.answer(() => undefined);
  });

  test("and is back, is found out by whoever needs a token, however long the sweep is to leave it alone", async () => {
    const patient = await fleet.start({ CREDENTIALS_REFRESH_BACKOFF_MS: "900000", CREDENTIALS_REFRESH_BACKOFF_MAX_MS: "900000" });
    const grant = provider.grant();
    const id = await fleet.post(grant);
    provider.answer(() => ({ status: 429, body: {}, headers: { "retry-after": "3600" } }));
    const careful = await fleet.start({ CREDENTIALS_REFRESH_BREAKER_MS: "600000" });
    await fleet.expire([id]);
    expect(await fleet.resolve(careful, id)).toEqual({ reason: "TOKEN_NOT_RENEWED" });
    provider.answer(() => undefined);
    const before = async (ms: number) => fleet.superuser.query("update credential_refresh set tried_at = now() - $2 * interval '1 millisecond' where credential_id = $1", [id, ms]);
    // Not at once; not where the provider is left alone; but elsewhere and a little later.
    await before(1_000);
    expect(await fleet.resolve(patient, id)).toEqual({ reason: "TOKEN_NOT_RENEWED" });
    await before(10_000);
    expect(await fleet.resolve(careful, id)).toEqual({ reason: "TOKEN_NOT_RENEWED" });
    expect(sentOf(grant)).toHaveLength(1);
    expect(await fleet.resolve(patient, id)).toMatchObject({ token: expect.stringContaining("access-") });
    expect(await fleet.status(id)).toMatchObject({ status: "active", status_reason: null });
  });

  test.each(["strict", "lenient"] as const)("whose reply is lost leaves the credential in doubt, and one more attempt decides: %s", async (dress) => {
    await using endpoint = await startTokenEndpoint(dress);
    const service = await fleet.start({ CREDENTIALS_GOOGLE_ISSUER: endpoint.issuer });
    const id = await fleet.post(endpoint.grant());
    await fleet.expire([id]);
    endpoint.answer(({ index }) => (index === 0 ? "cut" : undefined));
    expect(await fleet.resolve(service, id)).toEqual({ reason: "TOKEN_NOT_RENEWED" });
    expect(await fleet.status(id)).toMatchObject({ status: "in_doubt", status_reason: "reply_lost" });
    expect([endpoint.calls.length, endpoint.issued.size]).toEqual([1, 1]);
    await fleet.expire([id]);
    const outcome = await fleet.resolve(service, id);
    const { status, status_reason: reason } = await fleet.status(id);
    expect(endpoint.calls).toHaveLength(2);
    if (dress === "lenient") expect([outcome, status, reason]).toEqual([expect.objectContaining({ token: [...endpoint.issued].at(-1) }), "active", null]);
    else expect([outcome, status, reason]).toEqual([{ reason: "REAUTHORIZATION_REQUIRED" }, "reauth_required", "rotation_in_doubt"]);
  });
});

describe("our own client", () => {
  test("that is refused, or missing in the settings, marks nobody: an operator is told, and a good token goes on", async () => {
    const { client_id: _, client_secret: __, ...ours } = provider.grant();
    const id = await fleet.post(ours);
    await fleet.superuser.query("update credential set oauth_origin = 'flow', renewable = true where id = $1", [id]);
    for (const settings of [{}, { CREDENTIALS_GOOGLE_CLIENT_ID: CLIENT.client_id, CREDENTIALS_GOOGLE_CLIENT_SECRET: "wrong" }]) {
      await using service = await fleet.start(settings as Record<string, string>);
      await fleet.expire([id], 30);
      expect(await fleet.resolve(service, id)).toMatchObject({ token: ours.access_token });
      await fleet.expire([id]);
      expect(await fleet.resolve(service, id)).toEqual({ reason: "TOKEN_NOT_RENEWED" });
      expect(await fleet.status(id)).toMatchObject({ status: "active", status_reason: null });
      expect(service.output()).toContain("refuses this service's own OAuth client");
      expect(await (await fetch(`${service.rest}/metrics`)).text()).toMatch(/credentials_refresh_total\{provider="google",outcome="our_client_rejected",cause="our_client_rejected"\} 2/);
    }
    await using service = await fleet.start({ CREDENTIALS_GOOGLE_CLIENT_ID: CLIENT.client_id, CREDENTIALS_GOOGLE_CLIENT_SECRET: CLIENT.client_secret });
    await fleet.expire([id]);
    expect(await fleet.resolve(service, id)).toMatchObject({ token: expect.stringContaining("access-") });
  }, 60_000);
});
