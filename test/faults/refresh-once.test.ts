import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { connect } from "../support/postgres.ts";
import { rest, type Service } from "../support/service.ts";
import { type Fleet, NO_SWEEP, type Outcome, startFleet } from "../support/fleet.ts";
import { OIDC_CLIENT, startOidc } from "../support/oidc.ts";
import { startTokenEndpoint, type TokenEndpoint } from "../support/token-endpoint.ts";

const LONG = process.env["FLOW_TEST_LONG"] !== undefined;

let provider: TokenEndpoint;
let fleet: Fleet;
beforeAll(async () => {
  provider = await startTokenEndpoint("strict");
  fleet = await startFleet(3, { CREDENTIALS_GOOGLE_ISSUER: provider.issuer, ...NO_SWEEP });
});
afterAll(async () => {
  await fleet[Symbol.asyncDispose]();
  await provider[Symbol.asyncDispose]();
});

const replica = (n: number): Service => fleet.replicas[n] as Service;
const tokens = (outcomes: readonly Outcome[]): string[] => outcomes.map((outcome) => ("token" in outcome ? outcome.token : `refused: ${outcome.reason}`));
const everywhere = (id: string, each: number): Promise<Outcome[]> => Promise.all(fleet.replicas.flatMap((replica) => Array.from({ length: each }, () => fleet.resolve(replica, id))));

describe("an expired token", () => {
  test("is renewed once for 150 who resolve it through three processes, whatever rotation the provider insists on, round after round", async () => {
    const [rounds, each] = LONG ? [200, 50] : [3, 50];
    const id = await fleet.post(provider.grant());
    for (let round = 0; round < rounds; round++) {
      const before = provider.calls.length;
      await fleet.expire([id]);
      const outcomes = tokens(await everywhere(id, each));
      expect(new Set(outcomes).size, JSON.stringify([...new Set(outcomes)])).toBe(1);
      expect(provider.issued).toContain(outcomes[0]);
      expect(outcomes).toHaveLength(3 * each);
      expect(provider.calls.length - before).toBe(1);
    }
    expect(await fleet.status(id)).toMatchObject({ status: "active", status_reason: null, etag: "r1" });
    expect(await fleet.faults()).toEqual([]);
  }, LONG ? 600_000 : 60_000);

  test("is renewed once at a certified OpenID provider that ends a grant when a token comes twice, and works there", async () => {
    await using oidc = await startOidc({ dress: "strict" });
    await using other = await startFleet(3, { CREDENTIALS_GOOGLE_ISSUER: oidc.issuer, ...NO_SWEEP });
    const { accessToken, refreshToken } = await oidc.grant("user-7");
    const id = await other.post({ access_token: accessToken, refresh_token: refreshToken, expires_in: 3600, client_id: OIDC_CLIENT.id, client_secret: OIDC_CLIENT.secret });
    for (let round = 0; round < (LONG ? 200 : 3); round++) {
      const before = oidc.calls("refresh_token");
      await other.expire([id]);
      const outcomes = tokens(await Promise.all(other.replicas.flatMap((one) => Array.from({ length: 50 }, () => other.resolve(one, id)))));
      expect([outcomes.length, new Set(outcomes).size], JSON.stringify([...new Set(outcomes)])).toEqual([150, 1]);
      expect(await oidc.subjectOf(outcomes[0] as string)).toBe("user-7");
      expect(oidc.calls("refresh_token") - before).toBe(1);
    }
  }, LONG ? 600_000 : 60_000);

  test("is handed out with its end and its scopes, and nothing that renews it", async () => {
    const grant = provider.grant("openid https://www.googleapis.com/auth/drive.readonly");
    const id = await fleet.post(grant);
    await fleet.expire([id]);
    const outcome = await fleet.resolve(replica(1), id);
    if (!("token" in outcome)) throw new Error(outcome.reason);
    expect(outcome.scopes).toEqual(["openid", "https://www.googleapis.com/auth/drive.readonly"]);
    expect((outcome.expiresAt?.getTime() ?? 0) - Date.now()).toBeGreaterThan(60_000);
    expect(JSON.stringify(outcome)).not.toContain(grant.client_secret);
  });

  test("that lasts for less than a minute is renewed before it leaves; one that lasts longer is not", async () => {
    const id = await fleet.post(provider.grant());
    await fleet.expire([id], 55);
    const before = provider.calls.length;
    expect(provider.issued).toContain(tokens([await fleet.resolve(replica(0), id)])[0]);
    await fleet.expire([id], 65);
    await fleet.resolve(replica(0), id);
    expect(provider.calls.length - before).toBe(1);
  });

  test("whose whole life is short is renewed before it leaves with less than a minute, and not at every call", async () => {
    const { access_token: first, ...grant } = provider.grant();
    const id = await fleet.post({ ...grant, access_token: first, expires_in: 50 });
    const before = provider.calls.length;
    provider.lifetime(50);
    const [renewed] = tokens([await fleet.resolve(replica(0), id)]);
    expect(provider.issued).toContain(renewed);
    // The provider gives no more than that: it is handed out as it is, for a while.
    expect(new Set(tokens(await everywhere(id, 3)))).toEqual(new Set([renewed]));
    expect(provider.calls.length - before).toBe(1);
    provider.lifetime(3_600);
    await fleet.superuser.query("update credential_refresh set tried_at = tried_at - interval '15 seconds' where credential_id = $1", [id]);
    const [last] = tokens([await fleet.resolve(replica(1), id)]);
    expect([last === renewed, provider.issued.has(last as string), provider.calls.length - before]).toEqual([false, true, 2]);
  });

  test("of a grant that came without an access token is fetched by whoever resolves first", async () => {
    const { access_token: _, expires_in: __, ...grant } = provider.grant();
    const id = await fleet.post(grant);
    const before = provider.calls.length;
    expect(new Set(tokens(await everywhere(id, 5))).size).toBe(1);
    expect(provider.calls.length - before).toBe(1);
  });

  test("that nobody can renew is refused as one that needs its owner, without a call", async () => {
    const { client_id: _, client_secret: __, ...foreign } = provider.grant();
    const id = await fleet.post(foreign);
    await fleet.superuser.query("update credential set token_expires_at = now() where id = $1", [id]);
    const before = provider.calls.length;
    expect(await fleet.resolve(replica(0), id)).toEqual({ reason: "REAUTHORIZATION_REQUIRED" });
    expect(await fleet.status(id)).toMatchObject({ status: "reauth_required", status_reason: "access_token_expired" });
    expect(provider.calls.length).toBe(before);
  });
});

