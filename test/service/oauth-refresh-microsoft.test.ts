import { describe, expect, test } from "vitest";
import type { SecretDocument } from "../../src/domain/credential.ts";
import type { OauthIo } from "../../src/domain/oauth.ts";
import { providers } from "../../src/providers/index.ts";
import { closedIo, oauthIo } from "../support/oauth-io.ts";
import { OIDC_CLIENT, startOidc, TENANT } from "../support/oidc.ts";

const shapes = { microsoft: providers.microsoft.types.oauth2, sharepoint: providers.sharepoint.types.sharepoint_oauth };

async function refresh(document: SecretDocument, io: OauthIo, provider: keyof typeof shapes = "microsoft") {
  const said = await shapes[provider]?.refresh?.(document, io);
  if (said === undefined) throw new Error("Microsoft renews");
  return said;
}
async function refreshed(...given: Parameters<typeof refresh>) {
  const said = await refresh(...given);
  if (said.kind !== "refreshed") throw new Error(JSON.stringify(said));
  return said;
}

describe("a Microsoft grant is renewed by Microsoft's library", () => {
  test("with rotation, at the tenant of the document, in one request; the old token then ends the grant", async () => {
    await using idp = await startOidc({ dress: "microsoft" });
    const { refreshToken } = await idp.grant("anna");
    const io = oauthIo(idp);
    const first = await refreshed({ refresh_token: refreshToken, tenant_id: TENANT, scope: "User.Read Mail.Send", note: 7 }, io);
    expect(first.document).toMatchObject({ tenant_id: TENANT, note: 7, token_type: "Bearer" });
    expect(first.document["refresh_token"]).not.toBe(refreshToken);
    expect(await idp.subjectOf(String(first.document["access_token"]))).toBe("anna");
    expect(io.asked.map(({ method, url }) => `${method} ${url}`)).toEqual([`POST ${idp.origin}/${TENANT}/oauth2/v2.0/token`]);
    expect(idp.asked[0]?.form.get("scope")?.split(" ")).toEqual(["User.Read", "Mail.Send", "openid", "profile", "offline_access"]);

    const second = await refreshed(first.document, oauthIo(idp));
    expect(second.document["access_token"]).not.toBe(first.document["access_token"]);
    expect(await refresh({ refresh_token: refreshToken }, oauthIo(idp))).toEqual({ kind: "rejected", cause: "invalid_grant" });
    expect(await refresh(second.document, oauthIo(idp))).toMatchObject({ kind: "rejected" });
  });

  test("a document without a tenant goes to the configured one; SharePoint's asks for its site", async () => {
    await using idp = await startOidc({ dress: "microsoft" });
    const { refreshToken } = await idp.grant();
    const io = oauthIo(idp, { tenant: "contoso.example" });
    await refreshed({ refresh_token: refreshToken, site_url: "https://contoso.sharepoint.com/sites/finance" }, io, "sharepoint");
    expect(io.asked[0]?.url).toBe(`${idp.origin}/contoso.example/oauth2/v2.0/token`);
    expect(idp.asked[0]?.form.get("scope")).toContain("https://contoso.sharepoint.com/.default");
  });

  test("an application's own client needs no refresh token, and two of them with the same id never share a token", async () => {
    await using idp = await startOidc({ dress: "microsoft" });
    const document = { client_id: OIDC_CLIENT.id, client_secret: OIDC_CLIENT.secret, tenant_id: TENANT };
    const both = await Promise.all([refreshed(document, oauthIo(idp, { own: false })), refreshed(document, oauthIo(idp, { own: false }))]);
    expect(new Set(both.map((said) => said.document["access_token"])).size).toBe(2);
    expect(idp.calls("client_credentials")).toBe(2);
    expect(idp.asked[0]?.form.get("scope")).toBe("https://graph.microsoft.com/.default");
    expect(both[0]?.document["refresh_token"]).toBeUndefined();
    // A wrong secret after a right one: nothing is remembered of it.
    expect(await refresh({ ...document, client_secret: "wrong" }, oauthIo(idp))).toEqual({ kind: "client_rejected", ours: false });
    expect(idp.calls("client_credentials")).toBe(3);
  });

  test("the environment does not choose where an application's token is asked for", async () => {
    await using idp = await startOidc({ dress: "microsoft" });
    process.env["MSAL_FORCE_REGION"] = "evil";
    try {
      const io = oauthIo(idp);
      await refreshed({ client_id: OIDC_CLIENT.id, client_secret: OIDC_CLIENT.secret, tenant_id: TENANT }, io);
      expect(io.asked.map(({ url }) => new URL(url).origin)).toEqual([idp.origin]);
    } finally {
      delete process.env["MSAL_FORCE_REGION"];
    }
  });

  test("two grants of two organizations through one client, at the same time, each get their own tokens", async () => {
    await using idp = await startOidc({ dress: "microsoft" });
    const grants = await Promise.all(["anna", "bert"].map((name) => idp.grant(name)));
    const said = await Promise.all(grants.map(({ refreshToken }) => refreshed({ refresh_token: refreshToken, tenant_id: TENANT }, oauthIo(idp))));
    expect(await Promise.all(said.map(({ document }) => idp.subjectOf(String(document["access_token"]))))).toEqual(["anna", "bert"]);
    // Neither does an operation without a token of its own find that of another.
    expect(await refresh({ tenant_id: TENANT }, closedIo())).toEqual({ kind: "rejected", cause: "refresh_token_missing" });
  });

  test("a SharePoint credential is never an application", async () => {
    const io = closedIo();
    expect(await refresh({ client_id: "c", client_secret: "s", tenant_id: TENANT }, io, "sharepoint")).toEqual({ kind: "rejected", cause: "refresh_token_missing" });
    expect(io.asked).toEqual([]);
  });
});

