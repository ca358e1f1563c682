import { expect, it, test } from "vitest";
import type { Violation } from "../../src/domain/errors.ts";
import { call, metadataOf, RPCS, startGrpc } from "../support/grpc.ts";

const body = (path: Violation["path"], type: string): Violation => ({ in: "body", path, type, message: `is ${type}` });
const create = { provider: 0, credentialType: 0, credentials: undefined } as const;

async function faultsOf(faults: unknown, request: Parameters<typeof RPCS.createCredential.requestSerialize>[0] = create) {
  await using grpc = await startGrpc();
  const bytes = Buffer.isBuffer(faults) ? faults : Buffer.from(JSON.stringify(faults));
  const answer = await call(grpc.client, RPCS.createCredential, request, metadataOf("user", { "x-rest-faults-bin": bytes }));
  expect(grpc.vault.rows.size).toBe(0);
  expect(grpc.events).toHaveLength(1);
  return { ...answer, fields: answer.violations.map(({ field, reason }) => [field, reason]) };
}

it("joins what REST found with what is missing here", async () => {
  const { fields } = await faultsOf([body(["provider"], "enum")]);
  expect(fields).toEqual([["provider", "enum"], ["credential_type", "missing"], ["credentials", "missing"]]);
});

it("says nothing of a field of which REST has reported a part", async () => {
  const { fields } = await faultsOf([body(["credentials", "port"], "int_type"), body(["credential_type"], "string_type")], { ...create, provider: 3 });
  expect(fields).toEqual([["credentials.port", "int_type"], ["credential_type", "string_type"]]);
});

it("says nothing of missing fields where the body as a whole was unreadable", async () => {
  expect((await faultsOf([body([], "json_invalid")])).fields).toEqual([["", "json_invalid"]]);
});

it("refuses a sound message too where REST reported a fault", async () => {
  const { reason, fields } = await faultsOf([body(["name"], "string_type")], { provider: 3, credentialType: 5, credentials: { a: "b" } });
  expect([reason, fields]).toEqual(["INVALID_REQUEST", [["name", "string_type"]]]);
});

it("puts faults of the path before faults of the body", async () => {
  const { reason, facts } = await faultsOf([body(["credentials"], "dict_type"), { in: "path", path: ["provider"], type: "enum", message: "no such provider" }]);
  expect([reason, facts]).toEqual(["INVALID_PROVIDER", { http_status: "400", code: "bad_request" }]);
});

test.each([
  ["what is not JSON", Buffer.from("{")],
  ["what is not a list", {}],
  ["a fault without a message", [{ in: "body", path: [], type: "x" }]],
  ["a fault with more than a fault has", [{ ...body([], "x"), extra: 1 }]],
  ["a fault from nowhere", [{ ...body([], "x"), in: "query" }]],
  ["text without end", [body(["x".repeat(257)], "x")]],
  ["more faults than anyone reads", Array.from({ length: 65 }, () => body([], "x"))],
  ["more bytes than a report needs", Buffer.from(JSON.stringify([body([], "x")]).padEnd(8_193))],
])("refuses %s as a report", async (_what, faults) => {
  expect((await faultsOf(faults)).reason).toBe("METADATA_INVALID");
});

test.each(["constructor", "__proto__", "toString", "name"])("can do nothing but refuse the request it comes with, whoever sends it and whatever it names: %s", async (name) => {
  await using grpc = await startGrpc();
  const report = [{ in: "path", path: [name], type: "canary-type", message: "canary-message" }];
  const metadata = metadataOf("user", { "x-rest-faults-bin": Buffer.from(JSON.stringify(report)) });
  const { reason, violations } = await call(grpc.client, RPCS.createCredential, { provider: 3, credentialType: 5, credentials: { a: "b" } }, metadata);
  expect([reason, violations.map(({ field }) => field)]).toEqual(["INVALID_REQUEST", [name]]);
  expect(JSON.stringify([grpc.lines, grpc.events, grpc.observed])).not.toMatch(/canary/);
  expect(grpc.vault.rows.size).toBe(0);
});

it("takes an empty report for none", async () => {
  await using grpc = await startGrpc();
  const metadata = metadataOf("user", { "x-rest-faults-bin": Buffer.from("[]") });
  expect((await call(grpc.client, RPCS.listIntegrations, {}, metadata)).error).toBeUndefined();
});
