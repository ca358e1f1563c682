import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ScriptedBrowser } from "../support/browser.ts";
import { APP, type Connectable, newOrganization, startConnectable } from "../support/connect.ts";
import { rest, spawnService } from "../support/service.ts";

let world: Connectable;
beforeAll(async () => {
  world = await startConnectable({ env: { CREDENTIALS_MICROSOFT_CLIENT_ID: "m", CREDENTIALS_MICROSOFT_CLIENT_SECRET: "m-secret", CREDENTIALS_OAUTH_IN_PROGRESS_PER_USER: "3" } });
});
afterAll(() => world[Symbol.asyncDispose]());

/** What a program gets, without what differs from request to request. */
async function answer(url: string, headers: Record<string, string> = {}): Promise<[number, string]> {
  const response = await fetch(url, { redirect: "manual", headers });
  return [response.status, (await response.text()).replace(/[0-9A-HJKMNP-TV-Z]{26}/g, "REQUEST")];
}

const UNKNOWN: [number, string] = [
  400,
  '{"error":{"message":"This authorization is not known, has been used or has expired; begin again","code":"bad_request","details":null},"request_id":"REQUEST"}',
];

/** A callback that would succeed. */
async function good(parameters: Record<string, string> = {}) {
  const someone = await newOrganization();
  return { ...someone, callback: await world.agree((await world.begin(someone.bearer, parameters)).json.authorization_url) };
}
const changed = (url: string, change: (parameters: URLSearchParams, whole: URL) => void): string => {
  const whole = new URL(url);
  change(whole.searchParams, whole);
  return whole.href;
};

describe("a state", () => {
  test.each<[string, (parameters: URLSearchParams, whole: URL) => void]>([
    ["is missing", (parameters) => parameters.delete("state")],
    ["is empty", (parameters) => parameters.set("state", "")],
    ["is made up", (parameters) => parameters.set("state", randomBytes(32).toString("base64url"))],
    ["is cut", (parameters) => parameters.set("state", (parameters.get("state") ?? "").slice(0, -1))],
    ["is very long", (parameters) => parameters.set("state", "x".repeat(4_000))],
    ["is no text", (parameters) => parameters.set("state", "\0'; drop table oauth_state; --")],
    ["is of another provider", (_parameters, whole) => (whole.pathname = "/integrations/microsoft/callback")],
    ["is of a provider without a flow", (_parameters, whole) => (whole.pathname = "/integrations/sftp/callback")],
  ])("that %s gets the one answer, and no code is exchanged", async (_what, change) => {
    const { callback, bearer } = await good();
    const calls = world.oidc.calls();
    expect(await answer(changed(callback, change))).toEqual(UNKNOWN);
    expect(world.oidc.calls()).toBe(calls);
    // Nobody but the right one has used it up.
    expect((await answer(callback))[0]).toBe(200);
    expect((await rest(world.service, "GET", "/integrations/credentials", { token: bearer })).json).toHaveLength(1);
  });

  test("is good once, also for many at the same time", async () => {
    const { callback, bearer } = await good();
    const answers = await Promise.all(Array.from({ length: 12 }, () => answer(callback)));
    expect(answers.filter(([status]) => status === 200)).toHaveLength(1);
    expect(answers.filter(([status]) => status !== 200)).toEqual(Array.from({ length: 11 }, () => UNKNOWN));
    expect((await rest(world.service, "GET", "/integrations/credentials", { token: bearer })).json).toHaveLength(1);
  });

  test("is good for ten minutes by the database's clock", async () => {
    const { callback, organization, bearer } = await good();
    const [row] = await world.query<{ seconds: number }>("select extract(epoch from expires_at - created_at)::integer as seconds from oauth_authorization where organization_id = $1", [organization]);
    expect(row).toEqual({ seconds: 600 });
    await world.query("update oauth_authorization set created_at = created_at - interval '600 s', expires_at = now() where organization_id = $1", [organization]);
    expect(await answer(callback)).toEqual(UNKNOWN);
    // What has expired goes with the next one that begins.
    await world.begin(bearer);
    expect(await world.query("select from oauth_authorization where organization_id = $1", [organization])).toHaveLength(1);
  });

  test("given twice is a fault of the request", async () => {
    const { callback } = await good();
    expect((await answer(`${callback}&state=x`))[0]).toBe(422);
  });

  test("gives way to newer ones of the same user", async () => {
    const { bearer, organization } = await newOrganization();
    const urls: string[] = [];
    for (let count = 0; count < 5; count += 1) urls.push((await world.begin(bearer)).json.authorization_url);
    expect(await world.query("select from oauth_authorization where organization_id = $1", [organization])).toHaveLength(3);
    const statuses: number[] = [];
    for (const url of urls) statuses.push((await answer(await world.agree(url)))[0]);
    expect(statuses).toEqual([400, 400, 200, 200, 200]);
  });
});

