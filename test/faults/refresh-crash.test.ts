import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FAILPOINTS, type FailpointName } from "../../src/domain/failpoint.ts";
import { type Fleet, NO_SWEEP, SHORT, startFleet } from "../support/fleet.ts";
import type { Service } from "../support/service.ts";
import { startTokenEndpoint, type TokenEndpoint } from "../support/token-endpoint.ts";

const LONG = process.env["FLOW_TEST_LONG"] !== undefined;
const ROUNDS = LONG ? 100 : 1;
const LIMIT_MS = LONG ? 1_800_000 : 60_000;

let strict: TokenEndpoint;
let lenient: TokenEndpoint;
/** With the leases of production, whose end the test brings about, and with short ones, which end by themselves. */
let fleets: { strict: Fleet; lenient: Fleet; short: Fleet };
beforeAll(async () => {
  [strict, lenient] = await Promise.all([startTokenEndpoint("strict"), startTokenEndpoint("lenient")]);
  const of = (provider: TokenEndpoint, more: Record<string, string> = {}) => startFleet(1, { ...NO_SWEEP, ...more, CREDENTIALS_GOOGLE_ISSUER: provider.issuer });
  const [a, b, c] = await Promise.all([of(strict), of(lenient), of(strict, SHORT)]);
  fleets = { strict: a, lenient: b, short: c };
});
afterAll(async () => {
  await Promise.all(Object.values(fleets).map((fleet) => fleet[Symbol.asyncDispose]()));
  await Promise.all([strict[Symbol.asyncDispose](), lenient[Symbol.asyncDispose]()]);
});
const survivor = (fleet: Fleet): Service => fleet.replicas[0] as Service;

/** A process that dies or stops at that place of its first renewal, which it has begun when this resolves. */
async function victim(fleet: Fleet, id: string, at: FailpointName, action: "kill" | "stop") {
  const service = await fleet.start({ CREDENTIALS_FAILPOINTS: `${at}=${action}` });
  await fleet.expire([id]);
  const answer = fleet.resolve(service, id);
  if (action === "kill") await new Promise((resolve) => service.process.once("exit", resolve));
  else await stopped(service);
  return { service, answer };
}

/** Waits until a process is stopped (proc(5): state T). */
async function stopped({ process: { pid } }: Service): Promise<void> {
  const { readFile } = await import("node:fs/promises");
  while (!/\) T /.test(await readFile(`/proc/${pid}/stat`, "utf8"))) await new Promise((resolve) => setTimeout(resolve, 10));
}

/** The lease of a process that is no more, or sleeps, ends. */
async function runOut(fleet: Fleet, id: string): Promise<void> {
  const { rowCount } = await fleet.superuser.query(
    "update credential_refresh set lease_until = now() where credential_id = $1 and lease_until between now() and now() + interval '30 seconds'", [id]);
  expect(rowCount).toBe(1);
}

/** Of a process that is killed, whether anything is left to be found out. */
const openEnd = (at: FailpointName): boolean => at !== "after-commit";

async function survive(dress: "strict" | "lenient", provider: TokenEndpoint, at: FailpointName): Promise<void> {
  const fleet = fleets[dress];
  const id = await fleet.post(provider.grant());
  await victim(fleet, id, at, "kill");
  if (openEnd(at)) await runOut(fleet, id);
  const outcome = await fleet.resolve(survivor(fleet), id);
  const { status, status_reason: reason } = await fleet.status(id);
  const told = "token" in outcome ? provider.issued.has(outcome.token) : outcome.reason;
  const works = [true, "active", null];
  // Only a provider that ends a grant when a token comes twice makes a person necessary, and only where it had got the token.
  const lost = dress === "strict" && ["after-send", "after-reply", "before-commit"].includes(at);
  if (!lost) expect([told, status, reason]).toEqual(works);
  // Of what was sent with the last breath, the provider may have read all or nothing.
  else if (at !== "after-send" || told !== true) expect([told, status, reason]).toEqual(["REAUTHORIZATION_REQUIRED", "reauth_required", "rotation_in_doubt"]);
  else expect([told, status, reason]).toEqual(works);
  const { rows } = await fleet.superuser.query("select lease_token, intent_version from credential_refresh where credential_id = $1", [id]);
  expect(rows).toEqual([{ lease_token: null, intent_version: null }]);
  const { rows: events } = await fleet.superuser.query("select status, status_reason from credential_event where credential_id = $1 and kind <> 'rotated' order by revision", [id]);
  const doubt = openEnd(at) ? [{ status: "in_doubt", status_reason: "renewal_interrupted" }, { status, status_reason: reason }] : [];
  expect(events).toEqual([{ status: "active", status_reason: null }, ...doubt]);
  expect(await fleet.faults()).toEqual([]);
}

