import { describe, expect, test } from "vitest";
import { createResolver } from "../../src/egress/resolver.ts";
import { type DnsAnswer, type DnsQuestion, manualClock, only, reasonOf, startDns } from "../support/egress.ts";

const alive = () => new AbortController().signal;

describe("the resolver", () => {
  test.each<[name: string, answer: (question: DnsQuestion) => DnsAnswer, addresses: readonly string[]]>([
    ["both families, in turn, IPv6 first", only(["192.0.2.1", "192.0.2.2", "2001:db8::1"]), ["2001:db8::1", "192.0.2.1", "192.0.2.2"]],
    ["IPv4 alone", only(["192.0.2.1"]), ["192.0.2.1"]],
    ["IPv6 alone", only(["2001:db8::1"]), ["2001:db8::1"]],
    ["what an alias leads to", ({ type }) => ({ alias: "real.example", addresses: type === "A" ? ["192.0.2.7"] : [] }), ["192.0.2.7"]],
    ["the family that has an answer, where the other one fails", ({ type }) => (type === "A" ? ["192.0.2.1"] : "servfail"), ["192.0.2.1"]],
    ["the family that has an answer, where the other one does not exist", ({ type }) => (type === "A" ? "nxdomain" : ["2001:db8::1"]), ["2001:db8::1"]],
  ])("gives %s", async (_, answer, addresses) => {
    await using dns = await startDns(answer);
    expect(await createResolver({ servers: [dns.server] }).resolve("name.example", alive())).toEqual(addresses);
  });

  test.each<[name: string, answer: (question: DnsQuestion) => DnsAnswer, reason: string]>([
    ["does not exist", () => "nxdomain", "dns-not-found"],
    ["exists without an address", () => [], "dns-not-found"],
    ["is an alias of nothing", () => ({ alias: "gone.example", addresses: [] }), "dns-not-found"],
    ["cannot be looked up", () => "servfail", "dns-failed"],
    ["half fails and half does not exist", ({ type }) => (type === "A" ? "servfail" : "nxdomain"), "dns-failed"],
  ])("says when a name %s", async (_, answer, reason) => {
    await using dns = await startDns(answer);
    expect(await reasonOf(createResolver({ servers: [dns.server] }).resolve("name.example", alive()))).toBe(reason);
  });

  test("gives up a silent name server at its deadline, and one caller's without the other's", async () => {
    await using dns = await startDns(({ name }) => (name === "silent.example" ? "silent" : ["192.0.2.1"]));
    const clock = manualClock();
    const resolver = createResolver({ servers: [dns.server], deadlineMs: 4_000, clock });
    const leaving = new AbortController();
    const left = reasonOf(resolver.resolve("silent.example", leaving.signal));
    leaving.abort();
    expect(await left).toBe("dns-failed");
    const late = reasonOf(resolver.resolve("silent.example", alive()));
    clock.advance(4_000);
    expect(await late).toBe("dns-failed");
    expect(await reasonOf(resolver.resolve("name.example", AbortSignal.abort()))).toBe("cancelled");
    expect(clock.waiting).toBe(0);
  });

  test("remembers nothing: each resolution asks anew", async () => {
    await using dns = await startDns((question, index) => only([`192.0.2.${Math.floor(index / 2)}`])(question));
    const resolver = createResolver({ servers: [dns.server] });
    for (const last of [0, 1, 2]) expect(await resolver.resolve("name.example", alive())).toEqual([`192.0.2.${last}`]);
    expect(dns.questions).toHaveLength(6);
  });
});