describe("a browser", () => {
  test("finishes only what it has begun", async () => {
    const { bearer } = await newOrganization();
    const [mine, theirs, quiet] = [new ScriptedBrowser(), new ScriptedBrowser(), new ScriptedBrowser()];
    const callback = await world.beginIn(mine, bearer);
    await world.beginIn(theirs, bearer);
    const calls = world.oidc.calls();
    for (const other of [theirs, quiet]) {
      const page = await other.open(callback);
      expect([page.status, page.body.includes("is not known, has been used or has expired")]).toEqual([400, true]);
    }
    const cookie = [...(mine.cookies.get("127.0.0.1") ?? [])].find(([name]) => name === "flow-browser")?.[1] ?? "";
    for (const header of [`flow-browser=${cookie}; flow-browser=${cookie}`, `__Host-flow-browser=${cookie}`, `flow-browser=${cookie}x`]) expect((await answer(callback, { cookie: header }))[0]).toBe(400);
    expect(world.oidc.calls()).toBe(calls);
    expect((await mine.open(callback)).status).toBe(200);
  });

  test("keeps one cookie for several flows, each of which finishes", async () => {
    const { bearer } = await newOrganization();
    const browser = new ScriptedBrowser();
    const first = await world.beginIn(browser, bearer);
    const kept = browser.cookies.get("127.0.0.1")?.get("flow-browser");
    const second = await world.beginIn(browser, bearer);
    expect(browser.cookies.get("127.0.0.1")?.get("flow-browser")).toBe(kept);
    for (const url of [second, first]) expect((await browser.open(url)).status).toBe(200);
  });

  test("asks for a page with text/html and nothing less", async () => {
    const { bearer } = await newOrganization();
    const begin = (accept: string) => fetch(`${world.front.origin}/integrations/google/authorize`, { redirect: "manual", headers: { authorization: `Bearer ${bearer}`, accept } }).then(({ status }) => status);
    expect(await Promise.all(["text/html", "application/json, TEXT/HTML;q=0.1"].map(begin))).toEqual([302, 302]);
    expect(await Promise.all(["*/*", "text/*", "application/json", "text/html;q=0", "text/htmlx"].map(begin))).toEqual([200, 200, 200, 200, 200]);
  });

  test("sees no markup of a request, only the service's own sentences", async () => {
    const browser = new ScriptedBrowser();
    const evil = "<script>alert(1)</script>";
    const page = await browser.open(`${world.callback}?state=${encodeURIComponent(evil)}&error=${encodeURIComponent(evil)}&error_description=${encodeURIComponent(evil)}&code=${encodeURIComponent(evil)}`);
    expect([page.status, page.body.includes("alert")]).toEqual([400, false]);
    expect(page.headers["content-security-policy"]).toContain("default-src 'none'");
    const cors = await fetch(world.callback, { headers: { origin: "https://evil.example" } });
    expect(cors.headers.get("access-control-allow-origin")).toBeNull();
  });
});

