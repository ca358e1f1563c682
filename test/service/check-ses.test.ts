import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { DIAL_REASONS, DialError } from "../../src/domain/check.ts";
import { type AwsKey, checkAwsSes } from "../../src/providers/checks/aws-ses.ts";
import { providers } from "../../src/providers/index.ts";
import { leaks } from "../support/canary.ts";
import { type Answer, type FakeApi, ioWith } from "../support/oauth-api-fake.ts";
import { testProber } from "../support/probe-tools.ts";
import { GOOD_ACCOUNT, refusal, sesApi } from "../support/ses-fake.ts";

const KEY: AwsKey = { accessKeyId: "AKIACANARYKEY0123456", secretAccessKey: "canary+secret/0123456789abcdefghijklmnop", sessionToken: "", region: "eu-central-1" };
const SESSION = { accessKeyId: "ASIACANARYKEY0123456", sessionToken: "canary-session-token-0123456789==" };
const KEYS = { [KEY.accessKeyId]: { secret: KEY.secretAccessKey }, [SESSION.accessKeyId]: { secret: KEY.secretAccessKey, sessionToken: SESSION.sessionToken } };

/** Runs the check against the fake; no part of the key may show in what comes of it. */
async function check(api: FakeApi, changes: Partial<AwsKey> = {}) {
  const key = { ...KEY, ...changes };
  const result = await checkAwsSes(key, api.io);
  const secrets = [key.secretAccessKey, key.sessionToken].filter((text) => text !== "");
  expect(leaks(secrets, "result", Buffer.from(JSON.stringify(result)))).toEqual([]);
  expect(JSON.stringify(result).toLowerCase()).not.toContain("canary");
  return result;
}

