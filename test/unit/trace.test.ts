import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import { ConfigError, loadConfig } from "../../src/config.ts";
import { createLog } from "../../src/log.ts";
import { traceTo } from "../../src/tracing.ts";
import { beginSpan, currentSpan, errorType, isTraceparent, startTracing, traced, type Tracing } from "../../src/trace.ts";
import { summary } from "../../src/store/statement-spans.ts";

test("where nothing is traced nothing is kept, and no module of it is loaded", async () => {
  expect([beginSpan("a", "internal"), currentSpan(), await traced("a", "internal", async () => currentSpan())]).toEqual([undefined, undefined, undefined]);
  const script = `
    import { registerHooks } from "node:module";
    const seen = new Set();
    registerHooks({ resolve: (specifier, context, next) => { const found = next(specifier, context); const [name] = /@opentelemetry\\/(?!api)[\\w-]+/.exec(found.url) ?? []; if (name) seen.add(name); return found; } });
    await import("./src/app.ts");
    const off = seen.size;
    await import("@opentelemetry/sdk-trace");
    console.log(JSON.stringify({ off, on: seen.has("@opentelemetry/sdk-trace") }));`;
  // The metrics library brings the bare interface, `@opentelemetry/api`, along.
  expect(JSON.parse(execFileSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" }))).toEqual({ off: 0, on: true });
});

test.each([
  ["an endpoint with a password", { CREDENTIALS_OTLP_ENDPOINT: "https://u:canary@collector.example" }, "must not have a user"],
  ["headers over plaintext", { CREDENTIALS_OTLP_ENDPOINT: "http://collector.example", CREDENTIALS_OTLP_HEADERS: "authorization=canary" }, "needs an endpoint that is https"],
  ["headers that are none", { CREDENTIALS_OTLP_ENDPOINT: "https://collector.example", CREDENTIALS_OTLP_HEADERS: "canary" }, "must be name=value pairs"],
  ["an authority that is not there", { CREDENTIALS_OTLP_ENDPOINT: "https://collector.example", CREDENTIALS_OTLP_CA_FILE: "/nowhere/canary" }, "CREDENTIALS_OTLP_CA_FILE cannot be read"],
])("%s is refused at the start, and not repeated", async (_, env, message) => {
  const error = await traceTo(loadConfig(env), createLog("error"), { watch: () => {} }).catch((thrown: Error) => thrown);
  expect(error).toBeInstanceOf(ConfigError);
  expect((error as Error).message).toContain(message);
  expect((error as Error).message).not.toContain("canary");
});

test("spans nest by what begins them, also over a wait, and end once", async () => {
  const ended: string[] = [];
  const names = new Map<unknown, string>();
  const tracing: Tracing = {
    begin(name, kind, parent) {
      const path = `${parent === undefined ? "" : typeof parent === "string" ? "remote>" : `${names.get(parent)}>`}${name}:${kind}`;
      const span = { traceId: "t", traceparent: "p", end: (facts = {}) => void ended.push(`${path} ${JSON.stringify(facts)}`) };
      names.set(span, path);
      return span;
    },
  };
  using _ = startTracing(tracing);
  await traced("outer", "server", async () => {
    await new Promise((resolve) => setImmediate(resolve));
    await Promise.all([traced("a", "client", async () => 7, (n) => ({ n })), traced("b", "client", () => Promise.reject(Object.assign(new Error("canary"), { reason: "NOT_GRANTED" }))).catch(() => {})]);
  });
  expect(ended).toEqual(['outer:server>a:client {"n":7}', 'outer:server>b:client {"error.type":"NOT_GRANTED"}', "outer:server {}"]);
  expect(currentSpan()).toBeUndefined();
});

test.each([
  [new TypeError("canary"), "TypeError"],
  [Object.assign(new Error("canary"), { code: "23505" }), "23505"],
  [Object.assign(new Error("canary"), { code: "a secret with spaces" }), "Error"],
  ["canary canary", "error"],
  [undefined, "error"],
])("of a failure its type is told: %s", (error, type) => expect(errorType(error)).toBe(type));

test.each([
  ["select * from \"oauth_state\" where \"state_hash\" = ? limit ?", "select oauth_state"],
  ["insert into audit_signature (a) values (?)", "insert audit_signature"],
  ["with asked as (select 1 from x) update y set a = 'canary'", "with x"],
  ["BEGIN;", "begin"],
  ["select 1", "select"],
])("of a statement its verb and its first table are told: %s", (sql, told) => expect(summary(sql)).toBe(told));

test.each(["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"])("%s is a traceparent", (text) => expect(isTraceparent(text)).toBe(true));
test.each(["", "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x"])("%j is no traceparent", (text) => expect(isTraceparent(text)).toBe(false));
