import { describe, expect, test } from "vitest";
import { loadConfig } from "../../src/config.ts";
import { DialError } from "../../src/domain/check.ts";
import { EGRESS_REASONS, EgressError, type EgressReason } from "../../src/egress/error.ts";
import type { FetchRequest } from "../../src/egress/fetch.ts";
import { createOauthAccess } from "../../src/oauth-access.ts";

const RESPONSE = { outcome: "response", status: 200, headers: {}, body: Buffer.from("{}") } as const;
const PRODUCTION = { CREDENTIALS_PROFILE: "production", CREDENTIALS_DATABASE_URL: "postgresql://u@localhost/d" };

const access = (env: Record<string, string> = {}, fetch: (request: FetchRequest) => Promise<typeof RESPONSE> = async () => RESPONSE) => createOauthAccess(loadConfig(env), fetch);
const google = (issuer: string) => ({ CREDENTIALS_GOOGLE_ISSUER: issuer });
const microsoft = (authority: string) => ({ CREDENTIALS_MICROSOFT_AUTHORITY: authority });

describe("where users sign in", () => {
  test("is the world-wide place of each provider unless something is said", () => {
    const worldwide = { googleIssuer: "https://accounts.google.com", microsoftAuthority: "https://login.microsoftonline.com", microsoftTenant: "organizations" };
    for (const env of [{}, PRODUCTION, { ...google("https://accounts.google.com/"), ...microsoft("https://LOGIN.microsoftonline.com/") }]) expect(access(env).endpoints).toEqual(worldwide);
  });

  test("may in production be a national cloud, and a tenant of one's own", () => {
    for (const authority of ["https://login.microsoftonline.us", "https://login.partner.microsoftonline.cn"]) {
      expect(access({ ...PRODUCTION, ...microsoft(authority), CREDENTIALS_MICROSOFT_TENANT: "contoso.onmicrosoft.com" }).endpoints).toMatchObject({ microsoftAuthority: authority, microsoftTenant: "contoso.onmicrosoft.com" });
    }
  });

  test("may in development be any provider", () => {
    expect(access({ ...google("http://127.0.0.1:4000/realms/test/"), ...microsoft("https://127.0.0.1:4001") }).endpoints).toMatchObject({ googleIssuer: "http://127.0.0.1:4000/realms/test", microsoftAuthority: "https://127.0.0.1:4001" });
  });

  test.each<readonly [string, Record<string, string>, string]>([
    ["another issuer in production", { ...PRODUCTION, ...google("https://evil.example") }, "CREDENTIALS_GOOGLE_ISSUER"],
    ["plain http in production", { ...PRODUCTION, ...google("http://accounts.google.com") }, "CREDENTIALS_GOOGLE_ISSUER"],
    ["a path below Google's in production", { ...PRODUCTION, ...google("https://accounts.google.com/x") }, "CREDENTIALS_GOOGLE_ISSUER"],
    ["another port in production", { ...PRODUCTION, ...google("https://accounts.google.com:8443") }, "CREDENTIALS_GOOGLE_ISSUER"],
    ["another authority in production", { ...PRODUCTION, ...microsoft("https://login.evil.example") }, "CREDENTIALS_MICROSOFT_AUTHORITY"],
    ["an authority that only begins like one", { ...PRODUCTION, ...microsoft("https://login.microsoftonline.com.evil.example") }, "CREDENTIALS_MICROSOFT_AUTHORITY"],
    ["an authority with a tenant", microsoft("https://login.microsoftonline.com/common"), "CREDENTIALS_MICROSOFT_AUTHORITY"],
    ["an authority with a user", microsoft("https://login.microsoftonline.com@evil.example"), "CREDENTIALS_MICROSOFT_AUTHORITY"],
    ["an authority without TLS", microsoft("http://127.0.0.1:4001"), "CREDENTIALS_MICROSOFT_AUTHORITY"],
    ["an issuer with a query", google("https://accounts.google.com?x=canary"), "CREDENTIALS_GOOGLE_ISSUER"],
    ["an issuer with a fragment", google("https://accounts.google.com#canary"), "CREDENTIALS_GOOGLE_ISSUER"],
    ["an issuer with a bare question mark", google("https://accounts.google.com/?"), "CREDENTIALS_GOOGLE_ISSUER"],
    ["a tenant in braces", { CREDENTIALS_MICROSOFT_TENANT: "{canary}" }, "CREDENTIALS_MICROSOFT_TENANT"],
    ["a tenant with a path", { CREDENTIALS_MICROSOFT_TENANT: "../canary" }, "CREDENTIALS_MICROSOFT_TENANT"],
    ["an id without a secret", { CREDENTIALS_GOOGLE_CLIENT_ID: "canary" }, "CREDENTIALS_GOOGLE_CLIENT_ID"],
    ["a secret without an id", { CREDENTIALS_MICROSOFT_CLIENT_SECRET: "canary" }, "CREDENTIALS_MICROSOFT_CLIENT_ID"],
  ])("refuses %s, and names the setting without its value", (_, env, setting) => {
    expect(() => access(env)).toThrow(new RegExp(`^${setting}\\b`));
    expect(() => access(env)).not.toThrow(/canary|evil/);
  });
});

test("SharePoint is reached with Microsoft's client, and only Google with Google's; none prints its secret", () => {
  const it = access({ CREDENTIALS_GOOGLE_CLIENT_ID: "g", CREDENTIALS_GOOGLE_CLIENT_SECRET: "canary-g", CREDENTIALS_MICROSOFT_CLIENT_ID: "m", CREDENTIALS_MICROSOFT_CLIENT_SECRET: "canary-m" });
  expect(["google", "microsoft", "sharepoint", "sftp", "aws_ses"].map((name) => it.clientOf(name as "google")?.id)).toEqual(["g", "m", "m", undefined, undefined]);
  expect(it.clientOf("sharepoint")?.secret.reveal()).toBe("canary-m");
  expect(JSON.stringify([it.clientOf("google"), it.io("google", new AbortController().signal, 10)])).not.toContain("canary");
  expect(access().clientOf("google")).toBeUndefined();
});

test("what stops a request is told in a word that providers know, and without its text", async () => {
  const options = { provider: "google", signal: new AbortController().signal, sent: () => {} } as const;
  const ask = { method: "GET", url: "https://accounts.google.com/", headers: {} } as const;
  for (const thrown of [...(Object.keys(EGRESS_REASONS) as EgressReason[]).map((reason) => new EgressError(reason)), new Error("canary"), "canary"]) {
    const { request } = access({}, () => Promise.reject(thrown as Error));
    const error: unknown = await request(ask, options).then(() => undefined, (reason: unknown) => reason);
    expect(error).toBeInstanceOf(DialError);
    expect(String(error)).not.toContain("canary");
  }
});

test("a call's way out ends with the call, and with its time", async () => {
  const seen: FetchRequest[] = [];
  const call = new AbortController();
  const it = access({}, async (request) => (seen.push(request), RESPONSE));
  const io = it.io("google", call.signal, 60_000);
  expect(await io.request({ method: "POST", url: "https://oauth2.googleapis.com/token", headers: { a: "b" }, body: "c" })).toEqual({ status: 200, headers: {}, body: RESPONSE.body });
  expect(seen[0]).toMatchObject({ method: "POST", url: "https://oauth2.googleapis.com/token", headers: { a: "b" }, body: "c", provider: "google", signal: io.signal });
  expect([io.signal.aborted, io.endpoints]).toEqual([false, it.endpoints]);
  call.abort();
  expect(io.signal.aborted).toBe(true);
});
