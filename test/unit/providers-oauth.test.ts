import { describe, expect, test } from "vitest";
import type { CredentialTypeName, ProviderName, SecretDocument } from "../../src/domain/credential.ts";
import { CredentialError } from "../../src/domain/errors.ts";
import { accept, expose } from "../../src/providers/index.ts";
import { MAX_LIFETIME_SECONDS, timestamp } from "../../src/providers/oauth.ts";

const NOW = new Date("2030-01-01T00:00:00Z");
const OPTIONS = { now: NOW, fairness: "organization", signal: new AbortController().signal };
const SHAPES: readonly (readonly [ProviderName, CredentialTypeName])[] = [
  ["google", "google_oauth"],
  ["google", "oauth2"],
  ["sharepoint", "sharepoint_oauth"],
  ["sharepoint", "oauth2"],
  ["microsoft", "oauth2"],
];

async function violations(provider: ProviderName, document: SecretDocument) {
  try {
    await accept(provider, "oauth2", document, OPTIONS);
    return [];
  } catch (error) {
    if (error instanceof CredentialError) return error.violations;
    throw error;
  }
}
const keys = async (provider: ProviderName, document: SecretDocument) => (await violations(provider, document)).map((violation) => violation.path.at(-1));

describe("tokens", () => {
  test.each(SHAPES)("%s/%s takes an access token, or a refresh token, and needs one of them", async (provider, type) => {
    for (const token of ["access_token", "refresh_token"]) {
      expect((await accept(provider, type, { [token]: "t" }, OPTIONS)).document).toEqual({ [token]: "t" });
    }
    await expect(accept(provider, type, { scope: "a" }, OPTIONS)).rejects.toMatchObject({
      violations: [{ path: ["credentials", "access_token"], type: "missing", message: expect.stringContaining("authorize flow") as string }],
    });
  });

  test("a token that would break out of a header is refused", async () => {
    for (const token of ["a\r\nX: 1", "ä", "a\0", " ", ""]) expect(await keys("google", { access_token: token })).toEqual(["access_token"]);
    expect(await keys("google", { access_token: 1 })).toEqual(["access_token"]);
  });

  test("an id token is not verified, so it gives no account address", async () => {
    const body = Buffer.from(JSON.stringify({ email: "a@example.com", email_verified: true })).toString("base64url");
    const accepted = await accept("google", "google_oauth", { access_token: "t", id_token: `e30.${body}.x` }, OPTIONS);
    expect(accepted.accountEmail).toBeNull();
  });

  test.each(SHAPES)("%s/%s never hands out a refresh token, an id token or a client secret, in any spelling or depth", async (provider, type) => {
    const withheld = { refresh_token: "C4NARY", id_token: "C4NARY", client_secret: "C4NARY" };
    const spelled = { refreshToken: "C4NARY", "Client-Secret": "C4NARY", ID_TOKEN: "C4NARY", raw: { list: [{ ...withheld, kept: 1 }] } };
    const { document } = await accept(provider, type, { access_token: "t", client_id: "id", ...withheld, ...spelled, note: "x" }, OPTIONS);
    const exposed = expose(provider, type, document);
    expect(JSON.stringify(exposed)).not.toContain("C4NARY");
    expect(exposed.extra).toEqual({ raw: { list: [{ kept: 1 }] }, note: "x" });
  });

  test("what an executor gets has scopes as a list and Bearer unless said otherwise", async () => {
    const given = { access_token: "t", scope: "a  b c", expires_at: "2031-02-03T04:05:06+01:00", tenant_id: "contoso.com" };
    const { document } = await accept("microsoft", "oauth2", given, OPTIONS);
    const expiresAt = new Date("2031-02-03T03:05:06Z");
    expect(expose("microsoft", "oauth2", document)).toEqual({
      secret: {
        $case: "oauthToken",
        value: { accessToken: "t", tokenType: "Bearer", expiresAt, scopes: ["a", "b", "c"], tenantId: "contoso.com", siteUrl: "" },
      },
      extra: {},
      expiresAt,
    });
  });
});

describe("when a token ends", () => {
  test.each([
    [3600, 3600],
    ["3600", 3600],
    [59.9, 59],
    [0, 0],
    [1e12, MAX_LIFETIME_SECONDS],
    ["999999999999999", MAX_LIFETIME_SECONDS],
  ])("expires_in %j becomes expires_at, counted from now and at most ten years on", async (expires_in, seconds) => {
    const accepted = await accept("google", "oauth2", { access_token: "t", expires_in }, OPTIONS);
    const end = new Date(NOW.getTime() + seconds * 1000);
    expect(accepted.document).toEqual({ access_token: "t", expires_at: end.toISOString() });
    expect(accepted.tokenExpiresAt).toEqual(end);
  });

  test.each([-1, "-1", "soon", "", "1e3", " 5", true, [1]])("expires_in %j is refused", async (expires_in) => {
    expect(await keys("google", { access_token: "t", expires_in })).toEqual(["expires_in"]);
  });

  test("expires_at wins over expires_in and is stored as given", async () => {
    const given = { access_token: "t", expires_at: "2030-01-02t00:00:00.5z", expires_in: 5 };
    const { document, tokenExpiresAt } = await accept("google", "oauth2", given, OPTIONS);
    expect(document).toEqual({ access_token: "t", expires_at: "2030-01-02t00:00:00.5z" });
    expect(tokenExpiresAt).toEqual(new Date("2030-01-02T00:00:00.500Z"));
  });

  test.each([
    "2030-02-30T00:00:00Z", "2030-13-01T00:00:00Z", "2030-01-01", "2030-01-01T00:00:00", "2030-01-01T25:00:00Z", "1893456000",
    "1969-12-31T23:59:59Z", "", 1893456000,
  ])(
    "expires_at %j is refused",
    async (expires_at) => expect(await keys("google", { access_token: "t", expires_at })).toEqual(["expires_at"]),
  );

  test("29 February exists in leap years only", () => {
    expect(timestamp("2028-02-29T00:00:00Z")).not.toBeNull();
    expect(timestamp("2030-02-29T00:00:00Z")).toBeNull();
  });

  test("without an access token nothing ends, and without an end it is unknown", async () => {
    expect((await accept("google", "oauth2", { refresh_token: "r", expires_in: 5 }, OPTIONS)).tokenExpiresAt).toBeNull();
    expect((await accept("google", "oauth2", { access_token: "t" }, OPTIONS)).tokenExpiresAt).toBeNull();
  });
});