describe("an access key for Amazon SES", () => {
  test("that is right passes, with the state of its account", async () => {
    await using api = await sesApi(KEYS);
    expect(await check(api)).toEqual({
      success: true, layer: null, reason: "ok", message: "AWS accepts the access key, and the account may send.", nextStep: "",
      details: { permission_limited: false, sandbox: false, sending_enabled: true, enforcement_status: "healthy", max_24_hour_send: 50_000, sent_last_24_hours: 12.5 },
    });
    expect(api.asked).toHaveLength(1);
    expect(api.asked[0]).toMatchObject({ method: "GET", host: "email.eu-central-1.amazonaws.com", path: "/v2/email/account", body: "" });
    expect(api.asked[0]?.headers["user-agent"]).not.toMatch(/linux|nodejs|os\//i);
  });

  test.each([["cn-north-1", "amazonaws.com.cn"], ["eusc-de-east-1", "amazonaws.eu"], ["us-gov-west-1", "amazonaws.com"], ["ap-southeast-2", "amazonaws.com"]])("of %s is tested in its partition", async (region, domain) => {
    await using api = await sesApi(KEYS);
    expect(await check(api, { region })).toMatchObject({ success: true });
    expect(api.asked[0]?.host).toBe(`email.${region}.${domain}`);
  });

  test("of a session passes with its token", async () => {
    await using api = await sesApi(KEYS);
    expect(await check(api, SESSION)).toMatchObject({ success: true });
  });

  test.each<readonly [string, object, string, object]>([
    ["in the sandbox", { ProductionAccessEnabled: false }, "sandbox", { sandbox: true }],
    ["whose sending is paused", { SendingEnabled: false, EnforcementStatus: "SHUTDOWN" }, "no mail will leave", { sending_enabled: false, enforcement_status: "shutdown" }],
    ["with a status nobody knows", { EnforcementStatus: "canary" }, "may send", { sandbox: false }],
    ["with a quota that is none", { SendQuota: { Max24HourSend: "canary", SentLast24Hours: null } }, "may send", { sandbox: false }],
  ])("%s passes and says so", async (_, account, words, details) => {
    await using api = await sesApi(KEYS, () => ({ status: 200, body: { ...GOOD_ACCOUNT, ...account } }));
    const result = await check(api);
    expect(result).toMatchObject({ success: true, details });
    expect(result.message).toContain(words);
  });

  test.each<readonly [string, Partial<AwsKey>, string]>([
    ["an unknown key", { accessKeyId: "AKIAOTHERKEY01234567" }, "aws_key_unknown"],
    ["a wrong secret", { secretAccessKey: "canary+other" }, "aws_secret_wrong"],
    ["a temporary key alone", { ...SESSION, sessionToken: "" }, "aws_session_token_missing"],
    ["a wrong session token", { ...SESSION, sessionToken: "canary-other" }, "aws_session_token_invalid"],
    ["a key with a line break", { accessKeyId: "AKIACANARYKEY012345\r\nx: canary" }, "aws_key_malformed"],
    ["a secret with a line break", { secretAccessKey: "canary\r\nx-evil: 1" }, "aws_key_malformed"],
    ["a session token beyond ASCII", { ...SESSION, sessionToken: "canary\u0159\u010d" }, "aws_key_malformed"],
  ])("tells %s apart", async (_, changes, reason) => {
    await using api = await sesApi(KEYS);
    expect(await check(api, changes)).toMatchObject({ success: false, layer: "auth", reason, details: {} });
    expect(api.asked.length).toBe(reason === "aws_key_malformed" ? 0 : 1);
  });

  test("that may not ask for the account passes, and says what is not known", async () => {
    await using api = await sesApi(KEYS, () => refusal(403, "AccessDeniedException", "User: arn:aws:iam::123456789012:user/canary is not authorized"));
    expect(await check(api)).toMatchObject({ success: true, details: { permission_limited: true }, message: expect.stringContaining("not known") });
  });

  test.each<readonly [string, Answer, string]>([
    ["a session that is over", refusal(403, "ExpiredTokenException"), "aws_session_token_expired"],
    ["a clock that is wrong", refusal(403, "InvalidSignatureException", "Signature expired: 20200101T000000Z is now earlier than"), "aws_clock_wrong"],
    ["a request that is too old", refusal(400, "RequestExpired"), "aws_clock_wrong"],
    ["an account without SES", refusal(403, "SubscriptionRequiredException"), "aws_not_signed_up"],
    ["throttling by name", refusal(400, "ThrottlingException"), "api_throttled"],
    ["throttling by status", { status: 429, body: "slow down" }, "api_throttled"],
    ["a failure of the service", refusal(500, "InternalFailure"), "api_service_error"],
    ["a failure without a name", { status: 503, body: "<html>canary</html>" }, "api_service_error"],
    ["an error nobody knows", refusal(400, "CanaryException"), "api_request_refused"],
    ["an error named like a part of every object", refusal(400, "constructor"), "api_request_refused"],
    ["a page instead of an account", { status: 200, body: "<html>canary</html>" }, "api_answer_unreadable"],
    ["a list instead of an account", { status: 200, body: ["canary"] }, "api_answer_unreadable"],
    ["an account of wrong types", { status: 200, body: { ...GOOD_ACCOUNT, SendingEnabled: "canary" } }, "api_answer_unreadable"],
    ["an endless account", { status: 200, body: { ...GOOD_ACCOUNT, canary: "x".repeat(200_000) } }, "api_answer_unreadable"],
    ["a redirect", { status: 302, headers: { location: "https://canary.example/" } }, "api_answer_unreadable"],
  ])("tells %s apart", async (_, answer, reason) => {
    await using api = await sesApi(KEYS, () => answer);
    expect(await check(api)).toMatchObject({ success: false, reason });
    expect(api.asked).toHaveLength(1);
  });

  test("ends with the time of the test", async () => {
    await using api = await sesApi(KEYS, (): Answer | null => (setTimeout(() => api.io.abort(), 1), null));
    expect(await check(api)).toMatchObject({ success: false, layer: "timeout", reason: "api_timed_out" });
    expect(await check(api)).toMatchObject({ reason: "api_timed_out" });
  });

  test.each(DIAL_REASONS)("tells that the guard ended it: %s", async (word) => {
    const meant: Record<string, string> = { name_not_found: "ses_region_unknown", connection_reset: "api_connection_lost", deadline_exceeded: "api_timed_out" };
    expect(await checkAwsSes(KEY, ioWith(() => Promise.reject(new DialError(word))))).toMatchObject({ success: false, reason: meant[word] ?? word });
  });

  test("gives a result whatever is thrown", async () => {
    for (const thrown of [new Error("canary"), "canary", undefined]) {
      expect(await checkAwsSes(KEY, ioWith(() => Promise.reject(thrown as Error)))).toMatchObject({ reason: "check_failed", details: {} });
    }
  });

  test("takes nothing from the environment or the files of AWS's tools", async () => {
    const folder = mkdtempSync(join(tmpdir(), "flow-test-aws-"));
    writeFileSync(join(folder, "config"), "[default]\nregion = canary\nendpoint_url = https://canary.example\nuse_fips_endpoint = true\nuse_dualstack_endpoint = true\nsdk_ua_app_id = canary\nretry_mode = adaptive\n");
    const planted: Record<string, string> = {
      AWS_CONFIG_FILE: join(folder, "config"), AWS_SHARED_CREDENTIALS_FILE: join(folder, "config"), AWS_ACCESS_KEY_ID: "canary", AWS_SECRET_ACCESS_KEY: "canary", AWS_SESSION_TOKEN: "canary",
      AWS_REGION: "canary-1", AWS_ENDPOINT_URL: "https://canary.example", AWS_ENDPOINT_URL_SESV2: "https://canary.example", AWS_USE_FIPS_ENDPOINT: "true", AWS_USE_DUALSTACK_ENDPOINT: "true", AWS_SDK_UA_APP_ID: "canary",
      AWS_PROFILE: "canary", AWS_EXECUTION_ENV: "canary", AWS_MAX_ATTEMPTS: "7",
    };
    const before = { ...process.env };
    Object.assign(process.env, planted);
    try {
      await using api = await sesApi({ [KEY.accessKeyId]: { secret: KEY.secretAccessKey } }, () => refusal(503, "ServiceUnavailable"));
      expect(await check(api)).toMatchObject({ reason: "api_service_error" });
      expect(api.asked.map(({ host }) => host)).toEqual(["email.eu-central-1.amazonaws.com"]);
      expect(JSON.stringify(api.asked)).not.toContain("canary");
    } finally {
      for (const name of Object.keys(planted)) {
        if (before[name] === undefined) delete process.env[name];
        else process.env[name] = before[name];
      }
      rmSync(folder, { recursive: true });
    }
  });

  test("is signed in a test's own process, under its locks; what is asked then stands before the guard", async () => {
    // No port is left to the provider, so that nothing is looked up and nothing leaves.
    await using it = testProber({ egress: { profile: "production", allow: [], ports: { aws_ses: [1] } } });
    const document = { access_key_id: KEY.accessKeyId, secret_access_key: KEY.secretAccessKey, region: KEY.region };
    expect(await it.run({ provider: "aws_ses", credentialType: "api_key", document })).toMatchObject({ success: false, layer: "address", reason: "port_not_allowed" });
  });

  test("is reached through the provider", async () => {
    await using api = await sesApi(KEYS);
    const document = { access_key_id: SESSION.accessKeyId, secret_access_key: KEY.secretAccessKey, session_token: SESSION.sessionToken, region: KEY.region };
    expect(await providers.aws_ses.types.api_key?.check?.(document, api.io, { testPath: "" })).toMatchObject({ success: true });
  });
});
