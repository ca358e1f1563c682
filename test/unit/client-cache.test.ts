import { describe, expect, test } from "vitest";
import { CredentialEvent, CredentialEventKind as Kind, ResolveCredentialResponse, type WatchCredentialsResponse } from "../../gen/flow/credentials/v1/credential_service.ts";
import { CredentialStatus } from "../../gen/flow/credentials/v1/resources.ts";
import { limitsOf } from "../../src/client/cached-resolver.ts";
import type { Followed } from "../../src/client/calls.ts";
import { CredentialClientError } from "../../src/client/error.ts";
import { Follower } from "../../src/client/follower.ts";
import { SecretCache } from "../../src/client/secret-cache.ts";
import { UseCounter } from "../../src/client/use-counter.ts";

const LIMITS = { entries: 2, maxAgeMs: 600_000, maxSilenceMs: 10_000, failStaticMs: 0 };
const WALL = Date.parse("2026-01-02T03:04:05Z");

const answer = (facts: Partial<ResolveCredentialResponse> = {}): ResolveCredentialResponse =>
  ResolveCredentialResponse.fromPartial({ credentialId: "a", secretVersion: 3n, cacheSeconds: 300, credentials: { $case: "sftpPassword", value: { host: "h", password: "p" } }, ...facts } as object);
const event = (kind: Kind, secretVersion: bigint, facts: Partial<CredentialEvent> = {}): CredentialEvent => CredentialEvent.fromPartial({ credentialId: "a", kind, secretVersion, status: CredentialStatus.CREDENTIAL_STATUS_ACTIVE, ...facts });

/** A cache that is told what happens, with one secret that was asked for at 0. */
function filled(limits: Partial<typeof LIMITS> = {}, response = answer()) {
  const cache = new SecretCache({ ...LIMITS, ...limits });
  cache.follow();
  const flight = cache.begin("a", 0);
  cache.end("a", flight, response, WALL);
  return cache;
}

describe("a secret is kept", () => {
  test("no longer than the service allows, the client's own bound, and a minute before an access token ends", () => {
    const until = (cache: SecretCache) => {
      let at = 0;
      for (; cache.lookup("a", at) !== undefined; at += 1_000) cache.progress(at + 1_000);
      return at;
    };
    expect(until(filled())).toBe(300_000);
    expect(until(filled({ maxAgeMs: 120_000 }))).toBe(120_000);
    expect(until(filled({}, answer({ expiresAt: new Date(WALL + 200_000) })))).toBe(140_000);
    expect(filled({}, answer({ cacheSeconds: 0 })).size).toBe(0);
    expect(filled({}, answer({ expiresAt: new Date(WALL + 59_000) })).size).toBe(0);
    const cache = filled();
    cache.sweep(299_999);
    expect(cache.size).toBe(1);
    cache.sweep(300_000);
    expect(cache.size).toBe(0);
  });

  test("and trusted for a bounded time after the last sign that nothing has happened to it", () => {
    const cache = filled();
    expect([cache.lookup("a", 10_000) !== undefined, cache.lookup("a", 10_001)]).toEqual([true, undefined]);
    cache.progress(9_000);
    expect([cache.lookup("a", 19_000) !== undefined, cache.lookup("a", 19_001)]).toEqual([true, undefined]);
    cache.progress(5_000);
    expect(cache.asOf).toBe(9_000);
  });

  test("not before it is told what happens, nor where that was lost meanwhile", () => {
    const cache = new SecretCache(LIMITS);
    const early = cache.begin("a", 0);
    cache.follow();
    cache.end("a", early, answer(), WALL);
    expect(cache.size).toBe(0);
    const during = cache.begin("a", 0);
    cache.reset(true);
    cache.follow();
    cache.end("a", during, answer(), WALL);
    expect([cache.size, during.touched]).toEqual([0, true]);
  });

  test("in a bounded number, of which the one that was not used for longest goes first", () => {
    const cache = filled();
    const add = (id: string) => cache.end(id, cache.begin(id, 0), answer({ credentialId: id }), WALL);
    add("b");
    cache.lookup("a", 1);
    add("c");
    expect(["a", "b", "c"].map((id) => cache.lookup(id, 1)?.credentialId)).toEqual(["a", undefined, "c"]);
  });

  test("unchangeable, because several share it", () => {
    const kept = filled().lookup("a", 1) as unknown as { credentials: { value: { password: string } }; extra: unknown };
    expect(() => (kept.credentials.value.password = "x")).toThrow(TypeError);
    expect(() => (kept.extra = {})).toThrow(TypeError);
  });
});

