import { describe, expect, test } from "vitest";
import { DIAL_REASONS, DialError } from "../../src/domain/check.ts";
import { checkMicrosoft, checkSharepoint } from "../../src/providers/checks/microsoft.ts";
import { providers } from "../../src/providers/index.ts";
import { leaks } from "../support/canary.ts";
import { type Answer, fakeApi, type FakeApi, ioWith } from "../support/oauth-api-fake.ts";

const TOKEN = { accessToken: "eyJ0.canary-token_0123456789.abc", expiresAt: null };
const SITE = "https://contoso.sharepoint.com/sites/finance";
const error = (status: number, code: string, message = "canary", headers: Record<string, string> = {}): Answer => ({ status, body: { error: { code, message, innerError: { "request-id": "canary" } } }, headers });
const good: Answer = { status: 200, body: { id: "canary", displayName: "canary" } };

/** Asks for the account, or for a site where one is given. */
async function check(api: FakeApi, site?: string, accessToken = TOKEN.accessToken, expiresAt: Date | null = null) {
  const token = { accessToken, expiresAt };
  const result = site === undefined ? await checkMicrosoft(token, api.io) : await checkSharepoint(token, site, api.io);
  expect(leaks([TOKEN.accessToken], "result", Buffer.from(JSON.stringify(result)))).toEqual([]);
  expect(JSON.stringify(result)).not.toContain("canary");
  return result;
}