describe.each(FAILPOINTS)("a process that is killed %s", (at) => {
  test("leaves a credential that works, or says why it does not, and a lease that is free after its time", async () => {
    for (let round = 0; round < ROUNDS; round++) await Promise.all([survive("strict", strict, at), survive("lenient", lenient, at)]);
  }, LIMIT_MS);
});

test("the lease of a process that was killed is free when its time is over, without anybody's help", async () => {
  const fleet = fleets.short;
  const id = await fleet.post(strict.grant());
  await victim(fleet, id, "before-call", "kill");
  const first = await fleet.resolve(survivor(fleet), id);
  expect(first).toMatchObject({ token: expect.stringContaining("access-") });
  expect(await fleet.status(id)).toMatchObject({ status: "active", status_reason: null });
});

describe("a process that is paused past its lease", () => {
  test("before the call, calls no more: the grant of whoever renewed meanwhile lives on", async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const fleet = fleets.short;
      const grant = strict.grant();
      const id = await fleet.post(grant);
      const { service, answer } = await victim(fleet, id, "before-call", "stop");
      const winner = await fleet.resolve(survivor(fleet), id);
      service.process.kill("SIGCONT");
      expect(await answer).toEqual(winner);
      await service.stop();
      expect(strict.calls.filter(({ refreshToken }) => refreshToken === grant.refresh_token)).toHaveLength(1);
      await fleet.expire([id]);
      expect(await fleet.resolve(survivor(fleet), id)).toMatchObject({ token: expect.stringContaining("access-") });
    }
  }, LIMIT_MS);

  test.each(["after-send", "after-reply", "before-commit"] as const)("%s, stores nothing over the winner although it was successful", async (at) => {
    for (let round = 0; round < ROUNDS; round++) {
      const fleet = fleets.lenient;
      const id = await fleet.post(lenient.grant());
      const { service, answer } = await victim(fleet, id, at, "stop");
      await runOut(fleet, id);
      const winner = await fleet.resolve(survivor(fleet), id);
      const row = async () => (await fleet.superuser.query("select sealed, secret_version, status, status_reason from credential where id = $1", [id])).rows[0];
      const kept = await row();
      service.process.kill("SIGCONT");
      expect(await answer).toEqual(winner);
      await service.stop();
      expect(await row()).toEqual(kept);
      expect(kept).toMatchObject({ status: "active", secret_version: "2" });
      expect(await fleet.resolve(survivor(fleet), id)).toEqual(winner);
    }
  }, LIMIT_MS);

  test("after the provider refused it, does not condemn the winner", async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const fleet = fleets.lenient;
      const id = await fleet.post(lenient.grant());
      const first = lenient.calls.length;
      lenient.answer((call) => (call.index === first ? { status: 400, body: { error: "invalid_grant" } } : undefined));
      const { service, answer } = await victim(fleet, id, "after-reply", "stop");
      await runOut(fleet, id);
      const winner = await fleet.resolve(survivor(fleet), id);
      expect(winner).toMatchObject({ token: expect.stringContaining("access-") });
      service.process.kill("SIGCONT");
      expect(await answer).toEqual(winner);
      await service.stop();
      expect(await fleet.status(id)).toMatchObject({ status: "active", status_reason: null });
      expect(await fleet.resolve(survivor(fleet), id)).toEqual(winner);
    }
  }, LIMIT_MS);
});