describe("what is told ends a secret", () => {
  test.each([
    ["replaced", event(Kind.CREDENTIAL_EVENT_KIND_UPDATED, 4n), false],
    ["renewed", event(Kind.CREDENTIAL_EVENT_KIND_ROTATED, 4n), false],
    ["the replacement that it came from", event(Kind.CREDENTIAL_EVENT_KIND_UPDATED, 3n), true],
    ["an older one, which was on its way", event(Kind.CREDENTIAL_EVENT_KIND_UPDATED, 2n), true],
    ["deleted", event(Kind.CREDENTIAL_EVENT_KIND_DELETED, 3n), false],
    ["restored", event(Kind.CREDENTIAL_EVENT_KIND_RESTORED, 3n), false],
    ["another status of the same secret", event(Kind.CREDENTIAL_EVENT_KIND_STATUS_CHANGED, 3n, { status: CredentialStatus.CREDENTIAL_STATUS_REFRESH_FAILED }), true],
    ["another status and another secret", event(Kind.CREDENTIAL_EVENT_KIND_STATUS_CHANGED, 4n), false],
    ["revoked at the provider", event(Kind.CREDENTIAL_EVENT_KIND_STATUS_CHANGED, 3n, { status: CredentialStatus.CREDENTIAL_STATUS_REAUTH_REQUIRED }), false],
    ["a kind of a later version", event(99 as Kind, 3n), false],
    ["another credential", event(Kind.CREDENTIAL_EVENT_KIND_DELETED, 3n, { credentialId: "b" }), true],
  ])("%s", (_what, told, stays) => {
    const cache = filled();
    cache.told(told);
    expect(cache.lookup("a", 1) !== undefined).toBe(stays);
    // The same for one that is on its way just then: it is kept only where it is surely from after.
    const racing = new SecretCache(LIMITS);
    racing.follow();
    const flight = racing.begin("a", 0);
    racing.told(told);
    racing.end("a", flight, answer(), WALL);
    expect([racing.lookup("a", 1) !== undefined, flight.touched]).toEqual([stays, told.credentialId === "a"]);
  });

  test("a slower answer does not take the place of a newer one", () => {
    const cache = filled();
    const [slow, quick] = [cache.begin("a", 1), cache.begin("a", 2)];
    cache.end("a", quick, answer({ secretVersion: 5n }), WALL);
    cache.end("a", slow, answer({ secretVersion: 4n }), WALL);
    expect(cache.lookup("a", 3)?.secretVersion).toBe(5n);
  });

  test("nothing is left of what was there, and of what is on its way, once what is granted has changed", () => {
    const cache = filled();
    const flight = cache.begin("b", 0);
    cache.reset(false);
    cache.end("b", flight, answer({ credentialId: "b" }), WALL);
    expect(cache.size).toBe(0);
    cache.end("b", cache.begin("b", 1), answer({ credentialId: "b" }), WALL);
    expect(cache.size).toBe(1);
  });
});

test("where the service is away a secret may be older, up to its own bound and never past its end; without that it never is", () => {
  const cache = filled({ failStaticMs: 60_000 }, answer({ expiresAt: new Date(WALL + 200_000) }));
  expect([cache.stale("a", 60_000) !== undefined, cache.stale("a", 60_001)]).toEqual([true, undefined]);
  cache.progress(139_500);
  // Its time is over at 140 s; it is there for another minute.
  expect([cache.lookup("a", 140_000), cache.stale("a", 199_499) !== undefined, cache.stale("a", 199_501), cache.stale("a", 200_000)]).toEqual([undefined, true, undefined, undefined]);
  cache.told(event(Kind.CREDENTIAL_EVENT_KIND_DELETED, 3n));
  expect(cache.stale("a", 150_000)).toBeUndefined();
  expect(filled().stale("a", 1)).toBeUndefined();
  expect(limitsOf({ maxAgeMs: 1e12, failStaticMs: 1e12, maxSilenceMs: 1, entries: 1e9 })).toEqual({ entries: 100_000, maxAgeMs: 3_600_000, failStaticMs: 3_600_000, maxSilenceMs: 1_000 });
});

