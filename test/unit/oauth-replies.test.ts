import { describe, expect, test } from "vitest";
import { DialError } from "../../src/domain/check.ts";
import type { SecretDocument } from "../../src/domain/credential.ts";
import type { Refreshed } from "../../src/domain/oauth.ts";
import { MAX_LIFETIME_SECONDS } from "../../src/providers/oauth.ts";
import { providers } from "../../src/providers/index.ts";
import { TokenWire } from "../../src/providers/grants/tokens.ts";
import { leaks } from "../support/canary.ts";
import { scriptedIo } from "../support/oauth-io.ts";
import { OIDC_CLIENT, type OddReply } from "../support/oidc.ts";

const NOW = new Date("2031-05-06T07:08:09Z");
const CANARIES = ["R3FRESH-canary-0123456789", OIDC_CLIENT.secret, "ACC3SS-canary-9876543210"];
const DOCUMENT: SecretDocument = { refresh_token: CANARIES[0], access_token: "old", scope: "a b", note: { kept: true }, expires_at: "2031-01-01T00:00:00Z" };
const PROVIDERS = ["google", "microsoft", "sharepoint"] as const;

const bytes = (body: unknown): Buffer => Buffer.from(typeof body === "string" ? body : JSON.stringify(body));

/** Renews at a provider that answers so; `provider`'s own library is in between. */
async function refresh(provider: (typeof PROVIDERS)[number], answer: Exclude<OddReply, "cut"> | Error, document = DOCUMENT): Promise<Refreshed> {
  const io = scriptedIo(async () => {
    if (answer instanceof Error) throw answer;
    return { status: answer.status, headers: answer.headers ?? {}, body: bytes(answer.body) };
  }, { now: () => NOW });
  const types = Object.values(providers[provider].types);
  const said = await types[0]?.refresh?.(document, io);
  if (said === undefined) throw new Error("it renews");
  // One request, whatever comes: libraries that try again would use a token twice.
  expect(io.asked.length).toBe(1);
  return said;
}

const TOKEN = { access_token: "new-token", token_type: "Bearer", expires_in: 3600 };

describe.each(PROVIDERS)("%s: how long a new token lasts", (provider) => {
  test.each<readonly [unknown, number]>([
    [3600, 3600], ["3600", 3600], [0, 60], [-1, 60], ["-5", 60], [59.9, 60], [61.9, 61], [1e12, 86_400], ["1000000000000", 86_400], [MAX_LIFETIME_SECONDS, 86_400],
    [undefined, 3600], [null, 3600], ["soon", 3600], ["", 3600], [[60], 3600], [{ s: 1 }, 3600], [true, 3600],
  ])("expires_in %j is taken as %d s from the request on", async (expires_in, seconds) => {
    const end = new Date(NOW.getTime() + seconds * 1000);
    const said = await refresh(provider, { status: 200, body: { ...TOKEN, expires_in } });
    expect(said).toMatchObject({ kind: "refreshed", tokenExpiresAt: end, document: { access_token: "new-token", expires_at: end.toISOString() } });
  });
});

describe.each(PROVIDERS)("%s: what a new token changes", (provider) => {
  test.each<readonly [string, Record<string, unknown>, SecretDocument]>([
    ["without a refresh token the old one stays", {}, {}],
    ["an empty one is none", { refresh_token: "" }, {}],
    ["null is none", { refresh_token: null }, {}],
    ["a new one is taken", { refresh_token: "second" }, { refresh_token: "second" }],
    ["scopes are taken where they are said", { scope: "a  c" }, { scope: "a c" }],
    ["an id token is not kept", { id_token: "e30.e30.x" }, {}],
    ["unknown keys of the answer are not kept", { ext: CANARIES[2], client_secret: "x" }, {}],
  ])("%s; everything else stays", async (_, more, change) => {
    const said = await refresh(provider, { status: 200, body: { ...TOKEN, ...more } });
    const end = new Date(NOW.getTime() + 3_600_000).toISOString();
    expect(said).toMatchObject({ kind: "refreshed", scopes: more["scope"] === undefined ? null : ["a", "c"] });
    expect(said.kind === "refreshed" && said.document).toEqual({ ...DOCUMENT, access_token: "new-token", token_type: "Bearer", expires_at: end, ...change });
  });
});

