import { expect, test } from "vitest";
import { missingScopes } from "../../src/domain/scopes.ts";
import { expose } from "../../src/providers/index.ts";

test.each([
  ["Microsoft never names offline_access", "User.Read offline_access", "User.Read", []],
  ["Google has other names for who signed in", "openid email profile drive", "openid https://www.googleapis.com/auth/userinfo.email drive", []],
  ["with the API's URL before them", "Files.ReadWrite.All", "https://graph.microsoft.com/Files.ReadWrite.All", []],
  ["without it", "https://graph.microsoft.com/Mail.Read", "mail.read User.Read", []],
  ["everything that was consented to", "https://graph.microsoft.com/.default", "User.Read", []],
  ["one of two", "Mail.Read Files.Read", "https://graph.microsoft.com/Mail.Read", ["Files.Read"]],
  ["another one with the same end", "Files.Read", "https://graph.microsoft.com/MyFiles.Read", ["Files.Read"]],
  ["none", "a b", "", ["a", "b"]],
])("scopes that were granted: %s", (_, wanted, granted, missing) => {
  expect(missingScopes(wanted.split(" "), granted.split(" ").filter((scope) => scope !== ""))).toEqual(missing);
});

test("the memory of scopes that are missing stays in the service", () => {
  expect(expose("google", "oauth2", { access_token: "a", scope: "x", scope_before: "x y", note: 1 })).toMatchObject({ secret: { value: { scopes: ["x"] } }, extra: { note: 1 } });
  expect(JSON.stringify(expose("google", "oauth2", { access_token: "a", scope: "x", scope_before: "x y" }))).not.toContain("x y");
});
