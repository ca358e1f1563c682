import { createHash, randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import type { AuthorizationAsk, CodeAsk, OauthIo } from "../../src/domain/oauth.ts";
import { secret } from "../../src/domain/secret.ts";
import { accept, providers } from "../../src/providers/index.ts";
import { oauthIo } from "../support/oauth-io.ts";
import { objectIdOf, OIDC_CLIENT, type Oidc, REDIRECT_URI, startOidc, TENANT } from "../support/oidc.ts";

type FlowProvider = "google" | "microsoft" | "sharepoint";

function flowOf(provider: FlowProvider) {
  const flow = providers[provider].authorization;
  if (flow === undefined) throw new Error("it has a flow");
  return flow;
}

/** What a flow begins with. */
function beginning(loginHint: string | null = null) {
  const codeVerifier = randomBytes(32).toString("base64url");
  const ask: AuthorizationAsk = {
    state: randomBytes(32).toString("base64url"), nonce: randomBytes(16).toString("base64url"), redirectUri: REDIRECT_URI, loginHint,
    codeChallenge: createHash("sha256").update(codeVerifier).digest("base64url"), scopes: ["User.Read"],
  };
  return { ask, codeVerifier };
}

/** Goes through the provider's pages up to the code. */
async function code(provider: FlowProvider, idp: Oidc, io: OauthIo, hint: string | null = null) {
  const { ask, codeVerifier } = beginning(hint);
  const url = await flowOf(provider).url(ask, io);
  const back = await idp.browse(url);
  expect(back.searchParams.get("state")).toBe(ask.state);
  const redeem: CodeAsk = { code: back.searchParams.get("code") ?? "", codeVerifier, redirectUri: REDIRECT_URI, nonce: ask.nonce, scopes: ask.scopes };
  return { url: new URL(url), redeem };
}

const DRESS = { google: "google", microsoft: "microsoft", sharepoint: "microsoft" } as const;
const ALL = ["google", "microsoft", "sharepoint"] as const;

describe.each(ALL)("a flow of %s", (provider) => {
  test("asks with PKCE, nonce and offline access, and gives a credential that works and can be renewed", async () => {
    await using idp = await startOidc({ dress: DRESS[provider] });
    const io = oauthIo(idp);
    const { url, redeem } = await code(provider, idp, io, "anna@example.com");
    expect(io.asked).toEqual([]);
    const query = Object.fromEntries(url.searchParams);
    expect(query).toMatchObject({ response_type: "code", code_challenge_method: "S256", client_id: OIDC_CLIENT.id, redirect_uri: REDIRECT_URI, login_hint: "anna@example.com" });
    expect([query["code_challenge"]?.length, query["nonce"] === redeem.nonce, url.href.includes(OIDC_CLIENT.secret), url.href.includes(redeem.codeVerifier)]).toEqual([43, true, false, false]);
    const scopes = query["scope"]?.split(" ");
    expect(scopes).toEqual(expect.arrayContaining(["openid", "email", "User.Read", ...(provider === "google" ? [] : ["offline_access"])]));
    if (provider === "google") expect(query).toMatchObject({ access_type: "offline", prompt: "consent" });

    const said = await flowOf(provider).exchange(redeem, io);
    if (said.kind !== "granted") throw new Error(JSON.stringify(said));
    expect(said.account).toEqual({ id: provider === "google" ? "anna" : `${objectIdOf("anna")}.${TENANT}`, email: "anna@example.com" });
    expect(said.grantedScopes).toEqual(expect.arrayContaining(["User.Read", "openid"]));
    expect(Object.keys(said.document).toSorted()).toEqual(["access_token", "expires_at", "refresh_token", "scope", ...(provider === "google" ? [] : ["tenant_id"]), "token_type"].toSorted());
    expect(await idp.subjectOf(String(said.document["access_token"]))).toBe("anna");

    const type = flowOf(provider).credentialType;
    const accepted = await accept(provider, type, said.document, { now: new Date(), fairness: "", signal: new AbortController().signal });
    expect([accepted.document, accepted.tokenExpiresAt]).toEqual([said.document, said.tokenExpiresAt]);
    const shape = providers[provider].types[type];
    expect(shape?.canRefresh?.(said.document, true)).toBe(true);
    expect(await shape?.refresh?.(said.document, oauthIo(idp))).toMatchObject({ kind: "refreshed" });
  });

  test("refuses a code that is wrong, used or proved with another verifier, and a secret of ours that is wrong", async () => {
    await using idp = await startOidc({ dress: DRESS[provider] });
    const io = oauthIo(idp);
    const { exchange } = flowOf(provider);
    const { redeem } = await code(provider, idp, io);
    expect(await exchange({ ...redeem, code: "wrong" }, io)).toEqual({ kind: "refused", cause: "code_rejected" });
    const other = await code(provider, idp, io);
    expect(await exchange({ ...other.redeem, codeVerifier: "v".repeat(43) }, io)).toEqual({ kind: "refused", cause: "code_rejected" });
    expect(await exchange(redeem, io)).toMatchObject({ kind: "granted" });
    expect(await exchange(redeem, io)).toEqual({ kind: "refused", cause: "code_rejected" });
    expect(await exchange(redeem, { ...io, client: { id: "unknown", secret: secret(OIDC_CLIENT.secret) } })).toEqual({ kind: "client_rejected" });
  });

  test("does not begin or end without proof", async () => {
    await using idp = await startOidc({ dress: DRESS[provider] });
    const io = oauthIo(idp);
    const { url, exchange } = flowOf(provider);
    const { ask, codeVerifier } = beginning();
    for (const weak of [{ codeChallenge: "" }, { codeChallenge: codeVerifier.slice(1) }, { state: "" }, { nonce: "" }]) await expect(url({ ...ask, ...weak }, io)).rejects.toThrow(TypeError);
    const redeem = { code: "c", codeVerifier, redirectUri: REDIRECT_URI, nonce: ask.nonce, scopes: [] };
    for (const weak of [{ codeVerifier: "" }, { codeVerifier: "short" }, { nonce: "" }]) await expect(exchange({ ...redeem, ...weak }, io)).rejects.toThrow(TypeError);
    await expect(url(ask, { ...io, client: undefined })).rejects.toThrow(TypeError);
    expect(io.asked).toEqual([]);
  });

  test("takes no grant without a refresh token or an id token", async () => {
    await using idp = await startOidc({ dress: DRESS[provider] });
    const io = oauthIo(idp);
    for (const [key, cause] of [["refresh_token", "refresh_token_missing"], ["id_token", "id_token_missing"]] as const) {
      const { redeem } = await code(provider, idp, io);
      idp.state.alter = (reply) => void delete reply[key];
      expect(await flowOf(provider).exchange(redeem, io)).toEqual({ kind: "refused", cause });
    }
  });
});

test("a person who refuses comes back with access_denied", async () => {
  await using idp = await startOidc();
  idp.state.consent = false;
  const back = await idp.browse(await flowOf("google").url(beginning().ask, oauthIo(idp)));
  expect(back.searchParams.get("error")).toBe("access_denied");
});