describe("the follower", () => {
  type Message = Followed<WatchCredentialsResponse>;
  const bookmark = (position: string, asOf: number): WatchCredentialsResponse => ({ position, message: { $case: "bookmark", value: { revision: 1n, asOf: new Date(asOf) } } });

  /** A follower whose streams the test speaks for. */
  function followed() {
    const cache = new SecretCache(LIMITS);
    const streams: { position: string; stream: Message; cancelled: boolean }[] = [];
    const follower = new Follower((position, stream) => {
      const entry = { position, stream, cancelled: false };
      streams.push(entry);
      return { cancel: () => void ((entry.cancelled = true), stream.end(new CredentialClientError("CANCELLED", "cancelled"))) };
    }, cache, 60_000);
    follower.start();
    return { cache, streams, follower, at: (n: number) => streams[n] as (typeof streams)[number] };
  }

  test("believes a word to be as old as the service's clock says, however late it comes, and whatever that clock shows", async () => {
    const { cache, follower, at } = followed();
    const begun = performance.now();
    at(0).stream.message(bookmark("p1", 5_000_000));
    expect(cache.asOf).toBeLessThanOrEqual(begun);
    const first = cache.asOf;
    at(0).stream.message(bookmark("p2", 5_000_000 + 3));
    expect(cache.asOf).toBeLessThanOrEqual(Math.min(first + 3, performance.now()));
    // A clock that runs ahead does not make anything fresher than now.
    at(0).stream.message(bookmark("p3", 9_000_000));
    expect(cache.asOf).toBeLessThanOrEqual(performance.now());
    await follower.ready();
    follower.close(new CredentialClientError("CANCELLED", "closed"));
    expect(at(0).cancelled).toBe(true);
  });

  test("goes on where it stood after a failure, and drops everything where it was refused or cannot go on", async () => {
    const { cache, follower, streams, at } = followed();
    at(0).stream.message(bookmark("p1", 1));
    cache.end("a", cache.begin("a", performance.now()), answer(), Date.now());
    at(0).stream.end(new CredentialClientError("UNAVAILABLE", "gone"));
    await expect.poll(() => streams.length).toBe(2);
    expect([at(1).position, cache.size, follower.connected]).toEqual(["p1", 1, false]);
    // Said by something in between, and not by the service.
    at(1).stream.end(new CredentialClientError("PERMISSION_DENIED", "proxy"));
    await expect.poll(() => streams.length).toBe(3);
    expect([at(2).position, cache.size]).toEqual(["p1", 1]);
    at(2).stream.end(new CredentialClientError("OUT_OF_RANGE", "too old", { reason: "WATCH_POSITION_LOST" }));
    await expect.poll(() => streams.length).toBe(4);
    expect([at(3).position, cache.size]).toEqual(["", 0]);
    // Nothing is kept until it is told again what happens.
    cache.end("a", cache.begin("a", performance.now()), answer(), Date.now());
    expect(cache.size).toBe(0);
    follower.close(new CredentialClientError("CANCELLED", "closed"));
  });
});

describe("uses", () => {
  test("are reported by credential, flow and run, again where the report fails, and not for ever where they are refused", async () => {
    const reports: [string, string | undefined, bigint][][] = [];
    let fail = true;
    const counter = new UseCounter(async (items) => {
      reports.push(items.map(({ credentialId, flowId, uses }) => [credentialId, flowId, uses]));
      if (fail) throw new CredentialClientError("UNAVAILABLE", "later");
      return { notResolved: items.flatMap(({ credentialId }, place) => (credentialId === "b" ? [place] : [])) };
    });
    for (let n = 0; n < 3; n++) counter.count("a", "f", "r");
    counter.count("b", undefined, undefined);
    await counter.flush();
    expect([reports.at(-1), counter.waiting]).toEqual([[["a", "f", 3n], ["b", undefined, 1n]], 4]);
    fail = false;
    await counter.flush();
    expect(counter.waiting).toBe(1);
    for (let n = 0; n < 5; n++) await counter.flush();
    expect([counter.waiting, counter.lost, reports.length]).toEqual([0, 1, 5]);
    expect(() => counter.count("a", "\n", undefined)).toThrow(CredentialClientError);
  });

  test("are bounded in number of items, and lose their runs before their credentials", async () => {
    const seen = new Map<string, bigint>();
    const counter = new UseCounter(async (items) => {
      expect(items.length).toBeLessThanOrEqual(256);
      for (const { credentialId, uses } of items) seen.set(credentialId, (seen.get(credentialId) ?? 0n) + uses);
      return { notResolved: [] };
    });
    for (let n = 0; n < 20_000; n++) counter.count(`c${n % 3}`, "f", `run ${n}`);
    await counter.flush();
    expect([...seen.values()].reduce((sum, uses) => sum + uses, 0n)).toBe(20_000n);
    expect(counter.lost).toBe(0);
  });
});