const hostile = { error_description: `token ${CANARIES[0]} of ${CANARIES[1]}`, access: CANARIES[2] };
const unavailable = (cause: string, retryAfterMs: number | null = null): Refreshed => ({ kind: "unavailable", cause, retryAfterMs });
const rejected = (cause: string): Refreshed => ({ kind: "rejected", cause });
const refused: Refreshed = { kind: "client_rejected", ours: true };

/** What each answer means. */
const MEANINGS: readonly (readonly [string, Exclude<OddReply, "cut"> | Error, Refreshed])[] = [
  ["invalid_grant", { status: 400, body: { error: "invalid_grant", ...hostile } }, rejected("invalid_grant")],
  ["an expired grant", { status: 400, body: { error: "invalid_grant", error_codes: [700082], ...hostile } }, rejected("grant_expired")],
  ["a grant revoked by a new password", { status: 400, body: { error: "invalid_grant", error_description: `AADSTS50173: ${CANARIES[0]}` } }, rejected("grant_revoked")],
  ["a disabled account", { status: 400, body: { error: "invalid_grant", error_codes: [50057] } }, rejected("account_disabled")],
  ["a second factor", { status: 400, body: { error: "interaction_required", error_codes: [50076] } }, rejected("interaction_required")],
  ["Google's new sign-in", { status: 400, body: { error: "invalid_grant", error_subtype: "invalid_rapt" } }, rejected("interaction_required")],
  ["consent that is missing", { status: 400, body: { error: "consent_required" } }, rejected("consent_required")],
  ["consent that is missing, by number", { status: 400, body: { error: "invalid_grant", error_codes: ["x", 65001] } }, rejected("consent_required")],
  ["an administrator's rule", { status: 400, body: { error: "admin_policy_enforced" } }, rejected("admin_policy_enforced")],
  ["invalid_client", { status: 401, body: { error: "invalid_client", ...hostile } }, refused],
  ["invalid_client with 400", { status: 400, body: { error: "invalid_client" } }, refused],
  ["unauthorized_client", { status: 400, body: { error: "unauthorized_client" } }, refused],
  ["a client secret that ended", { status: 401, body: { error: "invalid_client", error_codes: [7000222] } }, refused],
  ["a client that the tenant does not know", { status: 400, body: { error: "invalid_request", error_description: "AADSTS700016: no such application" } }, refused],
  ["401 with a page", { status: 401, body: `<html>${CANARIES[0]}</html>` }, unavailable("reply_unusable")],
  ["401 with an error that no token endpoint knows", { status: 401, body: { error: "unauthorized", ...hostile } }, unavailable("request_refused")],
  ["401 with JSON of somebody else", { status: 401, body: { message: "sign in at the proxy" } }, unavailable("request_refused")],
  ["too many requests", { status: 429, body: { error: "invalid_grant" }, headers: { "retry-after": "17" } }, unavailable("provider_throttled", 17_000)],
  ["too many requests, until a date", { status: 429, body: "", headers: { "retry-after": "Tue, 06 May 2031 07:09:09 GMT" } }, unavailable("provider_throttled", 60_000)],
  ["a pause of years", { status: 503, body: "", headers: { "retry-after": "9999999999" } }, unavailable("provider_error", 3_600_000)],
  ["a date long ago", { status: 503, body: "", headers: { "retry-after": "Tue, 06 May 2003 07:09:09 GMT" } }, unavailable("provider_error", 0)],
  ["a pause that is none", { status: 503, body: "", headers: { "retry-after": "-1" } }, unavailable("provider_error")],
  ["a pause that is text", { status: 503, body: "", headers: { "retry-after": "soon" } }, unavailable("provider_error")],
  ["a broken provider that says invalid_grant", { status: 500, body: { error: "invalid_grant" } }, unavailable("provider_error")],
  ["a gateway's page", { status: 502, body: `<html>${CANARIES[0]} ${CANARIES[1]}</html>` }, unavailable("provider_error")],
  ["slow_down", { status: 400, body: { error: "slow_down" } }, unavailable("provider_throttled")],
  ["temporarily_unavailable", { status: 400, body: { error: "temporarily_unavailable" } }, unavailable("provider_throttled")],
  ["an error nobody knows", { status: 400, body: { error: CANARIES[0], ...hostile } }, unavailable("request_refused")],
  ["an error that is no text", { status: 400, body: { error: { code: 400 } } }, unavailable("request_refused")],
  ["400 with a page", { status: 400, body: `<html>invalid_grant ${CANARIES[0]}</html>` }, unavailable("reply_unusable")],
  ["a redirect", { status: 302, body: "", headers: { location: "https://evil.example/" } }, unavailable("reply_unusable")],
  ["a page", { status: 200, body: "<html>hello</html>" }, unavailable("reply_unusable")],
  ["nothing", { status: 200, body: "" }, unavailable("reply_unusable")],
  ["no content", { status: 204, body: "" }, unavailable("reply_unusable")],
  ["null", { status: 200, body: "null" }, unavailable("reply_unusable")],
  ["a list", { status: 200, body: [TOKEN] }, unavailable("reply_unusable")],
  ["half of an answer", { status: 200, body: JSON.stringify(TOKEN).slice(0, 40) }, unavailable("reply_unusable")],
  ["no token", { status: 200, body: { ...TOKEN, access_token: undefined } }, unavailable("reply_unusable")],
  ["an error with status 200", { status: 200, body: { error: "invalid_grant" } }, unavailable("reply_unusable")],
  ["a token that is a number", { status: 200, body: { ...TOKEN, access_token: 7 } }, unavailable("reply_unusable")],
  ["a token with a line break", { status: 200, body: { ...TOKEN, access_token: "a\r\nb: c" } }, unavailable("reply_unusable")],
  ["an empty token", { status: 200, body: { ...TOKEN, access_token: "" } }, unavailable("reply_unusable")],
  ["a token without end", { status: 200, body: { ...TOKEN, access_token: "x".repeat(20_000) } }, unavailable("reply_unusable")],
  ["a refresh token with a letter beyond ASCII", { status: 200, body: { ...TOKEN, refresh_token: "ä" } }, unavailable("reply_unusable")],
  ["a refresh token that is an object", { status: 200, body: { ...TOKEN, refresh_token: {} } }, unavailable("reply_unusable")],
  ["10 MB", { status: 200, body: `{"access_token":"a","x":"${"x".repeat(10_000_000)}"}` }, unavailable("reply_unusable")],
  ["10 MB of an error", { status: 400, body: `{"error":"invalid_grant","x":"${"x".repeat(10_000_000)}"}` }, unavailable("reply_unusable")],
  ["depth", { status: 200, body: "[".repeat(60_000) }, unavailable("reply_unusable")],
  ["no connection", new DialError("connection_refused"), unavailable("provider_unreachable")],
  ["no time", new DialError("deadline_exceeded"), unavailable("deadline_exceeded")],
  ["more than is read", new DialError("too_much_data"), unavailable("reply_unusable")],
  ["an address that is not allowed", new DialError("address_not_allowed"), unavailable("provider_unreachable")],
  ["an error with the request in it", new Error(`POST refresh_token=${CANARIES[0]}&client_secret=${CANARIES[1]}`), unavailable("provider_unreachable")],
];