describe("addresses", () => {
  test("come from the settings, whatever the request says of its host", async () => {
    const { bearer } = await newOrganization();
    const headers = { host: "evil.example", "x-forwarded-host": "evil.example", "x-forwarded-proto": "https", forwarded: "host=evil.example", "x-original-url": "https://evil.example/" };
    const browser = new ScriptedBrowser();
    const begun = await browser.open(`${world.service.rest}/integrations/google/authorize`, { ...headers, authorization: `Bearer ${bearer}` });
    expect(new URL(begun.headers.location ?? "").searchParams.get("redirect_uri")).toBe(world.callback);
    expect(JSON.stringify(begun.headers)).not.toContain("evil");
  });

  test.each([
    "https://evil.example/connected", "https://app.example", "https://app.example/", "https://app.example/connectedness", "https://app.example/other", "http://app.example/connected",
    "https://app.example:444/connected", "https://app.example.evil.example/connected", "https://app.example@evil.example/connected", "https://user@app.example/connected",
    "https://app.example/connected/../other", "https://app.example/connected/%2e%2e/other", "https://app.example/connected/..%2fother", "https://app.example/connected\\..\\other",
    "https:\\\\evil.example/connected", "//app.example/connected", "/connected", "javascript:alert(1)", "data:text/html,x", "https://app.example/connected#x", "https://app.example/connected\n",
    " https://app.example/connected", "https://APP.example/connected", "https://app.example:443/connected", `https://app.example/connected?${"x".repeat(1_024)}`, "http://localhost:3001/", "http://localhost.evil.example:3000/",
  ])("to go on to are not: %j", async (address) => {
    const { bearer } = await newOrganization();
    const { status, json } = await world.begin(bearer, { redirect_to: address });
    expect([status, json.detail]).toEqual([422, [{ loc: ["body", "redirect_to"], msg: "Input should be an address that the operator allows", type: "value_error" }]]);
  });

  test.each([APP, `${APP}/`, `${APP}/deep/er?a=b`, "http://localhost:3000/", "http://localhost:3000/any?x=%2F"])("to go on to are: %j", async (address) => {
    const { bearer } = await newOrganization();
    expect((await world.begin(bearer, { redirect_to: address })).status).toBe(200);
  });

  test.each([
    [{ CREDENTIALS_OAUTH_REDIRECTS: "https://app.example/#x" }, "CREDENTIALS_OAUTH_REDIRECTS: every entry must be"],
    [{ CREDENTIALS_OAUTH_REDIRECTS: "http://app.example" }, "CREDENTIALS_OAUTH_REDIRECTS: every entry must be"],
    [{ CREDENTIALS_OAUTH_REDIRECTS: "https://app.example/?x=1" }, "CREDENTIALS_OAUTH_REDIRECTS: every entry must be"],
    [{ CREDENTIALS_PUBLIC_URL: "http://public.example" }, "CREDENTIALS_PUBLIC_URL must be an https URL"],
    [{ CREDENTIALS_PUBLIC_URL: "https://u:p@public.example" }, "CREDENTIALS_PUBLIC_URL must be an https URL"],
    [{ CREDENTIALS_PROFILE: "production", CREDENTIALS_PUBLIC_URL: "http://127.0.0.1:8080" }, "CREDENTIALS_PUBLIC_URL must be https in production"],
    [{ CREDENTIALS_PROFILE: "production", CREDENTIALS_GOOGLE_CLIENT_ID: "x" }, "CREDENTIALS_PUBLIC_URL is required in production"],
  ])("in the settings are refused at the start: %j", async (env, message) => {
    const { ended, output } = spawnService({ PATH: process.env["PATH"] ?? "", ...env });
    expect(await ended).not.toBe(0);
    expect(output()).toContain(message);
  });
});

describe("an answer of somebody else", () => {
  test("by its issuer is refused, and its code is not used", async () => {
    const { callback } = await good();
    const calls = world.oidc.calls();
    const [status, text] = await answer(changed(callback, (parameters) => parameters.set("iss", "https://evil.example")));
    expect([status, text]).toEqual([400, expect.stringContaining("cannot be used; nothing was stored")]);
    expect(world.oidc.calls()).toBe(calls);
    expect(await answer(callback)).toEqual(UNKNOWN);
  });

  test("with another code is refused by the verifier that only this flow has", async () => {
    const [one, two] = [await good(), await good()];
    const code = new URL(one.callback).searchParams.get("code") ?? "";
    const [status] = await answer(changed(two.callback, (parameters) => parameters.set("code", code)));
    expect(status).toBe(400);
    expect((await rest(world.service, "GET", "/integrations/credentials", { token: two.bearer })).json).toEqual([]);
  });

  test("in the database is noticed: a row that names another user or organization does not open or is not believed", async () => {
    const [victim, attacker] = [await good(), await newOrganization()];
    await world.query("update oauth_authorization set user_id = $2 where organization_id = $1", [victim.organization, attacker.user]);
    expect(await answer(victim.callback)).toEqual(UNKNOWN);
    const other = await good();
    await world.query("update oauth_authorization set sealed = set_byte(sealed, 40, get_byte(sealed, 40) # 1) where organization_id = $1", [other.organization]);
    expect((await answer(other.callback))[0]).toBe(500);
    expect(world.service.output()).toContain("does not open");
  });
});