describe("while a provider takes its time", () => {
  test("forty renewals hold no connection, and what has nothing to do with them is resolved at once", async () => {
    const ids = await Promise.all(Array.from({ length: 40 }, () => fleet.post(provider.grant())));
    const { json: other } = await rest(replica(0), "POST", "/integrations/credentials", { token: fleet.user, body: { provider: "aws_ses", credential_type: "api_key", credentials: { access_key_id: "AKIAEXAMPLE", secret_access_key: "s", region: "eu-central-1" } } });
    const before = provider.calls.length;
    const gate = provider.hold();
    await fleet.expire(ids);
    let done = 0;
    const slow = ids.map((id) => fleet.resolve(replica(0), id).finally(() => done++));
    await provider.until(before + 40);
    // All forty wait for the provider now: nobody holds a transaction, and unrelated calls go through, before and not after them.
    await using superuser = await connect(fleet.database.superuserUrl);
    const { rows } = await superuser.query("select count(*)::integer as n from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and state <> 'idle' and application_name = 'flow-credentials'");
    expect(rows).toEqual([{ n: 0 }]);
    for (let n = 0; n < 50; n++) expect(await fleet.resolve(replica(0), other.id)).toEqual({ reason: "awsSesApiKey" });
    expect(done).toBe(0);
    gate.release();
    expect(new Set(tokens(await Promise.all(slow))).size).toBe(40);
    expect(provider.calls.length - before).toBe(40);
  });
});

describe("a credential that changes while it is renewed", () => {
  test("stays deleted when it was deleted", async () => {
    const id = await fleet.post(provider.grant());
    await fleet.expire([id]);
    const before = provider.calls.length;
    const gate = provider.hold();
    const waiting = fleet.resolve(replica(0), id);
    await provider.until(before + 1);
    const row = async () => (await fleet.superuser.query("select sealed, secret_version, status, deleted_at from credential where id = $1", [id])).rows[0];
    expect((await rest(replica(1), "DELETE", `/integrations/credentials/${id}`, { token: fleet.user })).status).toBe(204);
    const deleted = await row();
    gate.release();
    expect(await waiting).toEqual({ reason: "CREDENTIAL_NOT_FOUND" });
    expect(await row()).toEqual(deleted);
    expect(await fleet.resolve(replica(2), id)).toEqual({ reason: "CREDENTIAL_NOT_FOUND" });
  });

  test("keeps what its owner wrote meanwhile, and whoever waits gets that", async () => {
    const id = await fleet.post(provider.grant());
    await fleet.expire([id]);
    const before = provider.calls.length;
    const gate = provider.hold();
    const waiting = fleet.resolve(replica(0), id);
    await provider.until(before + 1);
    const written = provider.grant();
    const patched = await rest(replica(1), "PATCH", `/integrations/credentials/${id}`, { token: fleet.user, body: { credential_type: "oauth2", credentials: written } });
    expect(patched.status).toBe(200);
    gate.release();
    expect(tokens([await waiting])).toEqual([written.access_token]);
    expect(tokens(await everywhere(id, 2))).toEqual(Array(6).fill(written.access_token));
    expect(await fleet.status(id)).toMatchObject({ status: "active", etag: "r2" });
  });
});