describe("Google", () => {
  test.each(["service_account", "external_account", "external_account_authorized_user", "impersonated_service_account", "gdch_service_account"])(
    "%s JSON is refused, with tokens or without, whatever the type of credential",
    async (type) => {
      for (const document of [{ type, private_key: "x" }, { type, access_token: "t" }]) expect(await keys("google", document)).toContain("credentials");
      await expect(accept("google", "api_key", { type, api_key: "k" }, OPTIONS)).rejects.toThrow("Invalid request data");
    },
  );

  test("an API key is one key", async () => {
    const { document } = await accept("google", "api_key", { api_key: "AIza" }, OPTIONS);
    expect(expose("google", "api_key", document)).toEqual({ secret: { $case: "apiKey", value: { apiKey: "AIza" } }, extra: {}, expiresAt: null });
  });
});

describe("Microsoft and SharePoint", () => {
  const client = { client_id: "id", client_secret: "s", tenant_id: "2f6b1a52-7a2b-4a0a-9d0c-0f4f1c6c3e1d" };

  test("Microsoft takes client credentials, all three of them, in place of tokens", async () => {
    expect((await accept("microsoft", "oauth2", client, OPTIONS)).document).toEqual(client);
    expect(await keys("microsoft", { client_secret: "s", client_id: "id" })).toEqual(["tenant_id"]);
    expect(await keys("microsoft", { client_secret: "s" })).toEqual(["client_id", "tenant_id"]);
    expect(await keys("microsoft", { client_id: "id", tenant_id: "contoso.com" })).toEqual(["access_token"]);
    expect(await keys("sharepoint", client)).toEqual(["access_token"]);
    expect(await keys("google", client)).toEqual(["access_token"]);
  });

  test.each(["2F6B1A52-7A2B-4A0A-9D0C-0F4F1C6C3E1D", "contoso.onmicrosoft.com", "common", "xn--bcher-kva.example"])("tenant %s is taken", async (tenant_id) => {
    expect(await keys("microsoft", { access_token: "t", tenant_id })).toEqual([]);
  });

  test.each([
    "../x", "a@b", "common#", "common?", "https://evil.example/common", "evil.example/common", "{2f6b1a52-7a2b-4a0a-9d0c-0f4f1c6c3e1d}",
    "a..b", ".", "", "a b", "192.0.2.1", "-a.com", "a%2fb", "ä.com", "common\n",
  ])(
    "tenant %j is refused",
    async (tenant_id) => {
      for (const provider of ["microsoft", "sharepoint"] as const) expect(await keys(provider, { access_token: "t", tenant_id })).toEqual(["tenant_id"]);
    },
  );

  test.each([
    "https://contoso.sharepoint.com", "https://Contoso-my.SharePoint.com/sites/Büro", "https://a.sharepoint.us/",
    "https://a.sharepoint-mil.us", "https://a.sharepoint.cn", "https://a.sharepoint.de",
  ])(
    "site %s is taken and handed out",
    async (site_url) => {
      const { document } = await accept("sharepoint", "sharepoint_oauth", { access_token: "t", site_url }, OPTIONS);
      expect(expose("sharepoint", "sharepoint_oauth", document).secret).toMatchObject({ value: { siteUrl: site_url } });
    },
  );

  test.each([
    "http://contoso.sharepoint.com",
    "https://sharepoint.com",
    "https://.sharepoint.com",
    "https://contoso.sharepoint.com.evil.example",
    "https://evilsharepoint.com",
    "https://contoso.sharepoint.com@evil.example",
    "https://contoso.sharepoint.com:8443/",
    "https://evil.example/contoso.sharepoint.com",
    "https://evil.example#.sharepoint.com",
    "https://evil.example\\.sharepoint.com",
    "https://a.sharepoint.com/x?y",
    "https://a.b.sharepoint.com",
    "https://a.sharepoint.com/\n",
    "//a.sharepoint.com",
    "",
  ])("site %j is refused", async (site_url) => {
    expect(await keys("sharepoint", { access_token: "t", site_url })).toEqual(["site_url"]);
  });
});
