import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Fleet, NO_SWEEP, startFleet } from "../support/fleet.ts";
import { type FakeKeyService, transitFake } from "../support/key-service-fakes.ts";
import type { Service } from "../support/service.ts";
import { startTokenEndpoint, type TokenEndpoint } from "../support/token-endpoint.ts";

let provider: TokenEndpoint;
let keys: FakeKeyService;
let fleet: Fleet;
let replica: Service;
/** Age at which an organization's key is fetched anew, ms. */
const KEY_AGE_MS = 1_000;
beforeAll(async () => {
  const token = randomBytes(12).toString("hex");
  [provider, keys] = await Promise.all([startTokenEndpoint("strict"), transitFake(token)]);
  const transit = { CREDENTIALS_KMS: "transit", CREDENTIALS_KMS_TRANSIT_URL: keys.url, CREDENTIALS_KMS_TRANSIT_TOKEN: token, CREDENTIALS_KMS_KEYS: "k1=one", CREDENTIALS_PRIMARY_KEY_ID: "k1" };
  fleet = await startFleet(1, { ...NO_SWEEP, ...transit, CREDENTIALS_KEY_CACHE_SECONDS: String(KEY_AGE_MS / 1000), CREDENTIALS_GOOGLE_ISSUER: provider.issuer }, ["CREDENTIALS_MASTER_KEYS"]);
  replica = fleet.replicas[0] as Service;
});
afterAll(async () => {
  await fleet[Symbol.asyncDispose]();
  await Promise.all([provider[Symbol.asyncDispose](), keys[Symbol.asyncDispose]()]);
});
/** Lets every key that is in memory now grow too old. */
const outlive = () => new Promise((resolve) => setTimeout(resolve, KEY_AGE_MS + 100));

describe("a key service that is down", () => {
  test("when the provider has answered, loses no token: it is kept in memory, and told", async () => {
    const id = await fleet.post(provider.grant());
    const before = provider.calls.length;
    const gate = provider.hold();
    await fleet.expire([id]);
    const answer = fleet.resolve(replica, id);
    await provider.until(before + 1);
    keys.trouble = "broken";
    await outlive();
    gate.release();
    await expect.poll(() => replica.output(), { timeout: 10_000 }).toContain("a renewed token cannot be stored yet");
    expect((await fleet.superuser.query("select status, secret_version from credential where id = $1", [id])).rows).toEqual([{ status: "active", secret_version: "1" }]);
    keys.trouble = "none";
    await fleet.until("secret_version = 2 from credential where id = $1", [id]);
    await answer;
    await expect.poll(() => fleet.resolve(replica, id), { timeout: 10_000 }).toMatchObject({ token: [...provider.issued].at(-1) });
    expect(await fleet.status(id)).toMatchObject({ status: "active", status_reason: null });
    expect(provider.calls.length).toBe(before + 1);
  }, 60_000);

  test("before the provider is asked, sends nothing and journals nothing", async () => {
    const id = await fleet.post(provider.grant());
    const before = provider.calls.length;
    keys.trouble = "broken";
    await outlive();
    await fleet.expire([id]);
    expect(await fleet.resolve(replica, id)).toEqual({ reason: "KEYS_UNAVAILABLE" });
    const { rows } = await fleet.superuser.query("select attempts, lease_token, intent_version, due_at > now() as off from credential_refresh where credential_id = $1", [id]);
    expect(rows).toEqual([{ attempts: 1, lease_token: null, intent_version: null, off: true }]);
    const { rows: recorded } = await fleet.superuser.query("select from audit_event where credential_id = $1 and action = 'refresh_credential'", [id]);
    expect([provider.calls.length - before, recorded.length]).toEqual([0, 0]);
    keys.trouble = "none";
  }, 60_000);
});

test("a secret beside which a new token might not fit is not renewed, and says so, before the provider has replaced anything", async () => {
  const grant = provider.grant();
  await expect.poll(async () => "reason" in (await fleet.resolve(replica, await fleet.post(provider.grant()))), { timeout: 10_000 }).toBe(false);
  const id = await fleet.post({ ...grant, note: "x".repeat(50_000) });
  const before = provider.calls.length;
  await fleet.expire([id], 30);
  expect(await fleet.resolve(replica, id)).toMatchObject({ token: grant.access_token });
  expect(await fleet.status(id)).toMatchObject({ status: "refresh_failed", status_reason: "secret_too_large" });
  expect(provider.calls.length).toBe(before);
});