describe("a Microsoft access token", () => {
  test("that is good passes, and nothing of its account is told", async () => {
    await using api = await fakeApi(() => good);
    expect(await check(api)).toEqual({
      success: true, layer: null, reason: "ok", message: "Microsoft accepts the access token.", nextStep: "", details: { permission_limited: false },
    });
    expect(api.asked).toMatchObject([{ method: "GET", host: "graph.microsoft.com", path: "/v1.0/me?$select=id", body: "", headers: { authorization: `Bearer ${TOKEN.accessToken}` } }]);
  });

  test.each([
    ["", "graph.microsoft.com", "/v1.0/sites/root?$select=id"],
    [SITE, "graph.microsoft.com", "/v1.0/sites/contoso.sharepoint.com:/sites/finance?$select=id"],
    ["https://contoso.sharepoint.com/", "graph.microsoft.com", "/v1.0/sites/contoso.sharepoint.com?$select=id"],
    ["https://Contoso.SharePoint.com/sites/a%20b/../c:d/", "graph.microsoft.com", "/v1.0/sites/contoso.sharepoint.com:/sites/c%3Ad?$select=id"],
    ["https://contoso.sharepoint.us/sites/x", "graph.microsoft.us", "/v1.0/sites/contoso.sharepoint.us:/sites/x?$select=id"],
    ["https://contoso.sharepoint-mil.us/sites/x", "dod-graph.microsoft.us", "/v1.0/sites/contoso.sharepoint-mil.us:/sites/x?$select=id"],
    ["https://contoso.sharepoint.cn/sites/x", "microsoftgraph.chinacloudapi.cn", "/v1.0/sites/contoso.sharepoint.cn:/sites/x?$select=id"],
  ])("for SharePoint with the site '%s' asks %s for it", async (site, host, path) => {
    await using api = await fakeApi(() => good);
    expect(await check(api, site)).toMatchObject({ success: true });
    expect(api.asked).toMatchObject([{ host, path }]);
  });

  test.each<readonly [string, string | undefined, Answer, object]>([
    ["may not read its account", undefined, error(403, "Authorization_RequestDenied"), { permission_limited: true }],
    ["may not read the root site", "", error(403, "accessDenied"), { permission_limited: true }],
    ["is an application's", undefined, error(400, "BadRequest", "/me request is only valid with delegated authentication flow."), { permission_limited: false, application_token: true }],
  ])("that %s is good all the same", async (_, site, answer, details) => {
    await using api = await fakeApi(() => answer);
    expect(await check(api, site)).toMatchObject({ success: true, details });
  });

  test.each<readonly [string, string | undefined, Answer, string]>([
    ["is refused", undefined, error(401, "InvalidAuthenticationToken", "CompactToken parsing failed with error code: 80049217"), "oauth_token_refused"],
    ["is refused without words", undefined, { status: 401, body: "" }, "oauth_token_refused"],
    ["has expired", undefined, error(401, "InvalidAuthenticationToken", "Lifetime validation failed, the token is expired."), "oauth_token_expired"],
    ["is for another API", SITE, error(401, "InvalidAuthenticationToken", "Access token validation failure. Invalid audience."), "graph_audience_wrong"],
    ["asks for a new sign-in", undefined, error(401, "InvalidAuthenticationToken", "canary", { "www-authenticate": 'Bearer realm="", error="insufficient_claims", claims="eyJ9"' }), "graph_sign_in_required"],
    ["has lost its account", undefined, error(404, "Request_ResourceNotFound"), "graph_account_missing"],
    ["is for a site that is gone", SITE, error(404, "itemNotFound"), "sharepoint_site_missing"],
    ["may not read its site", SITE, error(403, "accessDenied"), "sharepoint_site_not_permitted"],
    ["is used too often", undefined, error(429, "TooManyRequests"), "api_throttled"],
    ["meets a broken service", undefined, error(503, "ServiceNotAvailable"), "api_service_error"],
    ["meets an unknown refusal", undefined, error(400, "canary"), "api_request_refused"],
    ["meets somebody else's refusal", undefined, { status: 403, body: "<html>canary</html>" }, "api_answer_unreadable"],
    ["meets somebody else's missing page", SITE, { status: 404, body: "<html>canary</html>" }, "api_answer_unreadable"],
    ["meets a redirect", undefined, { status: 302, headers: { location: "https://canary.example" } }, "api_answer_unreadable"],
    ["gets a page", undefined, { status: 200, body: "<html>canary</html>" }, "api_answer_unreadable"],
    ["gets something else", SITE, { status: 200, body: { id: 7 } }, "api_answer_unreadable"],
    ["gets an endless answer", undefined, { status: 200, body: { id: "x".repeat(100_000) } }, "api_answer_unreadable"],
  ])("that %s is told apart", async (_, site, answer, reason) => {
    await using api = await fakeApi(() => answer);
    expect(await check(api, site)).toMatchObject({ success: false, reason });
    expect(api.asked).toHaveLength(1);
  });

  test("that is refused after its end has expired", async () => {
    await using api = await fakeApi(() => error(401, "InvalidAuthenticationToken"));
    expect(await check(api, undefined, TOKEN.accessToken, new Date(Date.now() - 1_000))).toMatchObject({ reason: "oauth_token_expired" });
  });

  test.each([["", "token_missing_refresh_needed"], ["canary\r\nx-evil: 1", "oauth_token_malformed"], ["canary canary", "oauth_token_malformed"], ["canary\u010d", "oauth_token_malformed"]])("like '%s' is not sent", async (token, reason) => {
    await using api = await fakeApi(() => good);
    for (const site of [undefined, "", SITE]) expect(await check(api, site, token)).toMatchObject({ success: false, layer: "auth", reason });
    expect(api.asked).toEqual([]);
  });

  test("ends with the time of the test", async () => {
    await using api = await fakeApi((): Answer | null => (setTimeout(() => api.io.abort(), 1), null));
    expect(await check(api)).toMatchObject({ layer: "timeout", reason: "api_timed_out" });
  });

  test("is told what the guard says, whatever is thrown", async () => {
    const meant: Record<string, string> = { connection_reset: "api_connection_lost", deadline_exceeded: "api_timed_out" };
    for (const word of DIAL_REASONS) expect(await checkSharepoint(TOKEN, SITE, ioWith(() => Promise.reject(new DialError(word))))).toMatchObject({ reason: meant[word] ?? word });
    for (const thrown of [new Error("canary"), "canary", null]) expect(await checkMicrosoft(TOKEN, ioWith(() => Promise.reject(thrown as Error)))).toMatchObject({ reason: "check_failed" });
  });

  test("is reached through every type of the providers; a client without a token needs one first", async () => {
    await using api = await fakeApi(() => good);
    const options = { testPath: "" };
    await providers.microsoft.types.oauth2?.check?.({ access_token: "a" }, api.io, options);
    for (const type of ["sharepoint_oauth", "oauth2"] as const) await providers.sharepoint.types[type]?.check?.({ access_token: "a", site_url: SITE }, api.io, options);
    expect(api.asked.map(({ path }) => path.split("?")[0])).toEqual(["/v1.0/me", ...Array(2).fill("/v1.0/sites/contoso.sharepoint.com:/sites/finance")]);
    const client = { client_id: "c", client_secret: "canary", tenant_id: "contoso.com" };
    expect(await providers.microsoft.types.oauth2?.check?.(client, api.io, options)).toMatchObject({ reason: "token_missing_refresh_needed" });
  });
});
