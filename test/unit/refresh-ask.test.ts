import { expect, test } from "vitest";
import { DialError } from "../../src/domain/check.ts";
import type { OauthIo } from "../../src/domain/oauth.ts";
import { secret } from "../../src/domain/secret.ts";
import { refresherOf } from "../../src/providers/index.ts";
import { Breaker } from "../../src/vault/breaker.ts";
import { type Answer, ask, type AskDeps } from "../../src/vault/refresh-io.ts";

type Reply = { readonly status: number; readonly body?: object | string; readonly headers?: Record<string, string> };

/** Renews documents of SharePoint's at clouds that answer so; each failure in a row opens the breaker for an hour. */
function clouds(reply: (url: string) => Reply | Error, client?: OauthIo["client"]) {
  const asked: string[] = [];
  const breaker = new Breaker({ failures: 1, openMs: 3_600_000, maxOpenMs: 3_600_000, now: () => performance.now() });
  const deps: AskDeps = {
    breaker, failpoint: async () => {}, providerDeadlineMs: 10_000, leaseMs: 30_000, ended: new AbortController().signal,
    async request({ url }, { sending, sent }) {
      asked.push(new URL(url).host);
      const said = reply(url);
      if (said instanceof Error) throw said;
      sending?.();
      sent();
      const { status, body = "", headers = {} } = said;
      return { status, headers, body: Buffer.from(typeof body === "string" ? body : JSON.stringify(body)) };
    },
  };
  const renew = (siteUrl: string, clientId: string | null = "c"): Promise<Answer> => {
    const own = clientId === null ? {} : { client_id: clientId, client_secret: "s" };
    const document = { refresh_token: "r", ...own, tenant_id: "contoso.example", site_url: siteUrl };
    const refresh = refresherOf("sharepoint", "sharepoint_oauth");
    if (refresh === undefined) throw new Error("it renews");
    return ask(deps, { provider: "sharepoint", client, clientId, who: `${siteUrl} ${clientId}`, now: new Date(), leasedAt: performance.now(), refresh: (io) => refresh(document, io) });
  };
  return { asked, breaker, renew };
}
const [WORLD, US] = ["https://contoso.sharepoint.com/sites/a", "https://contoso.sharepoint.us/sites/a"];
const LEFT_ALONE = { said: { kind: "unavailable", cause: "provider_left_alone" }, inDoubt: false, leftAloneMs: expect.any(Number) };

test("a cloud that cannot be reached, or a client that is throttled, is left alone, and no other cloud or client", async () => {
  const { asked, renew, breaker } = clouds((url) => (url.includes(".us/") ? new DialError("connection_refused") : { status: 429 }));
  expect(await renew(US)).toMatchObject({ said: { cause: "provider_unreachable" } });
  expect(await renew(US)).toMatchObject(LEFT_ALONE);
  expect(await renew(WORLD)).toMatchObject({ said: { cause: "provider_throttled" } });
  expect(await renew(WORLD)).toMatchObject(LEFT_ALONE);
  expect(await renew(WORLD, "d")).toMatchObject({ said: { cause: "provider_throttled" } });
  expect(asked).toEqual(["login.microsoftonline.us", "login.microsoftonline.com", "login.microsoftonline.com"]);
  expect([breaker.mayTry(`${US} c`), breaker.mayTry(`${WORLD} e`)]).toEqual([false, true]);
});

test.each<readonly [string, Reply]>([
  ["a request that is refused", { status: 400, body: { error: "invalid_request", error_codes: [90002] } }],
  ["a grant that is over", { status: 400, body: { error: "invalid_grant" } }],
  ["a client that is not known", { status: 401, body: { error: "invalid_client" } }],
  ["a page in the place of an answer", { status: 200, body: "<html>" }],
])("%s is an answer: the provider is not down", async (_, reply) => {
  const { asked, renew } = clouds(() => reply);
  for (let round = 0; round < 3; round++) await renew(WORLD);
  expect(asked).toHaveLength(3);
});

test("our own client that is refused is not tried with every token that has ended", async () => {
  const { asked, renew } = clouds(() => ({ status: 401, body: { error: "invalid_client" } }), { id: "us", secret: secret("wrong") });
  expect(await renew(WORLD, null)).toMatchObject({ said: { kind: "client_rejected", ours: true } });
  expect(await renew(WORLD, null)).toMatchObject(LEFT_ALONE);
  expect(await renew(WORLD)).toMatchObject({ said: { kind: "client_rejected", ours: false } });
  expect(asked).toHaveLength(2);
});