describe.each(PROVIDERS)("%s: an answer without a token", (provider) => {
  test.each(MEANINGS)("%s", async (_, answer, meaning) => {
    const said = await refresh(provider, answer);
    expect(said).toEqual(meaning);
    expect(leaks(CANARIES, "outcome", Buffer.from(JSON.stringify(said)))).toEqual([]);
  });

  test("a client of the caller's that is refused is not ours", async () => {
    const own = { ...DOCUMENT, client_id: "theirs", client_secret: "theirs" };
    expect(await refresh(provider, { status: 401, body: { error: "invalid_client" } }, own)).toEqual({ kind: "client_rejected", ours: false });
  });
});

describe.each(["microsoft", "sharepoint"] as const)("%s: our client in an account's own tenant", (provider) => {
  const account = { ...DOCUMENT, tenant_id: "6f1d7a52-0b7c-4d2e-9a51-3c1f0e8b7a11" };
  const answer = (error: string, code: number) => ({ status: error === "invalid_client" ? 401 : 400, body: { error, error_codes: [code], ...hostile } });

  test.each([["unauthorized_client", 700016], ["invalid_request", 700016], ["unauthorized_client", 7000112], ["unauthorized_client", 1]] as const)("%s %d ends the grant: its administrator does not allow the client", async (error, code) => {
    expect(await refresh(provider, answer(error, code), account)).toEqual(rejected("client_not_allowed"));
    expect(await refresh(provider, answer(error, code))).toEqual(refused);
    expect(await refresh(provider, answer(error, code), { ...account, client_id: "theirs", client_secret: "theirs" })).toEqual({ kind: "client_rejected", ours: false });
  });

  test.each([["invalid_client", 7000215], ["invalid_client", 7000222], ["invalid_client", 1], ["unauthorized_client", 7000215]] as const)("%s %d is ours to mend", async (error, code) => {
    expect(await refresh(provider, answer(error, code), account)).toEqual(refused);
  });
});

