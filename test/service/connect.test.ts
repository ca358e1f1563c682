import { createHash, randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ScriptedBrowser } from "../support/browser.ts";
import { APP, type Connectable, newOrganization, startConnectable } from "../support/connect.ts";
import { objectIdOf, OIDC_CLIENT, TENANT } from "../support/oidc.ts";
import { rest } from "../support/service.ts";

let world: Connectable;
beforeAll(async () => {
  world = await startConnectable({ env: { CREDENTIALS_LIMIT_PER_PROVIDER: "3" } });
});
afterAll(() => world[Symbol.asyncDispose]());

const resolved = (id: string, machine: string) => rest(world.service, "GET", `/integrations/credentials/${id}/credentials`, { token: machine });
const get = (id: string, bearer: string) => rest(world.service, "GET", `/integrations/credentials/${id}`, { token: bearer });
/** The callback as a program opens it. */
const finish = async (url: string) => {
  const response = await fetch(url, { redirect: "manual" });
  return { status: response.status, json: (await response.json()) as any };
};
const audited = (organization: string) =>
  world.query("select actor_kind, actor_id, action, outcome, reason, credential_id from audit_event where organization_id = $1 and action like '%authorization' order by link, position", [organization]);

describe("an account is connected", () => {
  test("from the first request to a token that works at the provider", async () => {
    const { organization, user, bearer, machine } = await newOrganization();
    const begun = await world.begin(bearer);
    expect([begun.status, Object.keys(begun.json), begun.headers.get("set-cookie")]).toEqual([200, ["authorization_url"], null]);
    const url = new URL(begun.json.authorization_url);
    expect(Object.fromEntries(url.searchParams)).toMatchObject({ code_challenge_method: "S256", redirect_uri: world.callback, client_id: OIDC_CLIENT.id, access_type: "offline" });
    const callback = await world.agree(url.href);
    const { status, json } = await finish(callback);
    expect(status).toBe(200);
    expect(json).toEqual({ id: json.id, created_at: json.created_at, updated_at: json.created_at, modified_by: user, provider: "google", user_id: user, google_email: "user-1@example.com" });

    expect((await get(json.id, bearer)).json).toMatchObject({ credential_type: "google_oauth", status: "active", status_reason: null });
    const secret = (await resolved(json.id, machine)).json;
    expect(Object.keys(secret).toSorted()).toEqual(["access_token", "expires_at", "scopes", "token_type"]);
    const info = await fetch(`${world.oidc.origin}/me`, { headers: { authorization: `Bearer ${secret.access_token}` } });
    expect([info.status, ((await info.json()) as { sub: string }).sub]).toEqual([200, "user-1"]);

    const [row] = await world.query("select oauth_origin, account_id, requested_scopes, granted_scopes, renewable from credential where id = $1", [json.id]);
    expect(row).toMatchObject({ oauth_origin: "flow", account_id: "user-1", requested_scopes: expect.arrayContaining(["https://www.googleapis.com/auth/drive"]), granted_scopes: expect.arrayContaining(["openid"]), renewable: true });
    expect(await audited(organization)).toEqual([
      { actor_kind: "user", actor_id: user, action: "begin_authorization", outcome: "allowed", reason: null, credential_id: null },
      { actor_kind: "user", actor_id: user, action: "complete_authorization", outcome: "allowed", reason: null, credential_id: json.id },
    ]);
    expect(await world.query("select from oauth_state")).toEqual([]);
  });

  test("in a browser, which gets a cookie that nobody else reads, and a page", async () => {
    const { bearer } = await newOrganization();
    const browser = new ScriptedBrowser();
    const begun = await browser.open(`${world.front.origin}/integrations/google/authorize`, { authorization: `Bearer ${bearer}` });
    expect([begun.status, begun.body, begun.headers["set-cookie"]]).toEqual([302, "", [expect.stringMatching(/^flow-browser=[A-Za-z0-9_-]{43}; Max-Age=600; Path=\/; HttpOnly; SameSite=Lax$/)]]);
    const page = await browser.visit(begun.headers.location ?? "");
    expect([page.status, page.headers["content-type"], page.headers["cache-control"], page.headers["referrer-policy"]]).toEqual([200, "text/html; charset=utf-8", "no-store", "no-referrer"]);
    const policy = String(page.headers["content-security-policy"]);
    const hash = (tag: string) => `'sha256-${createHash("sha256").update(new RegExp(`<${tag}>([\\s\\S]*?)</${tag}>`).exec(page.body)?.[1] ?? "").digest("base64")}'`;
    for (const part of ["default-src 'none'", `script-src ${hash("script")}`, `style-src ${hash("style")}`, "frame-ancestors 'none'", "form-action 'none'"]) expect(policy).toContain(part);
    expect(policy).not.toContain("unsafe");
    for (const text of ["Account connected", "user-1@example.com is now connected.", "You can close this window.", "&quot;https://app.example&quot;"]) expect(page.body).toContain(text);
    expect(page.body).not.toMatch(/(?:src|href)="(?!data:)/);
  });

  test("and the browser goes on to where the user wants it to, with the credential's id", async () => {
    const { bearer } = await newOrganization();
    const browser = new ScriptedBrowser();
    const callback = await world.beginIn(browser, bearer, { redirect_to: `${APP}?tab=2&credential_id=x` });
    const page = await browser.open(callback);
    const onward = new URL(page.headers.location ?? "");
    expect([page.status, page.body, onward.origin + onward.pathname, onward.searchParams.get("tab"), page.headers["referrer-policy"]]).toEqual([302, "", APP, "2", "no-referrer"]);
    const id = onward.searchParams.getAll("credential_id");
    expect((await get(String(id), bearer)).status).toBe(200);
  });

  test("with the scopes that were asked for, and what is missing is told", async () => {
    const { bearer } = await newOrganization();
    world.oidc.state.alter = (reply) => void (reply["scope"] = "openid email User.Read");
    try {
      const begun = await world.begin(bearer, { scopes: "User.Read Mail.Send" });
      const asked = new URL(begun.json.authorization_url).searchParams.get("scope")?.split(" ") ?? [];
      expect(asked.filter((scope) => !["openid", "email"].includes(scope))).toEqual(["User.Read", "Mail.Send"]);
      const page = await new ScriptedBrowser().open(await world.agree(begun.json.authorization_url));
      expect(page.body).toContain("granted less than was asked for");
    } finally {
      world.oidc.state.alter = undefined;
    }
    const [listed] = (await rest(world.service, "GET", "/integrations/credentials", { token: bearer })).json;
    expect((await get(listed.id, bearer)).json).toMatchObject({ status: "active", status_reason: "scopes_reduced" });
  });
});

describe("a credential is authorized anew", () => {
  const connected = async (bearer: string): Promise<string> => (await finish(await world.agree((await world.begin(bearer)).json.authorization_url))).json.id;

  test("keeps its id, and is active again", async () => {
    const { bearer, machine } = await newOrganization();
    const id = await connected(bearer);
    const before = (await resolved(id, machine)).json.access_token;
    await world.query("update credential set status = 'reauth_required', status_reason = 'grant_revoked' where id = $1", [id]);
    const begun = await world.begin(bearer, { credential_id: id });
    expect(new URL(begun.json.authorization_url).searchParams.get("login_hint")).toBe("user-1@example.com");
    const page = await new ScriptedBrowser().open(await world.agree(begun.json.authorization_url));
    expect(page.body).toContain("Account connected again");
    expect((await get(id, bearer)).json).toMatchObject({ id, status: "active", status_reason: null });
    const after = (await resolved(id, machine)).json.access_token;
    expect(after).not.toBe(before);
    expect(await world.query("select secret_version, oauth_origin from credential where id = $1", [id])).toEqual([{ secret_version: "2", oauth_origin: "flow" }]);
    expect((await rest(world.service, "GET", "/integrations/credentials", { token: bearer })).json).toHaveLength(1);
  });

  test("but not by another account, and then nothing changes", async () => {
    const { bearer, organization } = await newOrganization();
    const id = await connected(bearer);
    const begun = await world.begin(bearer, { credential_id: id, redirect_to: APP });
    const url = new URL(begun.json.authorization_url);
    url.searchParams.set("login_hint", "somebody-else@example.com");
    const callback = await world.agree(url.href);
    const page = await new ScriptedBrowser().open(callback);
    expect([page.status, page.headers.location]).toEqual([302, `${APP}?error=authorization_other_account`]);
    expect(await world.query("select secret_version, account_id from credential where id = $1", [id])).toEqual([{ secret_version: "1", account_id: "user-1" }]);
    expect((await audited(organization)).at(-1)).toMatchObject({ action: "complete_authorization", outcome: "refused", reason: "AUTHORIZATION_OTHER_ACCOUNT", credential_id: id });
  });

  test("by two flows at the same time, which both finish", async () => {
    const { bearer, machine } = await newOrganization();
    const id = await connected(bearer);
    const browser = new ScriptedBrowser();
    const callbacks = [await world.beginIn(browser, bearer, { credential_id: id }), await world.beginIn(browser, bearer, { credential_id: id })];
    const pages = await Promise.all(callbacks.map((url) => browser.open(url)));
    expect(pages.map(({ status }) => status)).toEqual([200, 200]);
    expect(await world.query("select secret_version from credential where id = $1", [id])).toEqual([{ secret_version: "3" }]);
    expect((await resolved(id, machine)).status).toBe(200);
  });

  test("and a PATCH makes it the caller's own again", async () => {
    const { bearer } = await newOrganization();
    const id = await connected(bearer);
    const body = { credential_type: "google_oauth", credentials: { access_token: "posted" } };
    expect((await rest(world.service, "PATCH", `/integrations/credentials/${id}`, { token: bearer, body })).status).toBe(200);
    expect(await world.query("select oauth_origin, account_id, requested_scopes, granted_scopes from credential where id = $1", [id])).toEqual([{ oauth_origin: "posted", account_id: null, requested_scopes: null, granted_scopes: null }]);
  });

  test("only in its own organization, and as what it is", async () => {
    const { bearer } = await newOrganization();
    const stranger = await newOrganization();
    const id = await connected(bearer);
    for (const unknown of [id, randomUUID()]) expect((await world.begin(stranger.bearer, { credential_id: unknown })).json.error.message).toBe("Credential not found");
    const body = { provider: "google", credential_type: "api_key", credentials: { api_key: "k" } };
    const other = await rest(world.service, "POST", "/integrations/credentials", { token: bearer, body: { ...body, provider: "sftp", credential_type: "user_password", credentials: { host: "h.example", username: "u", password: "p" } } });
    expect((await world.begin(bearer, { credential_id: other.json.id })).json.detail).toEqual([{ loc: ["body", "credential_id"], msg: "The credential belongs to another provider", type: "value_error" }]);
    expect((await world.begin(bearer, { credential_id: "nonsense" })).json.error.message).toBe("Invalid credential ID");
  });
});

describe("once a person has consented", () => {
  /** Opens the callback and goes away while the provider is asked for the tokens. */
  const leave = async (callback: string) => {
    const asked = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    world.oidc.state.alter = () => (asked.resolve(), gate.promise);
    const leaving = new AbortController();
    const answer = fetch(callback.replace(world.front.origin, world.service.rest), { signal: leaving.signal, redirect: "manual" }).catch((error: unknown) => error);
    await asked.promise;
    leaving.abort();
    expect(await answer).toMatchObject({ name: "AbortError" });
    world.oidc.state.alter = undefined;
    gate.resolve();
  };

  test("the account is connected, although the window was closed before the page was there", async () => {
    const { bearer, machine } = await newOrganization();
    await leave(await world.agree((await world.begin(bearer)).json.authorization_url));
    const list = async () => (await rest(world.service, "GET", "/integrations/credentials", { token: bearer })).json as { id: string }[];
    await expect.poll(async () => (await list()).length, { timeout: 10_000 }).toBe(1);
    expect((await resolved((await list())[0]?.id ?? "", machine)).status).toBe(200);
  });
});

test("going back to a grant that the service obtained gives a credential that it renews, of the same account", async () => {
  const { bearer } = await newOrganization();
  const { id } = (await finish(await world.agree((await world.begin(bearer)).json.authorization_url))).json;
  const facts = () => world.query("select oauth_origin, account_id, requested_scopes, granted_scopes, renewable from credential where id = $1", [id]);
  const before = await facts();
  const posted = { credential_type: "google_oauth", credentials: { access_token: "posted", expires_at: new Date(Date.now() + 3_600_000).toISOString() }, keep_previous_seconds: 3600 };
  expect((await rest(world.service, "PATCH", `/integrations/credentials/${id}`, { token: bearer, body: posted })).json).toMatchObject({ id });
  expect(await facts()).toEqual([{ oauth_origin: "posted", account_id: null, requested_scopes: null, granted_scopes: null, renewable: false }]);
  expect((await rest(world.service, "POST", `/integrations/credentials/${id}/rollback`, { token: bearer, body: {} })).status).toBe(200);
  expect(await facts()).toEqual(before);
});

test("when a token ends is counted by the database's clock", async () => {
  const ahead = "data:text/javascript,const%20real=Date.now;Date=class%20extends%20Date{constructor(...a){super(...(a.length?a:[real()+300000]))}static%20now(){return%20real()+300000}}";
  await using world = await startConnectable({ env: { NODE_OPTIONS: `--import=${ahead}` } });
  const { bearer } = await newOrganization();
  const { id } = (await finish(await world.agree((await world.begin(bearer)).json.authorization_url))).json;
  const [row] = await world.query("select extract(epoch from token_expires_at - created_at)::integer between 3590 and 3601 as right from credential where id = $1", [id]);
  expect(row).toEqual({ right: true });
});

describe("it is refused", () => {
  test("where the credential is deleted while the user signs in, and the code is not used", async () => {
    const { bearer } = await newOrganization();
    const id = (await finish(await world.agree((await world.begin(bearer)).json.authorization_url))).json.id;
    const callback = await world.agree((await world.begin(bearer, { credential_id: id })).json.authorization_url);
    expect((await rest(world.service, "DELETE", `/integrations/credentials/${id}`, { token: bearer })).status).toBe(204);
    const calls = world.oidc.calls();
    expect(await finish(callback)).toMatchObject({ status: 404, json: { error: { message: "Credential not found" } } });
    expect(world.oidc.calls()).toBe(calls);
  });

  test("to a service account, and for a provider that has no client here", async () => {
    const { bearer, machine } = await newOrganization();
    expect((await world.begin(machine)).json.error).toMatchObject({ code: "forbidden", message: "User account required" });
    expect((await rest(world.service, "GET", "/integrations/google/authorize")).status).toBe(401);
    for (const provider of ["microsoft", "sharepoint", "sftp"]) expect([provider, (await world.begin(bearer, {}, provider)).json.error.message]).toEqual([provider, expect.stringContaining("cannot be connected here")]);
    expect((await world.begin(bearer, {}, "nothing")).json.error.message).toBe("Invalid provider");
  });

  test("where the limit is reached when the user comes back, and the tokens are not kept", async () => {
    const { bearer, organization } = await newOrganization();
    const urls = await Promise.all(Array.from({ length: 4 }, async () => (await world.begin(bearer, { redirect_to: APP })).json.authorization_url as string));
    const callbacks = await Promise.all(urls.map((url) => world.agree(url)));
    const pages = await Promise.all(callbacks.map((url) => new ScriptedBrowser().open(url)));
    const refused = pages.filter(({ headers }) => headers.location?.includes("error="));
    expect(refused.map(({ headers }) => headers.location)).toEqual([`${APP}?error=limit_per_provider_reached`]);
    expect(await world.query("select n from credential_counter where organization_id = $1 and counter = 'provider:google'", [organization])).toEqual([{ n: 3 }]);
  });

  test("where the user says no at the provider", async () => {
    const { bearer } = await newOrganization();
    world.oidc.state.consent = false;
    try {
      const [there, here] = [(await world.begin(bearer, { redirect_to: APP })).json, (await world.begin(bearer)).json];
      const denied = await world.agree(here.authorization_url);
      expect(denied).toContain("error=access_denied");
      expect((await new ScriptedBrowser().open(await world.agree(there.authorization_url))).headers.location).toBe(`${APP}?error=authorization_denied`);
      const page = await new ScriptedBrowser().open(denied);
      expect([page.status, page.headers["content-type"]]).toEqual([400, "text/html; charset=utf-8"]);
      for (const text of ["The account was not connected", "told not to give access", "Nothing was stored"]) expect(page.body).toContain(text);
      expect(page.body).not.toContain("the user said no");
    } finally {
      world.oidc.state.consent = true;
    }
  });

  test.each([
    ["code_rejected", { status: 400, body: { error: "invalid_grant" } }, 400, "AUTHORIZATION_FAILED"],
    ["our client", { status: 401, body: { error: "invalid_client" } }, 500, "PROVIDER_REJECTS_CLIENT"],
    ["down", { status: 503, body: "<html>down</html>" }, 503, "PROVIDER_UNAVAILABLE"],
    ["cut off", "cut" as const, 503, "PROVIDER_UNAVAILABLE"],
  ])("where the provider's answer to the code is: %s", async (_what, odd, status, reason) => {
    const { bearer, organization } = await newOrganization();
    const callback = await world.agree((await world.begin(bearer)).json.authorization_url);
    world.oidc.state.odd = () => odd;
    try {
      expect((await finish(callback)).status).toBe(status);
    } finally {
      world.oidc.state.odd = undefined;
    }
    expect((await audited(organization)).at(-1)).toMatchObject({ action: "complete_authorization", reason });
    expect((await finish(callback)).json.error.message).toContain("is not known, has been used or has expired");
  });
});

test("an authorization is anonymous to whoever looks at the wire, the log and the database", async () => {
  const { bearer } = await newOrganization();
  const begun = await world.begin(bearer, { redirect_to: APP });
  const state = new URL(begun.json.authorization_url).searchParams.get("state") ?? "";
  const [row] = await world.query<{ stored: string }>("select row_to_json(a)::text || row_to_json(s)::text as stored from oauth_authorization a join oauth_state s on s.authorization_id = a.id order by a.created_at desc limit 1");
  const hash = createHash("sha256").update(state).digest("hex");
  expect([row?.stored.includes(hash), row?.stored.includes(state), row?.stored.includes("app.example")]).toEqual([true, false, false]);
  const callback = await world.agree(begun.json.authorization_url);
  const code = new URL(callback).searchParams.get("code") ?? "";
  await new ScriptedBrowser().open(callback);
  const secrets = [state, code, OIDC_CLIENT.secret, ...world.oidc.issued, ...world.oidc.asked.flatMap(({ form }) => [form.get("code_verifier"), form.get("refresh_token")])].filter((text): text is string => typeof text === "string" && text !== "");
  expect(secrets.length).toBeGreaterThan(6);
  for (const text of secrets) expect(world.service.output()).not.toContain(text);
});

test.each(["microsoft", "sharepoint"])("an account of %s is connected, and authorized anew", async (provider) => {
  await using world = await startConnectable({ oidc: { dress: "microsoft" } });
  const { bearer, machine, user } = await newOrganization();
  const flow = async (parameters: Record<string, string> = {}) => finish(await world.agree((await world.begin(bearer, parameters, provider)).json.authorization_url));
  const { status, json } = await flow();
  expect([status, json.provider, json.user_id]).toEqual([200, provider, user]);
  const [row] = await world.query<{ account_id: string }>("select oauth_origin, account_id, account_email, renewable, status_reason from credential where id = $1", [json.id]);
  expect(row).toEqual({ oauth_origin: "flow", account_id: `${objectIdOf("user-1")}.${TENANT}`, account_email: "user-1@example.com", renewable: true, status_reason: null });
  const secret = (await rest(world.service, "GET", `/integrations/credentials/${json.id}/credentials`, { token: machine })).json;
  expect(await world.oidc.subjectOf(secret.access_token)).toBe("user-1");
  expect(await flow({ credential_id: json.id })).toMatchObject({ status: 200, json: { id: json.id } });
  world.oidc.state.account = "user-2";
  const begun = new URL((await world.begin(bearer, { credential_id: json.id }, provider)).json.authorization_url);
  begun.searchParams.delete("login_hint");
  expect(await finish(await world.agree(begun.href))).toMatchObject({ status: 400, json: { error: { message: expect.stringContaining("Another account signed in") } } });
  const evil = new URL(await world.agree((await world.begin(bearer, {}, provider)).json.authorization_url));
  evil.searchParams.set("iss", "https://evil.example");
  expect((await finish(evil.href)).status).toBe(400);
});
