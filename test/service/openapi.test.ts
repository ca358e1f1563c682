import { randomUUID } from "node:crypto";
import { Validator } from "@seriousme/openapi-schema-validator";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { document, faultsOf, operations, valuesOf } from "../support/openapi.ts";
import { rest, type Service, startFresh, token } from "../support/service.ts";

const RUNS = process.env["FLOW_TEST_LONG"] === undefined ? 600 : 50_000;

let service: Service;
let callers: readonly (string | undefined)[];
const ids: string[] = [randomUUID(), "not-a-uuid", "%00", "a b", "...", "null"];
beforeAll(async () => {
  service = await startFresh({ CREDENTIALS_REST_RESOLVE: "on", CREDENTIALS_LIMIT_PER_PROVIDER: "5", CREDENTIALS_TESTS_BURST: "20" });
  const organization = randomUUID();
  callers = [await token("user", organization), await token("service_account", organization), await token("user", randomUUID()), await token("user", organization, randomUUID(), -60), "saf_org_none", undefined];
  const body = { provider: "sftp", credential_type: "user_password", credentials: { host: "192.0.2.1", username: "u", password: "p" } };
  for (let count = 0; count < 3; count += 1) ids.push((await rest(service, "POST", "/integrations/credentials", { token: callers[0] as string, body })).json.id);
});
afterAll(async () => service[Symbol.asyncDispose]());

describe("the document", () => {
  test("is OpenAPI 3.1", async () => {
    const validator = new Validator();
    const { valid, errors } = await validator.validate(structuredClone(document) as never);
    expect([valid, errors]).toEqual([true, undefined]);
    expect(validator.version).toBe("3.1");
  });

  test("is what the service serves, and its page needs nothing from elsewhere", async () => {
    expect((await rest(service, "GET", "/openapi.json")).json).toEqual(document);
    const page = await rest(service, "GET", "/docs");
    expect([page.status, page.headers.get("content-type")]).toEqual([200, "text/html; charset=utf-8"]);
    expect(page.headers.get("content-security-policy")).toContain("default-src 'none'");
    const parts = [...page.text.matchAll(/(?:src|href)="(\/[^"]+)"/g)].map(([, path = ""]) => path);
    expect(parts.length).toBeGreaterThanOrEqual(4);
    for (const path of parts) expect([path, (await rest(service, "GET", path)).status]).toEqual([path, 200]);
    expect(page.text).not.toMatch(/https?:/);
    expect((await rest(service, "POST", "/docs")).status).toBe(405);
    expect((await rest(service, "GET", "/docs/package.json")).status).toBe(404);
  });

  test.each(operations)("$verb $path has texts and examples that fit", ({ operation }) => {
    expect(operation.summary.length).toBeGreaterThan(10);
    const content = operation.requestBody?.content["application/json"];
    if (content) {
      expect(Object.keys(content.examples).length).toBeGreaterThan(0);
      for (const { value } of Object.values(content.examples)) expect(faultsOf(content.schema, value)).toEqual([]);
    }
    for (const { content } of Object.values(operation.responses)) {
      const json = content?.["application/json"];
      if (json) expect(faultsOf(json.schema, json.example)).toEqual([]);
    }
    expect(Object.keys(operation.responses)).toEqual(expect.arrayContaining(["401", "403", "429", "500", "503"]));
  });

  test("names every operation once", () => {
    const names = operations.map(({ operation }) => operation.operationId);
    expect(new Set(names).size).toBe(names.length);
  });
});

/** One request: which operation, by whom, with which variables and which body. */
const requests = fc.constantFrom(...operations.keys()).chain((index) => {
  const { operation } = operations[index] as (typeof operations)[number];
  const variables = (operation.parameters ?? []).map(({ name, schema }) => fc.tuple(fc.constant(name), schema.enum ? fc.oneof(fc.constantFrom(...schema.enum.map(String)), fc.constant("Nothing")) : fc.integer({ min: 0, max: 8 })));
  const schema = operation.requestBody?.content["application/json"].schema;
  return fc.record({
    index: fc.constant(index),
    caller: fc.integer({ min: 0, max: 9 }),
    variables: fc.tuple(...variables),
    body: schema ? fc.oneof({ weight: 10, arbitrary: valuesOf(schema).map((value) => JSON.stringify(value)) }, { weight: 1, arbitrary: fc.constantFrom("", "{", "[]", '{"a":1,"a":2}', "\ufeff{}") }) : fc.constant(undefined),
  });
});

async function answers({ index, caller, variables, body }: { index: number; caller: number; variables: readonly (readonly [string, unknown])[]; body: string | undefined }): Promise<void> {
  const { verb, path, operation } = operations[index] as (typeof operations)[number];
  const filled = variables.reduce((text, [name, value]) => text.replace(`{${name}}`, encodeURIComponent(typeof value === "number" ? (ids[value] ?? "") : String(value))), path);
  const bearer = callers[caller] ?? callers[0];
  const answer = await rest(service, verb, filled, { ...(caller === 5 || bearer === undefined ? {} : { token: bearer }), ...(body === undefined ? {} : { raw: body }) });
  const documented = operation.responses[String(answer.status)];
  // A path that cannot be meant is refused before it is any operation's.
  if (!documented) expect([filled, answer.status, Object.keys(operation.responses)]).toEqual([filled, 400, expect.anything()]);
  expect(answer.status).toBeLessThan(500);
  expect(answer.headers.get("x-request-id")).toMatch(/^[0-9A-HJKMNP-TV-Z]{26}$/);
  const json = documented?.content?.["application/json"];
  if (json) expect([operation.operationId, answer.status, faultsOf(json.schema, answer.json)]).toEqual([operation.operationId, answer.status, []]);
  else expect(answer.text).toBe("");
}

test("the service and the document agree, whatever is asked", async () => {
  await fc.assert(fc.asyncProperty(requests, answers), { numRuns: RUNS });
}, 3_600_000);
