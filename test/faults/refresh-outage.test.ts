import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { FailpointName } from "../../src/domain/failpoint.ts";
import { canary } from "../support/canary.ts";
import { type Fleet, NO_SWEEP, startFleet } from "../support/fleet.ts";
import type { Service } from "../support/service.ts";
import { CLIENT, type Odd, startTokenEndpoint, type TokenEndpoint } from "../support/token-endpoint.ts";

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
    for (const id of ids) expect((await fleet.status(id)).status).toBe("refresh_failed");
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
    expect(rows).toEqual([{ status: "active", n: 9 }, { status: "refresh_failed", n: 3 }]);
    expect(provider.calls.length - before).toBe(3);
    provider.answer(() => undefined);
    await fleet.expire(ids);
    for (const id of ids) while ("reason" in (await fleet.resolve(careful, id)));
    expect(provider.calls.length - before).toBe(3 + 12);
  });

  test("whose reply is lost leaves the credential in doubt, and one more attempt decides", async () => {
    const grant = provider.grant();
    const id = await fleet.post(grant);
    await fleet.expire([id]);
    const index = provider.calls.length;
    // It rotates, and the connection breaks before the reply.
    provider.answer((call) => (call.index === index ? "cut" : undefined));
    expect(await fleet.resolve(replica, id)).toEqual({ reason: "TOKEN_NOT_RENEWED" });
    expect(await fleet.status(id)).toMatchObject({ status: "in_doubt", status_reason: "reply_lost" });
    await fleet.expire([id]);
    expect(await fleet.resolve(replica, id)).toMatchObject({ token: expect.stringContaining("access-") });
    expect(await fleet.status(id)).toMatchObject({ status: "active", status_reason: null });
  });
});

describe("what a provider refuses", () => {
  test("is told with its cause, and not asked again", async () => {
    const grant = provider.grant();
    const id = await fleet.post(grant);
    provider.answer(({ refreshToken }) => (refreshToken === grant.refresh_token ? { status: 400, body: { error: "invalid_grant", error_description: "revoked" } } : undefined));
    await fleet.expire([id]);
    for (let n = 0; n < 3; n++) expect(await fleet.resolve(replica, id)).toEqual({ reason: "REAUTHORIZATION_REQUIRED" });
    expect(sentOf(grant)).toHaveLength(1);
    expect(await fleet.status(id)).toMatchObject({ status: "reauth_required", status_reason: "invalid_grant" });
  });

  test("because the caller's own client is wrong, is the caller's to mend", async () => {
    const id = await fleet.post({ ...provider.grant(), client_secret: "wrong" });
    await fleet.expire([id]);
    expect(await fleet.resolve(replica, id)).toEqual({ reason: "REAUTHORIZATION_REQUIRED" });
    expect(await fleet.status(id)).toMatchObject({ status: "reauth_required", status_reason: "client_rejected" });
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

describe("fewer scopes than were granted", () => {
  test("are handed out as they are, flagged until all are back, and told", async () => {
    const grant = provider.grant("openid a b");
    const id = await fleet.post(grant);
    const renew = async (scope: string): Promise<readonly string[]> => {
      provider.answer(() => ({ status: 200, body: { access_token: `access-${scope.length}`, expires_in: 3600, scope } }));
      await fleet.expire([id]);
      const outcome = await fleet.resolve(replica, id);
      return "token" in outcome ? outcome.scopes : [outcome.reason];
    };
    expect(await renew("openid a")).toEqual(["openid", "a"]);
    expect(await fleet.status(id)).toMatchObject({ status: "active", status_reason: "scopes_reduced" });
    expect(await renew("a openid")).toEqual(["a", "openid"]);
    expect((await fleet.status(id)).status_reason).toBe("scopes_reduced");
    expect(await renew("openid a b c")).toEqual(["openid", "a", "b", "c"]);
    expect(await fleet.status(id)).toMatchObject({ status: "active", status_reason: null });
    provider.answer(() => undefined);
  });
});

describe("an odd reply", () => {
  const token = (more: object): Odd => ({ status: 200, body: { access_token: "access-odd", token_type: "Bearer", ...more } });

  test.each([["0", 0], ["negative", -5], ["text", "3600"], ["words", "soon"], ["huge", 10 ** 12], ["missing", undefined]])("with an expires_in that is %s is taken, with an end between a minute and a day, and asked for once", async (_, lifetime) => {
    const grant = provider.grant();
    const id = await fleet.post(grant);
    provider.answer(() => token({ expires_in: lifetime }));
    await fleet.expire([id]);
    for (let n = 0; n < 3; n++) expect(await fleet.resolve(replica, id)).toMatchObject({ token: "access-odd" });
    const { rows } = await fleet.superuser.query("select extract(epoch from token_expires_at - now())::float8 as ends_in from credential where id = $1", [id]);
    expect(rows[0].ends_in).toBeGreaterThan(30);
    expect(rows[0].ends_in).toBeLessThanOrEqual(86_400);
    expect(sentOf(grant)).toHaveLength(1);
    provider.answer(() => undefined);
  });

  test.each([
    ["HTML with status 200", (secret: string): Odd => ({ status: 200, body: `<html>${secret}</html>` })],
    ["ten megabytes", (secret: string): Odd => ({ status: 200, body: secret.repeat(400_000) })],
    ["an error that quotes what was sent", (secret: string): Odd => ({ status: 500, body: { error: secret, error_description: secret } })],
    ["JSON that is no object", (secret: string): Odd => ({ status: 200, body: JSON.stringify([secret]) })],
    ["no token", (secret: string): Odd => ({ status: 200, body: { note: secret } })],
    ["a redirect", (secret: string): Odd => ({ status: 302, body: secret, headers: { location: `${provider.issuer}/elsewhere` } })],
  ])("such as %s is bounded, kept to itself, and overcome", async (_, reply) => {
    const grant = { ...provider.grant(), refresh_token: canary("refresh") };
    const id = await fleet.post(grant);
    provider.answer(() => reply(grant.refresh_token));
    await fleet.expire([id]);
    const outcome = await fleet.resolve(replica, id);
    expect(outcome).toEqual({ reason: "TOKEN_NOT_RENEWED" });
    const status = await fleet.status(id);
    expect(["refresh_failed", "in_doubt"]).toContain(status.status);
    provider.answer(() => token({ expires_in: 3600 }));
    await fleet.expire([id]);
    expect(await fleet.resolve(replica, id)).toMatchObject({ token: "access-odd" });
    expect(await fleet.status(id)).toMatchObject({ status: "active", status_reason: null });
    for (const hidden of [grant.refresh_token, CLIENT.client_secret]) expect(JSON.stringify([status, outcome]) + replica.output()).not.toContain(hidden);
    const { rows } = await fleet.superuser.query("select coalesce(string_agg(e::text, ''), '') || (select string_agg(a::text, '') from audit_event a) as all from credential_event e");
    expect(rows[0].all).not.toContain(grant.refresh_token);
    provider.answer(() => undefined);
  });
});