describe("nobody chooses where a Microsoft refresh token goes", () => {
  const token = "R3FRESH-canary";
  test.each([
    "evil.example/common", "https://evil.example/common", "../x", "a@b", "common#", "common?x=1", `{${TENANT}}`, "", "a b", "a\\b", "a%2fb", "192.0.2.1",
  ])("tenant %j: no request", async (tenant_id) => {
    for (const provider of ["microsoft", "sharepoint"] as const) {
      for (const document of [{ refresh_token: token, tenant_id }, { client_id: "c", client_secret: "s", tenant_id, refresh_token: token }]) {
        const io = closedIo();
        expect(await refresh(document, io, provider)).toEqual({ kind: "rejected", cause: "tenant_invalid" });
        expect(io.asked).toEqual([]);
      }
    }
  });

  test("a tenant that is a domain stays in the path of Microsoft's own host", async () => {
    const io = closedIo();
    expect(await refresh({ refresh_token: token, tenant_id: "evil.example" }, io)).toEqual({ kind: "unavailable", cause: "provider_unreachable", retryAfterMs: null });
    expect(io.asked.map(({ url }) => url)).toEqual(["https://login.microsoftonline.com/evil.example/oauth2/v2.0/token"]);
  });

  test("authorities, caches and endpoints that a document names are not read", async () => {
    const io = closedIo();
    await refresh({
      refresh_token: token, authority: "https://evil.example/common", token_endpoint: "https://evil.example/token", cloud: "evil", msal_cache: "{}",
      knownAuthorities: ["evil.example"], authorityMetadata: JSON.stringify({ token_endpoint: "https://evil.example/token" }), azureRegion: "evil", instance: "evil.example",
    }, io);
    expect(io.asked.map(({ url }) => url)).toEqual(["https://login.microsoftonline.com/organizations/oauth2/v2.0/token"]);
    expect(io.asked[0]?.body).not.toContain("evil");
  });

  test.each([
    ["https://contoso.sharepoint.com", "https://login.microsoftonline.com"],
    ["https://contoso.sharepoint.us/sites/a", "https://login.microsoftonline.us"],
    ["https://contoso.sharepoint-mil.us", "https://login.microsoftonline.us"],
    ["https://contoso.sharepoint.cn", "https://login.partner.microsoftonline.cn"],
    ["https://contoso.sharepoint.com.evil.example", "https://login.microsoftonline.com"],
    ["https://evil.example/.sharepoint.us", "https://login.microsoftonline.com"],
  ])("a caller's own client with the site %s asks %s, a client of ours the configured cloud", async (site_url, authority) => {
    const [theirs, ours] = [closedIo(), closedIo()];
    await refresh({ refresh_token: token, site_url, client_id: "c", client_secret: "s" }, theirs, "sharepoint");
    await refresh({ refresh_token: token, site_url }, ours, "sharepoint");
    expect(theirs.asked.map(({ url }) => new URL(url).origin)).toEqual([authority]);
    expect(ours.asked.map(({ url }) => new URL(url).origin)).toEqual(["https://login.microsoftonline.com"]);
    expect(theirs.asked[0]?.body.includes("evil")).toBe(false);
  });
});
