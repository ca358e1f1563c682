import { describe, expect, test } from "vitest";
import { providers } from "../../src/providers/index.ts";
import { oauthIo } from "../support/oauth-io.ts";
import { OIDC_CLIENT, startOidc } from "../support/oidc.ts";

const shape = providers.google.types.google_oauth;
const refresh = (document: Record<string, unknown>, io: Parameters<NonNullable<NonNullable<typeof shape>["refresh"]>>[1]) => {
  if (shape?.refresh === undefined) throw new Error("Google renews");
  return shape.refresh(document, io);
};

describe("a Google grant is renewed by Google's library", () => {
  test("without rotation: a new access token that the provider takes, and the old refresh token", async () => {
    await using idp = await startOidc();
    const { refreshToken, accessToken } = await idp.grant("anna");
    const io = oauthIo(idp);
    const before = Date.now();
    const said = await refresh({ refresh_token: refreshToken, access_token: accessToken, note: { kept: [1] } }, io);
    if (said.kind !== "refreshed") throw new Error(said.kind);
    expect(said.document).toMatchObject({ refresh_token: refreshToken, note: { kept: [1] }, token_type: "Bearer", expires_at: said.tokenExpiresAt?.toISOString() });
    expect(await idp.subjectOf(String(said.document["access_token"]))).toBe("anna");
    expect(said.tokenExpiresAt?.getTime()).toBeGreaterThanOrEqual(before + 3_600_000);
    expect(said.scopes).toContain("https://www.googleapis.com/auth/drive");
    expect([idp.calls(), idp.calls("refresh_token"), io.asked.length]).toEqual([1, 1, 1]);
  });

  test("with rotation: the new refresh token is taken, and works; the old one ends the grant", async () => {
    await using idp = await startOidc({ dress: "strict" });
    const { refreshToken } = await idp.grant();
    const first = await refresh({ refresh_token: refreshToken }, oauthIo(idp));
    if (first.kind !== "refreshed") throw new Error(first.kind);
    expect(first.document["refresh_token"]).not.toBe(refreshToken);
    const second = await refresh(first.document, oauthIo(idp));
    if (second.kind !== "refreshed") throw new Error(second.kind);
    expect(await refresh({ refresh_token: refreshToken }, oauthIo(idp))).toEqual({ kind: "rejected", cause: "invalid_grant" });
    expect(await refresh(second.document, oauthIo(idp))).toEqual({ kind: "rejected", cause: "invalid_grant" });
  });

  test("with the caller's own client where the document has one, and not at all without any", async () => {
    await using idp = await startOidc();
    const { refreshToken } = await idp.grant();
    const own = { refresh_token: refreshToken, client_id: OIDC_CLIENT.id, client_secret: OIDC_CLIENT.secret };
    expect(await refresh(own, oauthIo(idp, { own: false }))).toMatchObject({ kind: "refreshed", document: own });
    expect(await refresh({ ...own, client_secret: "wrong" }, oauthIo(idp))).toEqual({ kind: "client_rejected", ours: false });
    expect(idp.calls()).toBe(2);
    expect(await refresh({ refresh_token: refreshToken }, oauthIo(idp, { own: false }))).toEqual({ kind: "client_rejected", ours: false });
    expect(await refresh({ refresh_token: refreshToken, client_id: OIDC_CLIENT.id }, oauthIo(idp))).toEqual({ kind: "client_rejected", ours: false });
    expect(idp.calls()).toBe(2);
  });
});
