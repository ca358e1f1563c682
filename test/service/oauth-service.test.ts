import { randomUUID } from "node:crypto";
import { writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { expect, test } from "vitest";
import { type CredentialClient, createCredentialClient } from "../../src/client/index.ts";
import { canary, leaks } from "../support/canary.ts";
import { OIDC_CLIENT, startOidc, TENANT } from "../support/oidc.ts";
import { rest, startFresh, temporaryFolder, token } from "../support/service.ts";

const accessTokenOf = ({ credentials }: Awaited<ReturnType<CredentialClient["resolveCredential"]>>): string => (credentials?.$case === "oauthToken" ? credentials.value.accessToken : "");

const EXPIRED = "2020-01-01T00:00:00Z";

test("a running service renews what callers posted, at both providers, with their own clients; the tokens work and nothing is printed", async () => {
  using folder = temporaryFolder();
  await using google = await startOidc({ dress: "strict" });
  await using microsoft = await startOidc({ dress: "microsoft" });
  const authority = join(folder.path, "ca.pem");
  writeFileSync(authority, microsoft.ca ?? "");
  await using service = await startFresh({
    CREDENTIALS_LOG_LEVEL: "debug",
    CREDENTIALS_EGRESS_ALLOW: "127.0.0.0/8",
    CREDENTIALS_GOOGLE_ISSUER: google.issuer,
    CREDENTIALS_MICROSOFT_AUTHORITY: microsoft.origin,
    NODE_EXTRA_CA_CERTS: authority,
    // What the libraries would print, or do, if they were let.
    GOOGLE_SDK_NODE_LOGGING: "*",
    NODE_DEBUG: "auth",
    HTTPS_PROXY: "http://127.0.0.1:9",
    MSAL_FORCE_REGION: "westeurope",
  });
  const organization = randomUUID();
  const [user, machine] = await Promise.all([token("user", organization), token("service_account", organization)]);
  await using client = createCredentialClient({ target: service.grpc, token: machine, tls: "insecure" });
  const own = { client_id: OIDC_CLIENT.id, client_secret: OIDC_CLIENT.secret, expires_at: EXPIRED };
  const planted: string[] = [OIDC_CLIENT.secret];

  const cases = [
    { idp: google, provider: "google", credential_type: "google_oauth", more: {} },
    { idp: microsoft, provider: "microsoft", credential_type: "oauth2", more: { tenant_id: TENANT } },
    { idp: microsoft, provider: "sharepoint", credential_type: "sharepoint_oauth", more: { tenant_id: TENANT, site_url: "https://contoso.sharepoint.com" } },
  ] as const;
  for (const { idp, provider, credential_type, more } of cases) {
    const { refreshToken, accessToken } = await idp.grant(`owner-of-${provider}`);
    planted.push(refreshToken, accessToken);
    const body = { provider, credential_type, credentials: { ...own, ...more, refresh_token: refreshToken, access_token: accessToken } };
    const created = await rest(service, "POST", "/integrations/credentials", { token: user, body });
    expect(created.status, created.text).toBe(201);
    const calls = idp.calls("refresh_token");
    // Strict rotation: a second request with the same refresh token would end the grant.
    const answers = await Promise.all(Array.from({ length: 8 }, () => client.resolveCredential({ credentialId: created.json.id })));
    const tokens = new Set(answers.map(accessTokenOf));
    expect([tokens.size, idp.calls("refresh_token") - calls]).toEqual([1, 1]);
    const [fresh = ""] = tokens;
    planted.push(fresh);
    expect(await idp.subjectOf(fresh)).toBe(`owner-of-${provider}`);
    expect(JSON.stringify(answers, (_, value: unknown) => (typeof value === "bigint" ? String(value) : value))).not.toContain(refreshToken);
    const read = await rest(service, "GET", `/integrations/credentials/${created.json.id}`, { token: user });
    expect(read.json).toMatchObject({ status: "active" });
  }

  const application = { client_id: OIDC_CLIENT.id, client_secret: OIDC_CLIENT.secret, tenant_id: TENANT };
  const created = await rest(service, "POST", "/integrations/credentials", { token: user, body: { provider: "microsoft", credential_type: "oauth2", credentials: application } });
  expect(created.status, created.text).toBe(201);
  const accessToken = accessTokenOf(await client.resolveCredential({ credentialId: created.json.id }));
  expect([microsoft.issued.has(accessToken), microsoft.calls("client_credentials")]).toEqual([true, 1]);
  planted.push(accessToken);

  await service.stop();
  expect(leaks(planted, "what the process printed", Buffer.from(service.output()))).toEqual([]);
});

test("Google JSON that is no user's grant, evil tenants and foreign sites are refused, and nothing goes out", async () => {
  await using idp = await startOidc();
  let requests = 0;
  const evil = createServer((_, response) => (requests++, response.end("{}")));
  await new Promise<void>((resolve) => evil.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(evil.address() as AddressInfo).port}`;
  await using service = await startFresh({ CREDENTIALS_EGRESS_ALLOW: "127.0.0.0/8", CREDENTIALS_GOOGLE_ISSUER: idp.issuer });
  const user = await token("user", randomUUID());
  const secret = canary("refresh");
  const named = { token_url: url, token_uri: url, service_account_impersonation_url: url, credential_source: { url, file: "/etc/hostname", executable: { command: "/bin/true" } }, private_key: "x", client_email: "x@y.example" };
  const bodies = [
    ...["service_account", "external_account", "external_account_authorized_user", "impersonated_service_account", "gdch_service_account"].map((type) => ({ provider: "google", credential_type: "google_oauth", credentials: { type, refresh_token: secret, access_token: "t", ...named } })),
    ...["evil.example/common", "../x", "a@b", "common#", `{${TENANT}}`, url].map((tenant_id) => ({ provider: "microsoft", credential_type: "oauth2", credentials: { refresh_token: secret, tenant_id } })),
    ...[`${url}/x.sharepoint.com`, "https://contoso.sharepoint.com.evil.example", "https://evil.example"].map((site_url) => ({ provider: "sharepoint", credential_type: "sharepoint_oauth", credentials: { refresh_token: secret, site_url } })),
  ];
  for (const body of bodies) {
    const answer = await rest(service, "POST", "/integrations/credentials", { token: user, body });
    expect(answer.status, JSON.stringify(body)).toBe(400);
    expect(leaks([secret], "an answer", Buffer.from(answer.text))).toEqual([]);
  }
  evil.close();
  expect([requests, idp.calls()]).toEqual([0, 0]);
});