test("what is aborted meanwhile says so", async () => {
  const io = scriptedIo(async () => {
    io.abort();
    throw new Error("aborted");
  });
  expect(await providers.google.types.google_oauth?.refresh?.(DOCUMENT, io)).toEqual(unavailable("deadline_exceeded"));
});

test("a wire goes to one endpoint, once: a library that tries again or elsewhere sends nothing", async () => {
  const io = scriptedIo(async () => ({ status: 200, headers: {}, body: bytes(TOKEN) }));
  const elsewhere = new TokenWire(io, "https://idp.example/token");
  for (const url of ["https://evil.example/token", "https://idp.example/token/../x", "https://idp.example/token#", "https://idp.example.evil.example/token"]) {
    await expect(elsewhere.run(() => elsewhere.post(url, ""))).rejects.toThrow("request_not_sent");
  }
  expect(io.asked).toEqual([]);
  const wire = new TokenWire(io, "https://idp.example/token");
  expect(await wire.post("https://idp.example/token?client-request-id=1", "a=b")).toMatchObject({ accessToken: "new-token" });
  await expect(wire.post("https://idp.example/token", "a=b")).rejects.toThrow("request_not_sent");
  expect(io.asked).toEqual([{ method: "POST", url: "https://idp.example/token", body: "a=b" }]);
});

test("a library that takes offence at an answer does not lose the token in it", async () => {
  const io = scriptedIo(async () => ({ status: 200, headers: {}, body: bytes({ ...TOKEN, refresh_token: "second" }) }));
  const wire = new TokenWire(io, "https://idp.example/token");
  const run = wire.run(async () => {
    await wire.post("https://idp.example/token", "");
    throw new Error("no client_info");
  });
  expect(await run).toMatchObject({ accessToken: "new-token", refreshToken: "second" });
  await expect(new TokenWire(io, "https://idp.example/token").run(() => Promise.reject(new Error("no such scope")))).rejects.toThrow("request_not_sent");
});
