import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { canary } from "../support/canary.ts";
import { type Fleet, NO_SWEEP, startFleet } from "../support/fleet.ts";
import type { Service } from "../support/service.ts";
import { CLIENT, type Odd, startTokenEndpoint, type TokenEndpoint } from "../support/token-endpoint.ts";

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

describe("a gateway's error", () => {
  test.each([[502, true], [504, true], [408, true], [429, false], [400, false]] as const)("%d leaves open whether the token was replaced: %s", async (status, open) => {
    const grant = provider.grant();
    const id = await fleet.post(grant);
    provider.answer(({ refreshToken }) => (refreshToken === grant.refresh_token ? { status, body: "<html>" } : undefined));
    await fleet.expire([id]);
    expect(await fleet.resolve(replica, id)).toEqual({ reason: "TOKEN_NOT_RENEWED" });
    expect((await fleet.status(id)).status).toBe(open ? "in_doubt" : "refresh_failed");
    // What is refused then may be the first of the two uses of a token that was replaced.
    provider.answer(({ refreshToken }) => (refreshToken === grant.refresh_token ? { status: 400, body: { error: "invalid_grant" } } : undefined));
    await fleet.expire([id]);
    expect(await fleet.resolve(replica, id)).toEqual({ reason: "REAUTHORIZATION_REQUIRED" });
    expect(await fleet.status(id)).toMatchObject({ status: "reauth_required", status_reason: open ? "rotation_in_doubt" : "invalid_grant" });
    provider.answer(() => undefined);
  });

  test("is no doubt where nothing could be sent", async () => {
    await using unreachable = await fleet.start({ CREDENTIALS_GOOGLE_ISSUER: "http://127.0.0.1:1" });
    const id = await fleet.post(provider.grant());
    await fleet.expire([id]);
    expect(await fleet.resolve(unreachable, id)).toEqual({ reason: "TOKEN_NOT_RENEWED" });
    expect(await fleet.status(id)).toMatchObject({ status: "refresh_failed", status_reason: "provider_unreachable" });
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

  test("are no others because the provider calls them by other names", async () => {
    const grant = provider.grant("openid email Files.Read offline_access");
    const id = await fleet.post(grant);
    provider.answer(() => ({ status: 200, body: { access_token: "access-named", expires_in: 3600, scope: "openid https://www.googleapis.com/auth/userinfo.email https://api.example/Files.Read" } }));
    for (let round = 0; round < 2; round++) {
      await fleet.expire([id]);
      expect(await fleet.resolve(replica, id)).toMatchObject({ token: "access-named" });
      expect(await fleet.status(id)).toMatchObject({ status: "active", status_reason: null });
    }
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
