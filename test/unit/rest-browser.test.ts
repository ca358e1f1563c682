import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { browserAnswerField, browserField, createBrowsers, refusalPage } from "../../src/rest/browser.ts";
import { decodeRequest } from "../../src/rest/decode.ts";
import { loadDescriptors } from "../../src/rest/descriptors.ts";
import { refusal } from "../../src/rest/envelope.ts";
import { renderPage } from "../../src/rest/page.ts";
import { presentResponse } from "../../src/rest/present.ts";
import { compileRoutes, findRoute } from "../../src/rest/routes.ts";
import { BeginAuthorizationRequest } from "../../gen/flow/credentials/v1/authorization_service.ts";

const routes = compileRoutes(loadDescriptors(), []);
const routeOf = (path: string) => {
  const found = findRoute(routes, "GET", path);
  if (found.kind !== "route") throw new Error("there is a route");
  return found;
};
const begin = routeOf("/integrations/google/authorize");
const VALUE = "v".repeat(43);

describe("a browser", () => {
  const secure = createBrowsers(true);

  test("is known by what it accepts, and by its own cookie alone", () => {
    const read = (...raw: string[]) => secure.read(raw);
    expect(read("Accept", "text/html,*/*;q=0.8", "Cookie", `a=b; __Host-flow-browser=${VALUE}; c=d`)).toEqual({ wantsPage: true, kept: VALUE });
    expect(read("Cookie", `flow-browser=${VALUE}`)).toEqual({ wantsPage: false, kept: "" });
    expect(read("Cookie", `__Host-flow-browser=${VALUE}`, "Cookie", `__Host-flow-browser=${VALUE}`).kept).toBe("");
    expect(read("Cookie", `x__Host-flow-browser=${VALUE}; __host-flow-browser=${VALUE}; __Host-flow-browser=é`).kept).toBe("");
  });

  test("is sent on, with a cookie that only this host gets back", () => {
    const { method } = begin.route;
    const response = create(method.output, { authorizationUrl: "https://p.example/?x", browser: { redirectUri: "https://p.example/?x", keep: VALUE } } as never);
    expect(secure.present(method, response, "R")).toEqual({
      status: 302, body: undefined,
      headers: { location: "https://p.example/?x", "referrer-policy": "no-referrer", "set-cookie": `__Host-flow-browser=${VALUE}; Max-Age=600; Path=/; HttpOnly; SameSite=Lax; Secure` },
    });
    expect(JSON.parse(presentResponse(begin.route, response, "/").body ?? "")).toEqual({ authorization_url: "https://p.example/?x" });
  });

  test("is told of only by RPCs that say so", () => {
    const methods = routes.flatMap((resource) => [...resource.routes.values()].map(({ method }) => method));
    expect(methods.filter((method) => browserField(method) ?? browserAnswerField(method)).map(({ name }) => name).toSorted()).toEqual(["BeginAuthorization", "CompleteAuthorization"]);
    const list = routeOf("/integrations/credentials").route.method;
    expect(secure.present(list, create(list.output), "R")).toBeUndefined();
  });
});

describe("a query string", () => {
  const read = (query: string) => {
    const { bytes, faults } = decodeRequest(begin.route, begin.params, undefined, query, { wantsPage: true, kept: "k" });
    return { faults: faults.map(({ path, type }) => [path[0], type]), ...BeginAuthorizationRequest.decode(bytes) };
  };

  test("gives texts and lists of a GET, and never what the headers or the path give", () => {
    expect(read("redirect_to=https%3A%2F%2Fa.example%2F%3Fb&scopes=a&scopes=b+c&browser=x&provider=sftp&kept=y&unknown=1")).toEqual({
      faults: [], provider: 5, redirectTo: "https://a.example/?b", credentialId: "", scopes: ["a", "b c"], browser: { wantsPage: true, kept: "k" },
    });
  });

  test("gives a text once", () => {
    expect(read("redirect_to=a&redirect_to=b&credential_id=%ff")).toMatchObject({ faults: [["redirect_to", "string_type"]], redirectTo: "", credentialId: "\ufffd" });
  });
});

test("a page escapes every text", () => {
  const evil = `"><script>alert(1)</script><img src='x'>&`;
  const html = renderPage({ title: evil, paragraphs: [evil], note: evil, tone: "good", tell: { origins: [evil], message: { type: evil } } });
  expect(html.match(/<script/g)).toHaveLength(1);
  expect(html).not.toContain("<img");
  expect(html).toContain("&quot;&gt;&lt;script&gt;");
  expect(refusalPage(refusal("internal", "R"), "R", { origins: [], reason: "internal" })).toMatchObject({ status: 500, headers: { "content-type": "text/html; charset=utf-8" }, body: expect.stringContaining("Internal server error.") });
});
