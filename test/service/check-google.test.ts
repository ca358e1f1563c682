import { describe, expect, test } from "vitest";
import { DIAL_REASONS, DialError } from "../../src/domain/check.ts";
import { checkGoogle } from "../../src/providers/checks/google.ts";
import type { OauthToken } from "../../src/providers/checks/oauth-token.ts";
import { providers } from "../../src/providers/index.ts";
import { leaks } from "../support/canary.ts";
import { type Answer, fakeApi, type FakeApi, ioWith } from "../support/oauth-api-fake.ts";

const TOKEN: OauthToken = { accessToken: "ya29.canary-token_0123456789~+/abc==", expiresAt: null };
/** What Google's tokeninfo says; numbers are text there. */
const INFO = { azp: "canary", aud: "canary", sub: "1", scope: "https://www.googleapis.com/auth/drive.file openid", exp: "4102444800", expires_in: "3599", email: "canary@example.com", email_verified: "true" };
const PAST = new Date(Date.now() - 60_000);

async function check(api: FakeApi, token = TOKEN) {
  const result = await checkGoogle(token, api.io);
  expect(leaks([TOKEN.accessToken], "result", Buffer.from(JSON.stringify(result)))).toEqual([]);
  expect(JSON.stringify(result)).not.toContain("canary");
  return result;
}

describe("a Google access token", () => {
  test("that is good passes, with its scopes and time, and without the account's address", async () => {
    await using api = await fakeApi(() => ({ status: 200, body: INFO }));
    expect(await check(api)).toEqual({
      success: true, layer: null, reason: "ok", message: "Google accepts the access token.", nextStep: "",
      details: { expires_in: 3599, scopes: "https://www.googleapis.com/auth/drive.file openid" },
    });
  });

  test("is in the body of the request and nowhere else", async () => {
    await using api = await fakeApi(() => ({ status: 200, body: INFO }));
    await check(api);
    const [{ body, ...rest } = { body: "" }, ...more] = api.asked;
    expect(rest).toMatchObject({ method: "POST", host: "oauth2.googleapis.com", path: "/tokeninfo" });
    expect(new URLSearchParams(body).get("access_token")).toBe(TOKEN.accessToken);
    expect([JSON.stringify(rest).includes("canary"), more]).toEqual([false, []]);
  });

  test.each<readonly [string, OauthToken, string]>([
    ["nothing but a refresh token", { ...TOKEN, accessToken: "" }, "token_missing_refresh_needed"],
    ["a line break", { ...TOKEN, accessToken: "canary\r\nx-evil: 1" }, "oauth_token_malformed"],
    ["a letter beyond ASCII", { ...TOKEN, accessToken: "canary\u0159" }, "oauth_token_malformed"],
    ["a second field", { ...TOKEN, accessToken: "canary&id_token=x" }, "oauth_token_malformed"],
    ["no end", { ...TOKEN, accessToken: "canary".repeat(10_000) }, "oauth_token_malformed"],
  ])("with %s is not sent", async (_, token, reason) => {
    await using api = await fakeApi(() => ({ status: 200, body: INFO }));
    expect(await check(api, token)).toMatchObject({ success: false, layer: "auth", reason });
    expect(api.asked).toEqual([]);
  });

  test.each<readonly [string, Answer, Date | null, string]>([
    ["is refused", { status: 400, body: { error: "invalid_token", error_description: "canary" } }, null, "oauth_token_refused"],
    ["is refused before its end", { status: 400, body: { error: "invalid_token" } }, new Date(Date.now() + 60_000), "oauth_token_refused"],
    ["is refused after its end", { status: 400, body: { error: "invalid_token" } }, PAST, "oauth_token_expired"],
    ["is refused by status", { status: 401, body: "canary" }, null, "oauth_token_refused"],
    ["has no time left", { status: 200, body: { ...INFO, expires_in: "0" } }, null, "oauth_token_expired"],
    ["is asked for too often", { status: 429, body: {} }, null, "api_throttled"],
    ["meets a broken service", { status: 503, body: "<html>canary</html>" }, null, "api_service_error"],
    ["meets an unknown refusal", { status: 400, body: { error: "canary" } }, null, "api_request_refused"],
    ["meets a redirect", { status: 302, headers: { location: "https://canary.example" } }, null, "api_answer_unreadable"],
    ["gets a page", { status: 200, body: "<html>canary</html>" }, null, "api_answer_unreadable"],
    ["gets a list", { status: 200, body: [INFO] }, null, "api_answer_unreadable"],
    ["gets null", { status: 200, body: "null" }, null, "api_answer_unreadable"],
    ["gets a time that is none", { status: 200, body: { ...INFO, expires_in: "canary" } }, null, "api_answer_unreadable"],
    ["gets an endless answer", { status: 200, body: { ...INFO, more: "x".repeat(100_000) } }, null, "api_answer_unreadable"],
    ["gets depth", { status: 200, body: "[".repeat(60_000) }, null, "api_answer_unreadable"],
  ])("that %s is told apart", async (_, answer, expiresAt, reason) => {
    await using api = await fakeApi(() => answer);
    expect(await check(api, { ...TOKEN, expiresAt })).toMatchObject({ success: false, reason });
  });

  test("passes with scopes that are none or hold the token, which are left out, and with more than can be shown", async () => {
    const many = Array.from({ length: 200 }, (_, at) => `https://www.googleapis.com/auth/${at}`);
    for (const scope of [`a b\nc ${TOKEN.accessToken} x${TOKEN.accessToken} \u0000`, many.join(" "), 7, null]) {
      await using api = await fakeApi(() => ({ status: 200, body: { ...INFO, scope } }));
      const { success, details } = await check(api);
      expect([success, String(details["scopes"] ?? "").length <= 1_000]).toEqual([true, true]);
    }
  });

  test("ends with the time of the test", async () => {
    await using api = await fakeApi((): Answer | null => (setTimeout(() => api.io.abort(), 1), null));
    expect(await check(api)).toMatchObject({ layer: "timeout", reason: "api_timed_out" });
    expect(await check(api)).toMatchObject({ layer: "timeout", reason: "api_timed_out" });
  });

  test("is told what the guard says, whatever is thrown", async () => {
    const meant: Record<string, string> = { connection_reset: "api_connection_lost", deadline_exceeded: "api_timed_out" };
    for (const word of DIAL_REASONS) expect(await checkGoogle(TOKEN, ioWith(() => Promise.reject(new DialError(word))))).toMatchObject({ reason: meant[word] ?? word });
    for (const thrown of [new Error("canary"), "canary", null]) expect(await checkGoogle(TOKEN, ioWith(() => Promise.reject(thrown as Error)))).toMatchObject({ reason: "check_failed" });
  });

  test("is reached through both types of the provider; an API key has no test", async () => {
    const { google_oauth: first, oauth2: second, api_key: key } = providers.google.types;
    for (const shape of [first, second]) {
      await using api = await fakeApi(() => ({ status: 400, body: { error: "invalid_token" } }));
      const document = { access_token: TOKEN.accessToken, expires_at: PAST.toISOString(), refresh_token: "canary" };
      expect(await shape?.check?.(document, api.io, { testPath: "" })).toMatchObject({ reason: "oauth_token_expired" });
    }
    expect(key?.check).toBeUndefined();
  });
});
