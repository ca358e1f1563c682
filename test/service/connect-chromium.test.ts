import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createCredentialClient } from "../../src/client/index.ts";
import { chromiumInstalled, complaints, picture, startChromium } from "../support/chromium.ts";
import { type Connectable, newOrganization, startConnectable } from "../support/connect.ts";
import { rest } from "../support/service.ts";

/** A platform's own page: asks for the URL with its user's token, opens a window for it, and waits to hear. */
const PLATFORM = (api: string, bearer: string) => `<!doctype html><title>Platform</title><button>Connect</button><output></output><script>
addEventListener("message", ({ origin, data }) => { document.querySelector("output").textContent = JSON.stringify({ origin, data }); });
document.querySelector("button").onclick = async () => {
  const opened = window.open("about:blank");
  const response = await fetch(${JSON.stringify(`${api}/integrations/google/authorize`)}, { headers: { authorization: ${JSON.stringify(`Bearer ${bearer}`)} } });
  opened.location = (await response.json()).authorization_url;
};
</script>`;

/** Serves one page. */
async function startPlatform() {
  const state = { page: "" };
  const server = createServer((_request, response) => void response.writeHead(200, { "content-type": "text/html" }).end(state.page));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  return { state, origin: `http://localhost:${(server.address() as AddressInfo).port}`, [Symbol.asyncDispose]: close };
}

describe.skipIf(!chromiumInstalled)("in Chromium", () => {
  let browser: Browser;
  let world: Connectable;
  let platform: Awaited<ReturnType<typeof startPlatform>>;
  beforeAll(async () => {
    platform = await startPlatform();
    world = await startConnectable({ oidc: { pages: true }, env: { CREDENTIALS_CORS_ORIGINS: platform.origin, CREDENTIALS_OAUTH_REDIRECTS: `${platform.origin}/back,https://elsewhere.example` } });
    browser = await startChromium();
  }, 60_000);
  afterAll(async () => {
    await browser.close();
    await world[Symbol.asyncDispose]();
    await platform[Symbol.asyncDispose]();
  });

  /** A person at the provider. */
  const signIn = async (page: Page, account: string) => {
    await page.getByLabel("Account").fill(account);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("button", { name: "Allow" }).click();
  };

  test("a person signs in and consents, and an executor gets a token that works", async () => {
    const { bearer, machine } = await newOrganization();
    await using context = await browser.newContext();
    const page = await context.newPage();
    const lines = complaints(page);
    world.front.state.bearer = bearer;
    await page.goto(`${world.front.origin}/integrations/google/authorize`);
    world.front.state.bearer = undefined;
    const [cookie] = (await context.cookies(world.front.origin)).filter(({ name }) => name === "flow-browser");
    expect(cookie).toMatchObject({ httpOnly: true, sameSite: "Lax", path: "/" });
    await signIn(page, "chromium-user");
    await page.getByRole("heading", { name: "Account connected" }).waitFor();
    expect(await page.locator("main").innerText()).toContain("chromium-user@example.com is now connected.");
    // The code and the state are gone from the address bar and the history.
    await expect.poll(() => page.url()).toBe(world.callback);
    expect(lines).toEqual([]);
    await picture(page, "connected");

    const [{ id }] = (await rest(world.service, "GET", "/integrations/credentials", { token: bearer })).json;
    await using executor = createCredentialClient({ target: world.service.grpc, token: machine });
    const { credentials } = await executor.resolveCredential({ credentialId: id });
    if (credentials?.$case !== "oauthToken") throw new Error("it is an OAuth token");
    const info = await fetch(`${world.oidc.origin}/me`, { headers: { authorization: `Bearer ${credentials.value.accessToken}` } });
    expect([info.status, ((await info.json()) as { sub: string }).sub]).toEqual([200, "chromium-user"]);
  });

  test("a window that a platform has opened tells it what came of it, and closes", async () => {
    const { bearer } = await newOrganization();
    platform.state.page = PLATFORM(world.front.origin, bearer);
    await using context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(`${platform.origin}/back`);
    const [popup] = await Promise.all([context.waitForEvent("page"), page.getByRole("button", { name: "Connect" }).click()]);
    const closed = popup.waitForEvent("close");
    await signIn(popup, "popup-user");
    await closed;
    await expect.poll(() => page.locator("output").innerText()).not.toBe("");
    const [{ id }] = (await rest(world.service, "GET", "/integrations/credentials", { token: bearer })).json;
    expect(JSON.parse(await page.locator("output").innerText())).toEqual({ origin: world.front.origin, data: { type: "flow-credentials", credential_id: id } });
  });

  test("a window in which a person refuses tells that too, and closes", async () => {
    const { bearer } = await newOrganization();
    platform.state.page = PLATFORM(world.front.origin, bearer);
    await using context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(`${platform.origin}/back`);
    const [popup] = await Promise.all([context.waitForEvent("page"), page.getByRole("button", { name: "Connect" }).click()]);
    const closed = popup.waitForEvent("close");
    await popup.getByLabel("Account").fill("refusing-user");
    await popup.getByRole("button", { name: "Sign in" }).click();
    await popup.getByRole("button", { name: "Allow" }).waitFor();
    world.oidc.state.consent = false;
    await popup.getByRole("button", { name: "Allow" }).click();
    await closed;
    world.oidc.state.consent = true;
    await expect.poll(() => page.locator("output").innerText()).not.toBe("");
    expect(JSON.parse(await page.locator("output").innerText())).toEqual({ origin: world.front.origin, data: { type: "flow-credentials", error: "authorization_denied" } });
  });

  test("a window that anybody else has opened tells nothing and stays", async () => {
    const { bearer } = await newOrganization();
    platform.state.page = PLATFORM(world.front.origin, bearer);
    await using stranger = await startPlatform();
    await using context = await browser.newContext();
    const page = await context.newPage();
    const begun = await world.begin(bearer);
    stranger.state.page = `<!doctype html><output></output><script>addEventListener("message", ({ data }) => { document.querySelector("output").textContent = JSON.stringify(data); }); window.open(${JSON.stringify(begun.json.authorization_url)});</script>`;
    const [popup] = await Promise.all([context.waitForEvent("page"), page.goto(stranger.origin)]);
    await signIn(popup, "stranger-user");
    await expect.poll(async () => (await rest(world.service, "GET", "/integrations/credentials", { token: bearer })).json.length).toBe(1);
    await expect.poll(() => popup.isClosed() || popup.url() === world.callback).toBe(true);
    expect(await page.locator("output").innerText()).toBe("");
  });

  test("the page says everything without a script, and what to do where it failed", async () => {
    await using context = await browser.newContext({ javaScriptEnabled: false, colorScheme: "dark", viewport: { width: 390, height: 700 } });
    const page = await context.newPage();
    const response = await page.goto(`${world.callback}?state=unknown&code=x`);
    expect(response?.status()).toBe(400);
    const text = await page.locator("main").innerText();
    for (const part of ["The account was not connected", "has been used or has expired", "Begin again", "You can close this window."]) expect(text).toContain(part);
    await picture(page, "failed");
  });
});
